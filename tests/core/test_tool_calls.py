from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco_integrations.core import call_scanner
from baco_integrations.core.json_text import repeated_key
from baco_integrations.core.tool_calls import (
    FORMATS,
    CallFormat,
    CallPiece,
    CallReader,
    ToolCall,
)

NAMES = ["g", "f"]
Read = tuple[str, list[tuple[str, str]], list[ToolCall]]

forms = st.sampled_from(list(FORMATS.values()))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
written_calls = st.lists(
    st.tuples(st.text(min_size=1), st.dictionaries(st.text(), values, max_size=4)),
    min_size=1,
    max_size=3,
)
# Texts that look much like calls, and are mostly wrong.
fragments = (
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "```", "json", "<tool"),
    *("[ARGS]", "[CALL_ID]"),
    *('"name"', '"f"', '"h"', '"arguments"', '"parameters"', ":", '{"a": 1}', '"{}"', "null"),
    *('{"name": "f", "arguments": {"a": [', '{"name": "f", "parameters": {}}', '{"name": "g"}'),
    *("{", "}", "[", "]", ",", ";", '"', "\\", " ", "\n", "hi", "\u2003", "é"),
)
garbage = st.lists(st.sampled_from(fragments), max_size=14).map("".join)


def reader(form: str, names: list[str] = NAMES) -> CallReader:
    return CallReader(FORMATS[form], names, lambda index: f"id{index}")


def read(form: str, pieces: list[str], names: list[str] = NAMES) -> Read:
    """Everything said, each call's name and joined arguments as streamed, and the calls."""
    source = reader(form, names)
    said, streamed = "", []
    for place, text in enumerate([*pieces, ""]):
        more, released = source.push(text, last=place == len(pieces))
        said += more
        for piece in released:
            if piece.index == len(streamed):
                assert piece.id == f"id{piece.index}" and piece.name is not None
                streamed.append((piece.name, ""))
            else:
                assert piece.id is None and piece.name is None
            name, arguments = streamed[piece.index]
            streamed[piece.index] = (name, arguments + piece.arguments)
    assert streamed == [(call.name, call.arguments) for call in source.calls]
    return said, streamed, source.calls


def valid(form: str, text: str, names: list[str] = NAMES) -> tuple[str, list[tuple[str, str]]]:
    said, streamed, found = read(form, [text], names)
    assert all(call.error is None and isinstance(call.parsed, dict) for call in found)
    return said, streamed


CALL = '{"name": "f", "arguments": {"a": 1}}'
LLAMA = '{"name": "f", "parameters": {"a": 1}}'
READ = ("f", '{"a": 1}')


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("hermes", f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>"),
        ("mistral", f"[TOOL_CALLS][{CALL}, {CALL}]"),
        ("mistral-args", '[TOOL_CALLS]f[ARGS]{"a": 1}' * 2),
        ("llama3", f"{LLAMA}\n{LLAMA}"),
        ("json", f"{CALL}\n{CALL}"),
    ],
)
def test_each_format_is_written_and_read(form: str, written: str) -> None:
    assert FORMATS[form].write([("f", {"a": 1})] * 2) == written
    assert valid(form, written) == ("", [READ, READ])


def test_openers() -> None:
    assert {name: form.opener for name, form in FORMATS.items()} == {
        "hermes": "<tool_call>",
        "mistral": "[TOOL_CALLS]",
        "mistral-args": "[TOOL_CALLS]",
        "llama3": "",
        "json": "",
    }


@pytest.mark.parametrize(
    ("form", "text", "said", "count"),
    [
        ("hermes", f"Sure. \n<tool_call>{CALL}</tool_call> \n", "Sure.", 1),
        ("hermes", f"<tool_call> {CALL} </tool_call>\n\n Done. ", "Done. ", 1),
        ("hermes", f"<tool_call>{CALL}<tool_call>{CALL}", "", 2),
        ("hermes", f"<tool_call>{LLAMA}</tool_call>", "", 1),
        ("hermes", f"1 <<tool> 2 <<tool_call>{CALL}</tool_call>", "1 <<tool> 2 <", 1),
        ("hermes", f"{CALL} < tool_call> ", f"{CALL} < tool_call> ", 0),
        ("hermes", f"<tool_call>{CALL}</tool_call>{{}}", "{}", 1),
        ("hermes", f"<tool_call>{CALL} so {{}}", "so {}", 1),
        ("mistral", f"[TOOL_CALLS][{CALL},]", "", 1),
        ("mistral", f"Sure.[TOOL_CALLS] [ {CALL} , {CALL} ] Done.", "Sure.Done.", 2),
        ("mistral", f"[TOOL_CALLS]\n{CALL}", "", 1),
        ("mistral-args", 'Sure. [TOOL_CALLS] f [ARGS]\n{"a": 1} Done.', "Sure.Done.", 1),
        ("mistral-args", '[TOOL_CALLS]f[CALL_ID]x12[ARGS]{"a": 1}', "", 1),
        ("mistral-args", f"[TOOL_CALLS][{CALL}, {CALL}]", "", 2),
        ("llama3", f" <|python_tag|>{LLAMA} ", "", 1),
        ("llama3", f"[{LLAMA}, {CALL}]", "", 2),
        ("llama3", f"{LLAMA}; {LLAMA}", "", 2),
        ("llama3", f"```json\n{LLAMA}\n```\nDone.", "Done.", 1),
        ("llama3", f"{LLAMA} or ] ```", "or ] ```", 1),
        ("llama3", f"Sure: {LLAMA}", f"Sure: {LLAMA}", 0),
        ("json", f"\n{CALL}\n", "", 1),
    ],
)
def test_what_models_really_write(form: str, text: str, said: str, count: int) -> None:
    assert valid(form, text) == (said, [READ] * count)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"name":"f"}', "{}"),
        ('{"id": "7", "type": "x", "name": "f", "arguments": {}, "more": {"name": "g"}}', "{}"),
        ('{"name": "f", "parameters": {}, "name": "g", "arguments": {"a": 1}}', "{}"),
        ('{"name": "f", "arguments": "{}", "arguments": "{ }"}', "{}"),
        ('{"arguments": { "a" : [{}] } , "name" : "f"}', '{ "a" : [{}] }'),
        ('{"name": "f", "arguments": "{\\"a\\": \\"\\ud800\\"}"}', '{"a": "\\ud800"}'),
        ('{"name": "f", "arguments": {"a": "</tool_call>}\\"{\\\\"}}', None),
        ('{"name": "f", "arguments": {"a": "[TOOL_CALLS]\\ud83d\\ude00\\ud800"}}', None),
        ('{"name": "f", "arguments": {"a": "two\nlines"}}', None),
    ],
)
@pytest.mark.parametrize("form", FORMATS)
def test_the_json_of_a_call(form: str, text: str, arguments: str | None) -> None:
    expected = arguments or text[len('{"name": "f", "arguments": ') : -1]
    before, after = (FORMATS[form].begin + FORMATS[form].before), FORMATS[form].after
    assert valid(form, before + text + after) == ("", [("f", expected)])


@pytest.mark.parametrize(
    "text",
    ['{"city": "Oslo"}', ' {"name": "Bob", "age": 3}\n', '[{"name": 1}, 2]', '{"na', "[1] {", "```"]
    + ["", " \n", "<|python_tag|>f()", '{"name": "Bob"', '{"parameters": {}}', "[]", "{f}"],
)
def test_json_that_is_no_call_is_text(text: str) -> None:
    assert valid("llama3", text) == (text, [])


@pytest.mark.parametrize(
    ("form", "text", "name", "arguments", "error"),
    [
        ("json", '{"name": "h", "arguments": {}}', "h", "{}", "no tool 'h'. Offered: f, g."),
        ("json", '{"name": "f", "arguments": [1]}', "f", "[1]", "arguments are not"),
        ("json", '{"name": "f", "arguments": "{"}', "f", "{", "arguments are not"),
        ("json", '{"name": "f", "arguments": null}', "f", "null", "arguments are not"),
        ("json", '{"name": "f", "arguments": {"a": 1', "f", '{"a": 1', "ends within"),
        ("json", '{"name": "f", "arguments": "{\\"a', "f", '"{\\"a', "ends within"),
        ("json", '{"name": "f"', "f", "", "ends within"),
        ("json", '{"name": "f", "arguments": {a}}', "f", "{a}", "not valid JSON"),
        ("json", '{"name": "\\ud800", "arguments": {}}', "\\ud800", "{}", "no tool"),
        ("hermes", '<tool_call>{"name": "f"</tool_call>', "f", "", "not valid JSON"),
        ("hermes", "<tool_call>\n", "", "", "ends within"),
        ("hermes", '<tool_call>{"nam', "", '{"nam', "ends within"),
        ("hermes", '<tool_call>{"name": 1, "f"', "", '{"name": 1, "f"', "ends within"),
        ("hermes", '<tool_call>{"x": 1}', "", '{"x": 1}', "names no tool"),
        ("hermes", "<tool_call></tool_call>", "", "", "not valid JSON"),
        ("hermes", "<tool_call> f(1 <> 2) </tool_call>", "", "f(1 <> 2)", "not valid JSON"),
        ("hermes", f"<tool_call>{CALL[:-1]}</tool_call>", "f", '{"a": 1}', "not valid JSON"),
        ("hermes", f"<tool_call>{CALL[:-2]}</tool_call>", "f", '{"a": 1', "not valid JSON"),
        ("mistral", "[TOOL_CALLS]f()", "", "f()", "not valid JSON"),
        ("mistral", '[TOOL_CALLS][{"name": "f", ' + "[" * 10**5, "f", "", "ends within"),
        ("mistral-args", "[TOOL_CALLS]f()", "", "f()", "ends within"),
        ("mistral-args", "[TOOL_CALLS]f[ARGS]", "f", "", "ends within"),
        ("mistral-args", '[TOOL_CALLS]f[ARGS]{"a": 1', "f", '{"a": 1', "ends within"),
        ("mistral-args", "[TOOL_CALLS]f[ARGS]a, b", "f", "a, b", "not valid JSON"),
        ("mistral-args", "[TOOL_CALLS]f[ARGS]{a}", "f", "{a}", "not valid JSON"),
        ("mistral-args", "[TOOL_CALLS]h[ARGS]{}", "h", "{}", "no tool 'h'. Offered: f, g."),
    ],
)
def test_wrong_calls_say_why(form: str, text: str, name: str, arguments: str, error: str) -> None:
    said, streamed, found = read(form, [text])
    assert (said, streamed) == ("", [(name, arguments)])
    assert error in str(found[0].error)


def test_a_broken_call_does_not_take_the_next_with_it() -> None:
    text = f"<tool_call>{CALL[:-1]}</tool_call><tool_call>{CALL}</tool_call>"
    _, _, found = read("hermes", [text])
    assert [call.error is None for call in found] == [False, True]
    assert found[1].parsed == {"a": 1}


def test_text_after_a_broken_call_is_text() -> None:
    said, _, found = read("hermes", ["<tool_call>f()</tool_call>{}"])
    assert (said, len(found)) == ("{}", 1)


def test_everything_comes_as_early_as_it_can() -> None:
    source = reader("hermes")
    assert source.push("Sure <to") == ("Sure", ())
    assert source.push("ast> <tool") == (" <toast>", ())
    assert source.push('_call>{"name": "f", "arguments": ') == ("", ())
    assert source.calls == []
    assert source.push('{"a": ') == ("", (CallPiece(0, "id0", "f", '{"a": '),))
    assert source.calls == [ToolCall("id0", "f", '{"a": ', "The text ends within the call.")]
    assert source.push("1} ") == ("", (CallPiece(0, None, None, "1}"),))
    assert source.push("}") == ("", ())
    assert source.calls == [ToolCall("id0", "f", '{"a": 1}', None)]


def test_arguments_wait_for_the_name() -> None:
    source = reader("json")
    assert source.push('{"arguments": {"a": 1}, "name": "f"') == ("", ())
    assert source.push("}") == ("", (CallPiece(0, "id0", "f", '{"a": 1}'),))


def test_text_that_is_no_call_is_not_held_back() -> None:
    source = reader("llama3")
    assert source.push('{"city": "Oslo"') == ("", ())
    assert source.push("} and") == ('{"city": "Oslo"} and', ())
    assert source.push(" {") == (" {", ())


@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_leaves_no_part_of_a_call_as_text(form: str) -> None:
    written = FORMATS[form].write([("f", {"a": [1, "b"]}), ("g", {})])
    if FORMATS[form].opener:
        written = f"Sure. {written}"
    for length in range(len(written) + 1):
        for pieces in ([written[:length]], list(written[:length])):
            source = reader(form)
            said = "".join(source.push(piece)[0] for piece in pieces)
            said += source.push("", last=True, cut=True)[0]
            if FORMATS[form].opener:
                assert said.strip() == "Sure. "[:length].strip()
            else:
                assert said == ("" if source.calls else written[:length])
    # What only looks like it, and what the model itself ended, is text.
    assert read(form, ["a [<to", "ast> x ", "<tool_"])[0] == "a [<toast> x <tool_"
    assert reader(form).push("a <b ", last=True, cut=True)[0] == "a <b "


def test_a_half_python_tag_is_no_text() -> None:
    for text in ("<|py", "<|python_tag|>"):
        assert reader("llama3").push(text, last=True, cut=True) == ("", ())


@pytest.mark.parametrize("form", FORMATS)
def test_arguments_that_repeat_a_key_are_not_valid(form: str) -> None:
    for arguments in ('{"a": 1, "b": {}, "a": 1}', '{"b": [{"a": {}, "a": 2}]}'):
        text = FORMATS[form].write([("f", {})]).replace("{}", arguments)
        _, streamed, (call,) = read(form, [text])
        assert call.error == "The arguments hold 'a' twice." and streamed == [("f", arguments)]
    assert repeated_key('{"a": {"a": 1}, "b": [{"c": 1}, {"c": 2}]}') is None
    assert repeated_key("[" * 10**5) is None


@given(forms, garbage | st.text())
def test_no_text_raises(form: CallFormat, text: str) -> None:
    for cut in (False, True):
        source = reader(form.name)
        source.push(text, last=True, cut=cut)
        for call in source.calls:
            assert call.error or isinstance(call.parsed, dict)


@given(forms, written_calls)
def test_written_calls_are_read_back(
    form: CallFormat, written: list[tuple[str, dict[str, Any]]]
) -> None:
    if form.divider:  # a bare name has nothing to quote it
        written = [(re.sub(r"\W", "_", name), arguments) for name, arguments in written]
    text = form.write(written)
    said, _, found = read(form.name, [text], [name for name, _ in written])
    assert said == ""
    assert [(call.name, call.parsed, call.error) for call in found] == [(*c, None) for c in written]


def test_lone_surrogates_are_written_as_escapes() -> None:
    text = FORMATS["json"].write([("f", {"a": "\ud800é"})])
    assert text == '{"name": "f", "arguments": {"a": "\\ud800é"}}'
    assert json.loads(text)["arguments"] == {"a": "\ud800é"}


@given(forms, garbage, st.data())
def test_cuts_change_nothing(form: CallFormat, text: str, data: st.DataObject) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    whole = read(form.name, [text])
    pieces = [text[a:b] for a, b in zip(places, places[1:], strict=False)]
    assert read(form.name, pieces) == read(form.name, list(text)) == whole


@given(forms, garbage | st.text())
def test_no_call_loses_no_text(form: CallFormat, text: str) -> None:
    said, _, found = read(form.name, [text])
    assert found or said == text
    if form.opener:
        assert bool(found) == (form.opener in text)


@pytest.mark.parametrize("form", FORMATS)
def test_streaming_parses_no_text_again_and_again(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    parse = call_scanner.parse_json
    monkeypatch.setattr(
        call_scanner, "parse_json", lambda text: parsed.append(len(text)) or parse(text)
    )
    text = FORMATS[form].write([("f", {"a": " {" * 10**4})])
    source = reader(form)
    for char in text:
        source.push(char)
    assert source.push("", last=True) == ("", ())
    assert sum(parsed) < 4 * len(text)
