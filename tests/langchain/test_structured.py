"""Schemas in all their forms, and what becomes of objects and calls that are cut off."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from langchain.agents import create_agent
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.utils import trim_messages
from langchain_core.tools import tool
from langchain_core.utils.json import parse_partial_json
from pydantic import BaseModel

from baco_integrations import Decoder
from baco_integrations.api.data import plain_tool_choice
from baco_integrations.core.errors import ParameterError, PromptError
from baco_integrations.langchain import ChatBACo
from baco_integrations.langchain.messages import conversation_of
from baco_integrations.langchain.structured import schema_of
from baco_integrations.langchain.tools import contradiction
from tests.langchain.test_tools import saying

QUESTION = "Suggest a gift for a friend."


class One(BaseModel):
    """One thing."""

    idea: str
    note: str = "none"


class Free(BaseModel):
    """Numbers by any name."""

    counts: dict[str, int]


class Bill(BaseModel):
    """A bill."""

    amount: Decimal
    due: date
    took: timedelta


class Node(BaseModel):
    """A node."""

    value: Literal["x"]
    child: Optional[Node] = None  # noqa: UP045  (a name that is not there yet)


@pytest.fixture
def tiny() -> ChatBACo:
    return ChatBACo(pair="tiny", seed=1)


# -- schemas ---------------------------------------------------------------------------------------

INTEGER = {"title": "N", "type": "integer", "minimum": 3, "maximum": 5}
OBJECT = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}


@pytest.mark.parametrize(
    "schema",
    [
        INTEGER,
        {"title": "L", "type": "array", "items": INTEGER, "minItems": 2, "maxItems": 2},
        {"title": "E", "enum": ["a", "b"]},
        {"title": "U", "anyOf": [INTEGER, {"const": "x"}]},
        {"title": "R", "$ref": "#/$defs/n", "$defs": {"n": INTEGER}},
        {**OBJECT, "name": "Gift"},
    ],
)
def test_every_json_schema_is_followed(tiny: ChatBACo, schema: dict[str, Any]) -> None:
    assert schema_of(schema) == schema
    answer = tiny.with_structured_output(schema).invoke(QUESTION, temperature=2)
    assert Draft202012Validator(schema).is_valid(answer)


@pytest.mark.parametrize(
    "wrapped",
    [
        {"name": "Pick", "schema": OBJECT, "strict": True},
        {"name": "Pick", "parameters": OBJECT},
        {"name": "Pick", "input_schema": OBJECT},
        {"type": "function", "function": {"name": "Pick", "parameters": OBJECT}},
        {"type": "json_schema", "json_schema": {"name": "Pick", "schema": OBJECT}},
        {"title": "Pick", **OBJECT},
    ],
)
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_schemas_may_come_wrapped(tiny: ChatBACo, wrapped: dict[str, Any], method: str) -> None:
    asked = tiny.with_structured_output(wrapped, method=method, include_raw=True)
    answer = asked.invoke(QUESTION, temperature=2)
    assert Draft202012Validator(OBJECT).is_valid(answer["parsed"])
    assert [call["name"] for call in answer["raw"].tool_calls] in ([], ["Pick"])


def test_properties_of_any_name_stay_properties() -> None:
    for name in ("function", "parameters", "schema", "name", "title"):
        schema = {"type": "object", "properties": {name: OBJECT}}
        assert schema_of(schema) == schema


def test_a_call_has_an_objects_arguments(tiny: ChatBACo) -> None:
    with pytest.raises(ParameterError, match="method='json_schema' takes any schema"):
        tiny.with_structured_output(INTEGER, method="function_calling")


@pytest.mark.parametrize("kind", ["class", "tool"])
def test_recursive_classes_keep_their_schema(tiny: ChatBACo, kind: str) -> None:
    @tool
    def grow(node: Node) -> str:
        """Grow a tree."""
        return str(node)

    offered = {"class": Node, "tool": grow}[kind]
    for seed in range(6):
        llm = tiny.bind_tools([offered], tool_choice="any", parallel_tool_calls=False)
        (call,) = llm.invoke(QUESTION, seed=seed, temperature=1.5, max_tokens=400).tool_calls
        Node.model_validate(call["args"] if kind == "class" else call["args"]["node"])
    assert isinstance(tiny.with_structured_output(Node).invoke(QUESTION), Node)
    by_call = tiny.with_structured_output(Node.model_json_schema(), method="function_calling")
    Node.model_validate(by_call.invoke(QUESTION))


def test_a_schema_of_several_types(tiny: ChatBACo) -> None:
    idea = {"properties": {"idea": {"type": "string"}}, "required": ["idea"]}
    schema = {"title": "Gift", "description": "A gift.", "type": ["object", "null"], **idea}
    found = tiny.with_structured_output(schema).invoke(QUESTION)
    assert found is None or found["idea"]


def test_schemas_of_pydantics_first_version(tiny: ChatBACo) -> None:
    schema = {"$ref": "#/definitions/Z", "definitions": {"Z": {"title": "Z", **OBJECT}}}
    answer = tiny.with_structured_output(schema, method="function_calling").invoke(QUESTION)
    assert Draft202012Validator(OBJECT).is_valid(answer)


def test_settings_are_checked_before_anything_is_asked(tiny: ChatBACo) -> None:
    for method in ("json_schema", "function_calling", "json_mode"):
        with pytest.raises(ParameterError, match="Did you mean 'gamma'"):
            tiny.with_structured_output(One, method=method, gama=0.3)


# -- cut off ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("schema", [One, One.model_json_schema()], ids=["class", "schema"])
@pytest.mark.parametrize("cut", [{"max_tokens": 14}, {"stop": ["note"], "max_tokens": 400}])
def test_half_an_object_is_no_object(schema: Any, method: str, cut: dict[str, Any]) -> None:
    values = {"idea": "a scarf of wool", "note": "for the winter"}
    texts = {
        "json_schema": json.dumps(values),
        "function_calling": f"<tool_call>\n{json.dumps({'name': 'One', 'arguments': values})}\n"
        "</tool_call>",
    }
    llm = ChatBACo(pair=saying(texts[method]), temperature=0)
    asked = llm.with_structured_output(schema, method=method, **cut)
    with pytest.raises(OutputParserException, match="Raise max_tokens"):
        asked.invoke(QUESTION)
    told = llm.with_structured_output(schema, method=method, include_raw=True, **cut)
    answer = told.invoke(QUESTION)
    assert answer["parsed"] is None and isinstance(answer["parsing_error"], OutputParserException)
    whole = llm.with_structured_output(schema, method=method, max_tokens=400).invoke(QUESTION)
    assert whole == (One(**values) if schema is One else values)


def test_objects_grow_while_they_are_streamed(tiny: ChatBACo) -> None:
    *growing, last = tiny.with_structured_output(One.model_json_schema()).stream(QUESTION)
    assert len(growing) > 3 and growing[0] in ({}, {"idea": ""}) and One(**last)


@given(
    st.recursive(
        st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ).filter(lambda value: isinstance(value, dict)),
    st.data(),
)
def test_nothing_completes_what_is_contradicted(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    cut = text[: data.draw(st.integers(0, len(text)))]
    try:
        repaired = parse_partial_json(cut + contradiction(cut))
    except ValueError:
        return
    assert not isinstance(repaired, dict)


PATH = "/home/user/tmp"
CALL = f'<tool_call>\n{{"name": "delete", "arguments": {{"path": "{PATH}"}}}}\n</tool_call>'


def test_a_stream_has_the_calls_of_the_whole_answer_wherever_it_is_cut() -> None:
    pair = saying(CALL)
    with Decoder.shared(pair):
        for length in (*range(1, len(CALL), 3), len(CALL) + 1):
            llm = ChatBACo(pair=pair, temperature=0, max_tokens=length, seed=1).bind_tools([delete])
            whole = llm.invoke("Tidy up.")
            chunks = list(llm.stream("Tidy up."))
            joined: Any = sum(chunks[1:], chunks[0])
            assert isinstance(joined, AIMessageChunk)
            assert joined.tool_calls == whole.tool_calls
            wrong = [(call["name"], call["id"]) for call in whole.invalid_tool_calls]
            assert [(c["name"] or "", c["id"]) for c in joined.invalid_tool_calls] == wrong


def delete(path: str) -> str:
    """Delete a folder."""
    DELETED.append(path)
    return "gone"


DELETED: list[str] = []


@pytest.mark.parametrize("mode", ["messages", "updates"])
@pytest.mark.parametrize("streaming", [None, True])
def test_an_agent_does_nothing_by_half_a_call(streaming: bool | None, mode: Any) -> None:
    DELETED.clear()
    pair = saying(CALL)
    llm = ChatBACo(pair=pair, temperature=0, max_tokens=CALL.index("/tmp"), streaming=streaming)
    list(create_agent(llm, [delete]).stream({"messages": [("user", "Go.")]}, stream_mode=mode))
    assert not DELETED


# -- settings and messages -------------------------------------------------------------------------


def test_choices_of_tools_at_every_place(tiny: ChatBACo) -> None:
    bound = tiny.bind_tools([delete])
    for choice in ("required", True, {"type": "function", "function": {"name": "delete"}}):
        assert bound.invoke(QUESTION, tool_choice=choice, max_tokens=400).tool_calls
    assert plain_tool_choice({"type": "function", "function": "delete"}) == "delete"
    with pytest.raises(ParameterError, match="tool_choice"):
        tiny.bind_tools([], tool_choice="any")


def test_what_only_services_run_is_refused(tiny: ChatBACo) -> None:
    for other in ({"type": "web_search"}, 5, {}):
        with pytest.raises(ParameterError, match="a tool of your own"):
            tiny.bind_tools([other])


def test_logprobs_are_asked_for_or_not(tiny: ChatBACo) -> None:
    for wrong in (3, "no"):
        with pytest.raises(ParameterError, match="True or False"):
            tiny.invoke(QUESTION, logprobs=wrong)
        with pytest.raises(ParameterError, match="True or False"):
            ChatBACo(pair="tiny", logprobs=wrong)


def test_plain_text_may_be_asked_of_a_model_with_a_schema() -> None:
    llm = ChatBACo(pair="tiny", seed=1, json_schema=OBJECT)
    assert json.loads(str(llm.invoke(QUESTION).text))
    assert not str(llm.invoke(QUESTION, response_format={"type": "text"}).text).startswith("{")
    forced = llm.bind_tools([delete], response_format={"type": "text"}, tool_choice="any")
    assert forced.invoke(QUESTION, max_tokens=400).tool_calls


def test_calls_in_the_content_only_are_calls() -> None:
    block = {"type": "tool_use", "id": "t1", "name": "delete", "input": {"path": "a"}}
    history = [HumanMessage("Tidy up."), AIMessage([block]), ToolMessage("gone", tool_call_id="t1")]
    spoken = AIMessage("", tool_calls=[{"id": "t1", "name": "delete", "args": {"path": "a"}}])
    llm = ChatBACo(pair="tiny")
    told = [
        llm.get_num_tokens_from_messages([history[0], each, history[2]])
        for each in (history[1], spoken, AIMessage([block], tool_calls=spoken.tool_calls))
    ]
    assert told[0] == told[1] == told[2]


def test_calls_that_were_wrong_were_said() -> None:
    wrong = {"name": "delete", "args": '{"path": "a', "id": "t", "error": "cut off"}
    message = AIMessage("Well.", invalid_tool_calls=[wrong])
    assert conversation_of([message]) == [
        {"role": "assistant", "content": 'Well.\ndelete({"path": "a)'}
    ]


def test_history_without_text_is_counted(tiny: ChatBACo) -> None:
    call = {"name": "delete", "args": {}, "id": "t"}
    history = [
        HumanMessage("Suggest a hobby."),
        AIMessage("", tool_calls=[call]),
        ToolMessage("", tool_call_id="t"),
    ]
    for part in ([], history[1:2], history[2:], [HumanMessage("")]):
        assert tiny.get_num_tokens_from_messages(part) >= len(part)
    everything = tiny.get_num_tokens_from_messages(history)
    for limit in (20, everything):
        trimmed = trim_messages(history, max_tokens=limit, token_counter=tiny, strategy="last")
        assert trimmed == history if limit == everything else len(trimmed) < 3
    with pytest.raises(PromptError, match="some text"):
        tiny.invoke([HumanMessage("")])


def test_a_block_of_text_has_text(tiny: ChatBACo) -> None:
    with pytest.raises(PromptError, match=r"messages\[0\]"):
        tiny.invoke([HumanMessage([{"type": "text"}])])


@pytest.mark.parametrize("schema", [{"type": "object", "additionalProperties": {}}, Free])
def test_an_object_that_repeats_a_name_loses_no_value(schema: Any) -> None:
    llm = ChatBACo(pair=saying('{"counts": {"a": 1, "a": 2}}'))
    with pytest.raises(OutputParserException, match="holds 'a' twice"):
        llm.with_structured_output(schema).invoke(QUESTION)
    raw = llm.with_structured_output(schema, include_raw=True).invoke(QUESTION)
    assert raw["parsed"] is None and "twice" in str(raw["parsing_error"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_types_of_python_are_read_as_they_are_written(method: str) -> None:
    llm = ChatBACo(pair="tiny", router="rand", gamma=1, temperature=2, seed=1)
    bill = llm.with_structured_output(Bill, method=method).invoke(QUESTION)
    assert isinstance(bill, Bill) and isinstance(bill.amount, Decimal)
