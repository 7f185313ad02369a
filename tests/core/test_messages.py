"""Conversations that are let in are plain data of their own; others are told what is wrong."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from typing import Any

import numpy as np
import pytest

from baco_integrations.core.errors import PromptError
from baco_integrations.core.messages import (
    begun_answer,
    conversation,
    raw_prompt,
    require_text,
)

USER = {"role": "user", "content": "Hi."}
HALF = "\ud835"


def history(calls: Any, **more: Any) -> list[dict[str, Any]]:
    return [USER, {"role": "assistant", "content": "Well.", "tool_calls": calls, **more}]


def call(arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": "a", "function": {"name": "f", "arguments": arguments}, **more}


def itself() -> dict[str, Any]:
    held: dict[str, Any] = {}
    held["x"] = held
    return held


class TestPlain:
    def test_a_string_is_what_a_user_says(self) -> None:
        assert conversation("Hi.") == [USER]

    @pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict])
    def test_any_mapping(self, kind: Any) -> None:
        checked = conversation((kind(USER),))
        assert checked == [USER]
        assert type(checked[0]) is dict

    def test_strings_of_other_libraries(self) -> None:
        checked = conversation([{"role": np.str_("user"), "content": np.str_("Hi.")}])
        assert [type(value) for value in checked[0].values()] == [str, str]

    def test_it_is_a_copy(self) -> None:
        given = history([call({"x": [1]})])
        checked = conversation(given)
        checked[1]["tool_calls"][0]["function"]["arguments"]["x"].append(2)
        assert given[1]["tool_calls"] == [call({"x": [1]})]

    def test_what_is_none_is_left_out(self) -> None:
        assert conversation([{**USER, "name": None, "tool_calls": None}]) == [USER]


class TestCalls:
    @pytest.mark.parametrize("arguments", [{"x": 1}, '{"x": 1}', '{"x":\n1}'])
    def test_arguments_are_dicts(self, arguments: Any) -> None:
        made = conversation(history([call(arguments)]))[1]["tool_calls"]
        assert made == [{"type": "function", **call({"x": 1})}]

    @pytest.mark.parametrize("arguments", [None, "", {}, "{}"])
    def test_no_arguments(self, arguments: Any) -> None:
        made = conversation(history([call(arguments)]))[1]["tool_calls"]
        assert made[0]["function"]["arguments"] == {}

    def test_without_a_function_around_it(self) -> None:
        flat = {"name": "f", "arguments": {"x": 1}}
        made = conversation(history([flat]))[1]["tool_calls"]
        assert made == [{"type": "function", "function": flat}]

    @pytest.mark.parametrize(
        "text", ["{", "[1]", "3", "x", "[" * 9999, '{"x": "\\ud835"}', '{"x": ' + "9" * 5000 + "}"]
    )
    def test_what_cannot_be_read_stays_as_text(self, text: str) -> None:
        message = conversation(history([call(text), call({"x": 1})]))[1]
        assert message["content"] == f"Well.\nf({text})"
        assert [each["function"]["arguments"] for each in message["tool_calls"]] == [{"x": 1}]
        assert "tool_calls" not in conversation(history([call(text)]))[1]

    @pytest.mark.parametrize("content", [{"content": None}, {}])
    def test_calls_need_no_content(self, content: dict[str, None]) -> None:
        message = {"role": "assistant", **content, "tool_calls": [call()]}
        checked = conversation([USER, message])
        assert checked[1]["content"] == ""
        require_text(checked[1:])


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        (itself(), "messages"),
        ([itself()], "messages[0]"),
        ([{**USER, "x": itself()}], "messages[0]['x']['x']"),
        ([{**USER, "x": np.array([1])}], "messages[0]['x']"),
        ([{**USER, "x": 10**9999}], "messages[0]['x']"),
        ([{**USER, 1: "x"}], "messages[0]"),
        ([{**USER, HALF: "x"}], "messages[0]"),
        ([{**USER, "content": f"x{HALF}"}], "messages[0]['content']"),
        ([{**USER, "content": b"x"}], "messages[0]['content']"),
        ([{**USER, "name": HALF}], "messages[0]['name']"),
        ([{**USER, "name": 1}], "messages[0]['name']"),
        ([{**USER, "tool_call_id": ["a"]}], "messages[0]['tool_call_id']"),
        ([{**USER, "role": np.array(["user"])}], "messages[0]['role']"),
        ([{**USER, "role": ["user"]}], "messages[0]['role']"),
        (history(5), "messages[1]['tool_calls']"),
        (history("abc"), "messages[1]['tool_calls']"),
        (history({"a": 1}), "messages[1]['tool_calls']"),
        (history([1]), "messages[1]['tool_calls'][0]"),
        (history([call(), None]), "messages[1]['tool_calls'][1]"),
        (history([{"function": None}]), "messages[1]['tool_calls'][0]"),
        (history([{"function": {}}]), "messages[1]['tool_calls'][0]['function']['name']"),
        (history([call(), {"id": 1, "name": "f"}]), "messages[1]['tool_calls'][1]['id']"),
        (history([call([1])]), "messages[1]['tool_calls'][0]['function']['arguments']"),
        (
            history([call({"x": {"y": object()}})]),
            "messages[1]['tool_calls'][0]['function']['arguments']['x']['y']",
        ),
        (
            history([call({"x": HALF})]),
            "messages[1]['tool_calls'][0]['function']['arguments']['x']",
        ),
        (
            history([call({HALF: 1})]),
            "messages[1]['tool_calls'][0]['function']['arguments']",
        ),
    ],
)
def test_refused(messages: Any, place: str) -> None:
    with pytest.raises(PromptError) as caught:
        conversation(messages)
    assert caught.value.parameter.startswith(place)
    assert str(caught.value).encode()


def test_half_a_character_is_pointed_at() -> None:
    with pytest.raises(PromptError, match=r"'a gift \\ud835\.'\. At 7 it holds one: cut"):
        conversation(f"a gift {HALF}.")


ANSWER = {"role": "assistant", "content": "Well."}


class TestRaw:
    @pytest.mark.parametrize("asked", ["Hi.", [USER], (USER,)])
    def test_one_text(self, asked: Any) -> None:
        assert raw_prompt(asked).content == "Hi."

    def test_token_ids(self) -> None:
        found = raw_prompt((np.int64(3), 1))
        assert found.content == (3, 1)
        assert raw_prompt(found) is found

    @pytest.mark.parametrize("asked", [[USER, USER], [ANSWER], history([call()])[:1] + [ANSWER]])
    def test_more_than_one_text(self, asked: Any) -> None:
        with pytest.raises(
            PromptError, match="^messages must be one text, one message of the user"
        ):
            raw_prompt(asked)

    @pytest.mark.parametrize("asked", [[], [1, "a"], [1.0], [True], None])
    def test_no_text_at_all(self, asked: Any) -> None:
        with pytest.raises(PromptError, match="^messages"):
            raw_prompt(asked)


class TestBegunAnswer:
    def test_what_comes_before_and_its_text(self) -> None:
        assert begun_answer(conversation([USER, ANSWER])) == ([USER], "Well.")

    @pytest.mark.parametrize(
        "asked",
        [[USER], [ANSWER], [ANSWER, USER], history([call()]), [USER, {**ANSWER, "content": " "}]],
    )
    def test_no_answer_begins(self, asked: Any) -> None:
        with pytest.raises(PromptError, match="whose last message, behind another, is the assist"):
            begun_answer(conversation(asked))
