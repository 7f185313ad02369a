"""What a grammar allows, whose place a text is at, and what happens where nothing can follow."""

from __future__ import annotations

import gc
import json
import math
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from baco_integrations import Completion, Decoder, SamplingParams, ScriptedPair
from baco_integrations.core.errors import DecoderError, ParameterError
from baco_integrations.core.tool_calls import FORMATS
from baco_integrations.decoder.request import Renderer
from baco_integrations.text.grammar import Grammars
from baco_integrations.text.json_rules import json_rules
from baco_integrations.text.matcher import JsonPosition, TextMatcher
from tests.pairs import random_pair

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 2}}}
CHARS = [*'{}[]":, abcdefg', "<", "\\", "1"]
END = "<end>"


def at(text: str, form: str = "hermes", **settings: Any) -> str:
    """Whose place comes behind a text: structure, or free but for the character in front."""
    place = JsonPosition.of(SamplingParams(**settings), FORMATS[form])
    place.push(text.encode())
    return "structure" if place.structure else f"{place.reserved} free".strip()


STRUCTURE, STRING = "structure", '" free'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", STRUCTURE),
        ('{"', STRUCTURE),
        ('{"a', STRUCTURE),
        ('{"a"', STRUCTURE),
        ('{"a": ', STRUCTURE),
        ('{"a": "', STRING),
        ('{"a": "b', STRING),
        ('{"a": "b\\', STRING),
        ('{"a": "b\\"', STRING),
        ('{"a": "b\\\\"', STRUCTURE),
        ('{"a": "{[:,', STRING),
        ('{"a": "}]", "', STRUCTURE),
        ('{"a": "x", "b": "', STRING),
        ('{"a": {"', STRUCTURE),
        ('{"a": {"b": "c"}, "', STRUCTURE),
        ('{"a": ["', STRING),
        ('{"a": ["x", "', STRING),
        ('{"a": ["x"], "', STRUCTURE),
        ('{"a": [{"', STRUCTURE),
        ('{"a": [{"k": 1}, "', STRING),
        ('["', STRING),
        ('{"a": "é', STRING),
        ('{"a": tru', STRUCTURE),
        ('"', STRING),  # the whole text is a string's value
        ('"ab', STRING),
    ],
)
def test_place_in_json(text: str, expected: str) -> None:
    assert at(text, json_schema={}) == expected
    assert at(" " + text, json_schema={}) == expected


@pytest.mark.parametrize(
    ("settings", "begins"),
    [({"json_schema": {}}, True), ({"choices": ['"a"', "b"]}, False), ({"regex": '"a'}, False)],
)
def test_only_values_of_json_begin_behind_a_quote(settings: dict[str, Any], begins: bool) -> None:
    place = JsonPosition.of(SamplingParams(**settings), FORMATS["hermes"])
    place.push(b'"')
    assert place.begins == begins


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ('{"a": "', True),
        ('{"a": "b\\"', False),  # an escaped quote begins nothing
        ('{"a": "\\\\\\"', False),
        ('{"a": "b\\\\"', False),
        ('{"a": ["b\\"", "', True),
        ('{"a": "b\\"c', False),
        ('{"', False),
    ],
)
def test_a_value_begins_behind_its_opening_quote_alone(text: str, begins: bool) -> None:
    place = JsonPosition.of(SamplingParams(json_schema={}), FORMATS["hermes"])
    place.push(text.encode())
    assert place.begins == begins


CALL = '{"name": "f", "arguments": {"'
AUTO, FORCED = {"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "any"}


@pytest.mark.parametrize(
    ("form", "text", "settings", "expected"),
    [
        ("hermes", "", AUTO, "< free"),
        ("hermes", 'Say "a', AUTO, "< free"),
        ("hermes", "a <", AUTO, STRUCTURE),
        ("hermes", "a <tool_", AUTO, STRUCTURE),
        ("hermes", "a <<", AUTO, STRUCTURE),
        ("hermes", "a <toolbox", AUTO, "< free"),
        ("hermes", "<tool_call>", AUTO, STRUCTURE),
        ("hermes", '<tool_call>\n{"name": "', AUTO, STRUCTURE),
        ("hermes", f"<tool_call>\n{CALL}", AUTO, STRUCTURE),
        ("hermes", f'a <tool_call>\n{CALL}k": "', AUTO, STRING),
        ("hermes", f'<tool_call>\n{CALL}k": "v"}}}}\n', AUTO, STRUCTURE),
        ("hermes", f'<tool_call>\n{CALL}k": 1}}}}\n</tool_call>\n<', AUTO, STRUCTURE),
        ("hermes", "", FORCED, STRUCTURE),
        ("hermes", f'<tool_call>\n{CALL}k": "', FORCED, STRING),
        ("mistral", "", AUTO, "[ free"),
        ("mistral", "a [TOOL", AUTO, STRUCTURE),
        ("mistral", '[TOOL_CALLS][{"name": "', AUTO, STRUCTURE),
        ("mistral", f'[TOOL_CALLS][{CALL}k": "', AUTO, STRING),
        ("mistral", f'[TOOL_CALLS][{CALL}k": "', FORCED, STRING),
        ("mistral", '[TOOL_CALLS][{"name": "', FORCED, STRUCTURE),
        ("mistral-args", "a [TOOL", AUTO, STRUCTURE),
        ("mistral-args", "[TOOL_CALLS]f[ARGS]{", AUTO, STRUCTURE),
        ("mistral-args", '[TOOL_CALLS]f[ARGS]{"k": "', AUTO, STRING),
        ("mistral-args", '[TOOL_CALLS]f[ARGS]{"k": "v"}[TOOL_CALLS]f', FORCED, STRUCTURE),
        ("mistral-args", '[TOOL_CALLS]f[ARGS]{"k": 1}[TOOL_CALLS]f[ARGS]{"k": "', FORCED, STRING),
        ("llama3", "", AUTO, "{ free"),
        ("llama3", " ", AUTO, "{ free"),
        ("llama3", "a", AUTO, "free"),
        ("llama3", "a {", AUTO, "free"),
        ("llama3", ' {"name": "', AUTO, STRUCTURE),
        ("json", f'{CALL}k": "', AUTO, STRING),
        ("json", '{"name": "', FORCED, STRUCTURE),
    ],
)
def test_place_among_calls(form: str, text: str, settings: dict, expected: str) -> None:
    assert at(text, form, **settings) == expected


def test_patterns_and_choices_are_free() -> None:
    assert at('{"', regex="[{].*") == at('{"', choices=['{"a']) == "free"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"json_schema": {"type": "nothing"}}, "json_schema"),
        ({"json_schema": {"$ref": "#/$defs/missing"}}, "json_schema"),
        ({"regex": "("}, "regex"),
        ({"regex": "(?=a)b"}, "regex"),
        (
            {"tools": [{"function": {"name": "f", "parameters": {"properties": {"a": 1}}}}]},
            "tools",
        ),
    ],
)
def test_what_cannot_be_decoded_is_refused(settings: dict, name: str) -> None:
    with Decoder(scripted()) as decoder:
        with pytest.raises(ParameterError) as caught:
            decoder.generate("x", **settings)
        assert caught.value.parameter == name
        assert str(caught.value).startswith(f"{name} must be ")
        assert decoder.metrics.iterations == 0


def scripted(
    tokens: Sequence[str] = CHARS, aligned: dict[str, float] | None = None
) -> ScriptedPair:
    """Base likes every token alike; aligned too, unless its probabilities are given."""
    even = dict.fromkeys([*tokens, END], 1.0)
    return ScriptedPair(lambda _: even, lambda _: aligned or even, vocabulary=tokens)


def one(pair: ScriptedPair, **settings: Any) -> Completion:
    with Decoder(pair) as decoder:
        return decoder.generate("x", **({"seed": 1} | settings))[0]


@pytest.mark.parametrize(
    ("pair", "settings"),
    [
        (scripted('{}"'), {"json_schema": {"const": {"a": 1}}}),
        (scripted("abc"), {"regex": "a[xy]"}),
        (scripted("abc"), {"choices": ["ax"]}),
        (scripted("xa", {"x": 1.0}), {"regex": "a"}),
        (scripted("ax", {"x": 1.0, END: 1.0}), {"regex": "a"}),
        (scripted("ax", {"x": 1.0, END: 1.0}), {"regex": "a", "temperature": 0}),
    ],
    ids=["key", "regex", "choice", "no chance", "no chance of the first", "greedily"],
)
def test_where_nothing_can_follow_the_row_fails_alone(pair: ScriptedPair, settings: dict) -> None:
    free = SamplingParams(seed=1, max_tokens=12)
    stuck = free.replace(**settings, router="aligned")
    with Decoder(pair) as decoder:
        (alone,) = decoder.generate("x", free)
        first, error, last = decoder.generate_batch(
            ["x"] * 3, [free, stuck, free], return_exceptions=True
        )
    assert type(error) is DecoderError and "grammar" in str(error)
    assert first == last == [alone]


def test_a_text_ends_only_where_it_is_complete() -> None:
    eager = scripted(aligned={**dict.fromkeys(CHARS, 0.1), END: 1e6})
    for router in ("aligned", "p"):
        settings = {"router": router, "gamma": 1 if router == "p" else None}
        assert len(one(eager, regex="(a|b){3,9}", **settings).text) == 3
        assert one(eager, choices=["abc", "ab", "b"], **settings).text in ("ab", "abc", "b")
        text = one(eager, json_schema={**SCHEMA, "required": ["a"]}, **settings).text
        assert list(json.loads(text)) == ["a"]


def test_choices_are_drawn_among() -> None:
    found = {one(scripted(), choices=["a", "b c"], seed=seed).text for seed in range(12)}
    assert found == {"a", "b c"}


def test_a_pattern_is_matched_without_white_space_in_front() -> None:
    """The text never begins with white space, so what is left must match too."""
    for seed in range(8):
        assert len(one(scripted(" a"), regex="[ a]{3}", seed=seed, max_tokens=9).text) == 3


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "array"}])
def test_guesses_leave_no_trace(schema: dict[str, Any]) -> None:
    pieces = ' |"|{|}|[|]|,|:| 1|true|a|":| {"| ["|"]|"}|", "|},|],|1, 2|1}| "a| ""'
    tokens = [piece.encode() for piece in pieces.split("|")]
    grammars = Grammars(tokens, lambda text: [], FORMATS["hermes"])
    params, draw = SamplingParams(json_schema=schema), np.random.default_rng(5)

    def allowed(matcher: TextMatcher) -> list[int]:
        bits = np.zeros(len(tokens) // 32 + 1, dtype=np.int32)
        matcher.allow(bits)
        flags = np.unpackbits(bits.view(np.uint8), bitorder="little")[: len(tokens)]
        return list(np.flatnonzero(flags))

    for _ in range(20):
        matcher, plain = (grammars.matcher(params, ()) for _ in range(2))
        assert matcher is not None and plain is not None
        while following := allowed(plain):
            for _ in range(3):
                ahead = allowed(matcher)
                if ahead:
                    matcher.guess(int(draw.choice(ahead)))
            matcher.roll_back()
            assert (matcher.structure, matcher.begins) == (plain.structure, plain.begins)
            assert allowed(matcher) == following
            token = int(draw.choice(following))
            assert matcher.accept(token) and plain.accept(token)
            if draw.random() < 0.05:
                break


@pytest.mark.parametrize("size", [31, 32, 33, 64])
def test_the_end_has_its_bit(size: int) -> None:
    """The end's token is the last, whatever word of the mask its bit lies in."""
    tokens = [bytes([97 + n % 26]) * (1 + n // 26) for n in range(size - 1)]
    grammars = Grammars([*tokens, b""], lambda text: [], FORMATS["hermes"])
    matcher = grammars.matcher(SamplingParams(regex="a|ab"), {size - 1})
    assert matcher is not None

    def allowed() -> set[int]:
        bits = np.zeros(size // 32 + 1, dtype=np.int32)
        matcher.allow(bits)
        return set(np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")[:size]))

    assert allowed() == {0}
    assert not matcher.accept(size - 1)
    assert matcher.accept(0)
    assert allowed() == {1, size - 1}
    assert matcher.accept(size - 1)
    assert not matcher.accept(2)


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
def test_texts_that_are_forced_are_spelled_as_the_tokenizer_does(kind: str) -> None:
    pair = random_pair("llama", kind)
    text = 'the sea "é" 天气 😀'
    with Decoder(pair) as decoder:
        (completion,) = decoder.generate("x", json_schema={"const": text}, seed=1)
        (chosen,) = decoder.generate("x", choices=[text], seed=1)
    assert json.loads(completion.text) == chosen.text == text


def test_a_pair_that_served_a_guided_request_is_freed() -> None:
    pair = scripted()
    assert one(pair, choices=["a"]).text == "a"
    freed = weakref.ref(pair)
    del pair
    gc.collect()
    assert freed() is None


def test_large_vocabularies_are_ready_before_the_first_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("baco_integrations.decoder.request.LARGE", len(CHARS))
    pair, made = scripted(), threading.Event()
    build = Grammars.__init__

    def counted(*args: Any) -> None:
        assert not made.is_set()
        build(*args)
        made.set()

    monkeypatch.setattr(Grammars, "__init__", counted)
    with Decoder(pair) as decoder:
        assert made.wait(20)
        assert decoder.generate("x", choices=["a"], seed=1)[0].text == "a"
    freed = weakref.ref(pair)
    del pair, decoder
    for thread in threading.enumerate():
        if thread.name == "baco-grammars":
            thread.join()
    gc.collect()
    assert freed() is None


def test_a_schema_that_takes_long_keeps_no_other_request_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(name: str, schema: dict[str, Any]) -> dict[str, str]:
        begun.set()
        assert go_on.wait(20)
        return json_rules(name, schema)

    monkeypatch.setattr("baco_integrations.text.grammar.json_rules", slow)
    renderer = Renderer(scripted())

    def rows(**settings: Any) -> None:
        params = SamplingParams(**settings)
        assert renderer.requests("x", params, math.inf, print)[0].matcher is not None

    waiting = threading.Thread(target=rows, kwargs={"json_schema": SCHEMA})
    waiting.start()
    assert begun.wait(20)
    other = threading.Thread(target=rows, kwargs={"choices": ["yes"]})
    other.start()
    other.join(10)
    assert not other.is_alive() and waiting.is_alive()
    go_on.set()
    waiting.join()


def test_grammars_are_compiled_in_many_threads_at_once() -> None:
    grammars = Grammars([bytes([n]) for n in range(256)], list, FORMATS["hermes"])
    masks: list[dict[int, bytes]] = [{} for _ in range(8)]

    def compile_all(masked: dict[int, bytes]) -> None:
        for number in range(60):
            bits = np.zeros(9, dtype=np.int32)
            matcher = grammars.matcher(SamplingParams(choices=[f"{number}a", f"{number}b"]), {256})
            assert matcher is not None and matcher.accept(ord(str(number)[0]))
            matcher.allow(bits)
            masked[number] = bits.tobytes()

    threads = [threading.Thread(target=compile_all, args=(masked,)) for masked in masks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(masks[0]) == 60 and all(masked == masks[0] for masked in masks)
