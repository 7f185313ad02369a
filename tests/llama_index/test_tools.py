"""Tools: offering them, reading calls as they come, and what becomes of calls that go wrong."""

import json
from typing import Any, Literal

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, TextBlock, ToolCallBlock
from llama_index.core.tools import FunctionTool, ToolMetadata
from llama_index.core.tools.types import BaseTool, ToolOutput
from pydantic import BaseModel

from baco_integrations.core.errors import ParameterError, PromptError
from baco_integrations.core.messages import conversation
from baco_integrations.core.params import SamplingParams
from baco_integrations.core.tool_calls import FORMATS
from baco_integrations.llama_index import BACoLLM
from baco_integrations.llama_index.messages import conversation_of
from tests.llama_index.pairs import call, told


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def greet(name: Literal["Ann", "Bob"]) -> str:
    """Greet somebody."""
    return f"Hello, {name}!"


class Lookup(BaseTool):
    """A tool that is no function and says nothing of its arguments."""

    @property
    def metadata(self) -> ToolMetadata:
        return ToolMetadata(name="look.up", description="Look it up. " * 200, fn_schema=None)

    def __call__(self, input: Any) -> ToolOutput:
        return ToolOutput(content=f"{input}!", tool_name="look.up", raw_input={}, raw_output=input)


ADD, GREET, LOOKUP = FunctionTool.from_defaults(add), FunctionTool.from_defaults(greet), Lookup()
TOOLS: list[Any] = [ADD, GREET]
SUM = call(("add", {"a": 1, "b": 23}))
BOTH = call(("add", {"a": 1, "b": 23}), ("greet", {"name": "Ann"}))
ASK = [ChatMessage(role="user", content="1 + 23?")]


# -- offering --------------------------------------------------------------------------------------


def test_what_chat_is_called_with() -> None:
    llm = BACoLLM(pair=told(SUM))
    history = [ChatMessage(role="system", content="Be brief.")]
    asked = llm._prepare_chat_with_tools(TOOLS, "1 + 23?", history, gamma=0.2, seed=4)
    assert [message.content for message in asked["messages"]] == ["Be brief.", "1 + 23?"]
    assert len(history) == 1
    assert (asked["gamma"], asked["seed"], asked["parallel_tool_calls"]) == (0.2, 4, False)
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["add", "greet"]
    assert asked["tools"][0]["function"]["parameters"]["required"] == ["a", "b"]
    assert llm.chat(**asked).raw["gamma"] == 0.2
    asked = llm._prepare_chat_with_tools([], ASK[0], tool_required=True)
    assert asked == {"messages": ASK}


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ({}, "auto"),
        ({"tool_required": True}, "any"),
        ({"tool_choice": "greet", "tool_required": True}, "greet"),
        ({"tool_choice": "required"}, "any"),
        ({"tool_choice": "none"}, "none"),
        ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, "add"),
    ],
)
def test_choices(given: dict[str, Any], choice: str) -> None:
    asked = BACoLLM(pair=told(SUM))._prepare_chat_with_tools(TOOLS, "Hi", **given)
    assert SamplingParams(tools=asked["tools"], tool_choice=asked["tool_choice"])
    assert asked["tool_choice"] == choice


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(ParameterError, match="Did you mean 'greet'"):
        BACoLLM(pair=told(SUM)).chat_with_tools(TOOLS, "Hi", tool_choice="gret")


def test_any_tool_will_do_whatever_its_name_and_the_length_of_its_description() -> None:
    llm = BACoLLM(pair=told(call(("look.up", {"input": "Oslo"}))))
    assert str(llm.predict_and_call([LOOKUP], "Oslo?", tool_required=True)) == "Oslo!"


# -- calls as they come ----------------------------------------------------------------------------


async def _in_every_way(llm: BACoLLM, **given: Any) -> tuple[list[Any], list[list[Any]]]:
    whole = [
        llm.chat_with_tools(TOOLS, "1 + 23?", **given),
        await llm.achat_with_tools(TOOLS, "1 + 23?", **given),
    ]
    astream = await llm.astream_chat_with_tools(TOOLS, "1 + 23?", **given)
    streamed = [
        list(llm.stream_chat_with_tools(TOOLS, "1 + 23?", **given)),
        [piece async for piece in astream],
    ]
    return whole, streamed


async def test_calls_are_streamed_as_they_grow() -> None:
    llm = BACoLLM(pair=told(f"Sure.\n{SUM}"))
    whole, streamed = await _in_every_way(llm, seed=1)
    (selected,) = llm.get_tool_calls_from_response(whole[0])
    assert (selected.tool_name, selected.tool_kwargs) == ("add", {"a": 1, "b": 23})
    assert len(selected.tool_id) == 9
    text, block = whole[0].message.blocks
    assert text == TextBlock(text="Sure.")
    assert (block.tool_call_id, block.tool_kwargs) == (selected.tool_id, selected.tool_kwargs)
    (written,) = whole[0].message.additional_kwargs["tool_calls"]
    assert written["id"] == selected.tool_id and written["function"]["name"] == "add"
    assert json.loads(written["function"]["arguments"]) == selected.tool_kwargs
    assert whole[0].raw["finish_reason"] == "tool_calls"
    for response in (*whole, *(pieces[-1] for pieces in streamed)):
        assert response.message == whole[0].message
        assert response.raw == whole[0].raw
    for pieces in streamed:
        assert "".join(piece.delta for piece in pieces) == "Sure."
        seen = [llm.get_tool_calls_from_response(piece, False) for piece in pieces]
        grown = [each[0].tool_kwargs for each in seen if each]
        assert grown[0] == {} and {"a": 1, "b": 2} in grown and grown[-1] == {"a": 1, "b": 23}
        texts = [
            piece.message.additional_kwargs["tool_calls"][0]["function"]["arguments"]
            for piece, each in zip(pieces, seen, strict=True)
            if each
        ]
        assert len(texts) > 5 and all(map(str.startswith, texts[1:], texts))


async def test_several_calls_where_they_are_allowed() -> None:
    llm = BACoLLM(pair=told(BOTH))
    for allowed, names in ((True, ["add", "greet"]), (False, ["add"])):
        whole, streamed = await _in_every_way(llm, allow_parallel_tool_calls=allowed)
        for response in (*whole, *(pieces[-1] for pieces in streamed)):
            calls = llm.get_tool_calls_from_response(response)
            assert [each.tool_name for each in calls] == names
            assert len({each.tool_id for each in calls}) == len(names)
            assert len(response.message.blocks) == len(names)  # no empty text beside them
            assert response.message.content is None


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_way_of_writing_calls(form: str) -> None:
    pair = told(FORMATS[form].write([("add", {"a": 1, "b": 2})]))
    pair.call_format = FORMATS[form]
    llm = BACoLLM(pair=pair)
    for given in ({}, {"tool_required": True}, {"tool_choice": "add"}):
        (selected,) = llm.get_tool_calls_from_response(llm.chat_with_tools(TOOLS, "?", **given))
        assert (selected.tool_name, selected.tool_kwargs) == ("add", {"a": 1, "b": 2})


async def test_tools_are_called() -> None:
    llm = BACoLLM(pair=told(SUM))
    assert str(llm.predict_and_call(TOOLS, "1 + 23?")) == "24"
    assert str(await llm.apredict_and_call(TOOLS, "1 + 23?")) == "24"
    llm = BACoLLM(pair=told(BOTH))
    both = llm.predict_and_call(TOOLS, "Both.", allow_parallel_tool_calls=True)
    assert str(both) == "24\n\nHello, Ann!"


def test_a_forced_call_follows_its_schema_whatever_the_model_wants() -> None:
    llm = BACoLLM(pair="tiny", gamma=0.9, temperature=1.5, seed=4, max_tokens=200)
    for choice in ("any", "greet"):
        response = llm.chat_with_tools([GREET], "Hello!", tool_choice=choice)
        (selected,) = llm.get_tool_calls_from_response(response)
        assert selected.tool_kwargs["name"] in ("Ann", "Bob")
    assert llm.chat_with_tools([GREET], "Hello!", tool_choice="none").message.content


# -- calls that go wrong ---------------------------------------------------------------------------


async def test_a_call_that_is_cut_off_reaches_no_tool() -> None:
    llm = BACoLLM(pair=told(SUM), max_tokens=len(SUM) - 20)
    whole, streamed = await _in_every_way(llm)
    assert llm.get_tool_calls_from_response(streamed[0][-2], False)  # while it came
    for response in (*whole, *(pieces[-1] for pieces in streamed)):
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        assert response.message.additional_kwargs == {}
        assert response.message.content == ""
        (wrong,) = response.raw["invalid_tool_calls"]
        assert wrong["name"] == "add" and "ends" in wrong["error"]
        assert response.raw["finish_reason"] == "length"
        with pytest.raises(
            ValueError, match=r"valid tool call, got .*ends within.*Raise max_tokens"
        ):
            llm.get_tool_calls_from_response(response)


def test_no_call_is_an_error_only_where_one_was_wanted() -> None:
    llm = BACoLLM(pair=told("Sure."))
    with pytest.raises(ParameterError, match="got 'Sure.'"):
        llm.predict_and_call(TOOLS, "1 + 23?")
    answer = llm.predict_and_call(TOOLS, "1 + 23?", error_on_no_tool_call=False)
    assert str(answer) == "Sure."


# -- histories -------------------------------------------------------------------------------------


class Call(BaseModel):
    """A call as the object of a client."""

    class Function(BaseModel):
        name: str
        arguments: str

    id: str
    function: Function


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(
            role="assistant",
            blocks=[ToolCallBlock(tool_call_id="c", tool_name="add", tool_kwargs={"a": 1})],
        ),
        ChatMessage(
            role="assistant",
            blocks=[ToolCallBlock(tool_call_id="c", tool_name="add", tool_kwargs='{"a": 1}')],
            additional_kwargs={"tool_calls": ["said by the block already"]},
        ),
        *(
            ChatMessage(role="assistant", additional_kwargs={"tool_calls": [written]})
            for written in (
                {"id": "c", "function": {"name": "add", "arguments": '{"a": 1}'}},
                {"id": "c", "type": "tool_use", "name": "add", "input": {"a": 1}},
                Call(id="c", function=Call.Function(name="add", arguments='{"a": 1}')),
            )
        ),
    ],
)
def test_calls_in_a_history_however_they_were_written(message: ChatMessage) -> None:
    (said,) = conversation(conversation_of([message]))
    function = {"name": "add", "arguments": {"a": 1}}
    assert said["tool_calls"] == [{"type": "function", "id": "c", "function": function}]
    response = ChatResponse(message=message)
    (selected,) = BACoLLM(pair=told("")).get_tool_calls_from_response(response)
    assert (selected.tool_id, selected.tool_kwargs) == ("c", {"a": 1})


def test_a_call_that_was_cut_off_stays_in_a_history_as_text() -> None:
    block = ToolCallBlock(tool_call_id="c", tool_name="add", tool_kwargs='{"a": 1')
    message = ChatMessage(role="assistant", blocks=[block])
    assert conversation(conversation_of([message])) == [
        {"role": "assistant", "content": 'add({"a": 1)'}
    ]


@pytest.mark.parametrize("calls", [1, ["abc"], [None], [{"function": 3}], [{"function": {}}, {}]])
def test_what_is_no_call_is_refused(calls: Any) -> None:
    message = ChatMessage(role="assistant", additional_kwargs={"tool_calls": calls})
    with pytest.raises(PromptError, match=r"messages\[0\]\['tool_calls'\]\[0\]"):
        BACoLLM(pair=told("")).chat([message])


@pytest.mark.parametrize("arguments", ["", "not JSON", "[1]", None, 3])
def test_arguments_that_are_no_object_are_none_at_all(arguments: Any) -> None:
    written = {"id": None, "function": {"name": "add", "arguments": arguments}}
    message = ChatMessage(role="assistant", additional_kwargs={"tool_calls": [written]})
    response = ChatResponse(message=message)
    (selected,) = BACoLLM(pair=told("")).get_tool_calls_from_response(response)
    assert selected.tool_kwargs == {}


def test_an_answer_goes_back_with_its_result() -> None:
    seen: list[str] = []
    llm = BACoLLM(pair=told(lambda prompt: [seen.append(prompt), SUM][1]))
    answer = llm.chat_with_tools(TOOLS, "1 + 23?").message
    copied = ChatMessage.model_validate_json(answer.model_dump_json())
    result = {"tool_call_id": answer.blocks[0].tool_call_id}
    said = ChatMessage(role="tool", content="24", additional_kwargs=result)
    for each in (answer, copied):
        llm.chat_with_tools(TOOLS, chat_history=[*ASK, each, said])
        assert seen[-1].endswith(f"user: 1 + 23?\nassistant: {SUM}\ntool: 24")
    tiny = BACoLLM(pair="tiny", max_tokens=4)
    assert tiny.chat_with_tools(TOOLS, chat_history=[*ASK, answer, said]).raw["usage"]
