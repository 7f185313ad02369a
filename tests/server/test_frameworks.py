"""LangChain's and LlamaIndex's clients of OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAI
from llama_index.core import PromptTemplate
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from baco_integrations import Decoder
from tests.server.serving import Serving
from tests.server.test_clients import Gift

ASK = "Name a place to visit."
GIFT = "Suggest a gift for a friend."
WIDE: Any = {"gamma": 0.6, "router": "p-punc"}


def find_ideas(request: str) -> str:
    """Suggests ideas for a request."""
    return f"a puzzle for {request}"


def said_by(decoder: Decoder, seed: int, prompt: str = ASK, **settings: Any) -> str:
    """What the decoder of this process says."""
    return decoder.generate(prompt, **{**WIDE, **settings}, seed=seed)[0].text


# -- LangChain -------------------------------------------------------------------------------------


@pytest.fixture
def chat(served: Serving) -> ChatOpenAI:
    return ChatOpenAI(
        model="tiny",
        base_url=served.api,
        api_key="none",
        temperature=0.7,
        seed=4,
        max_retries=0,
        extra_body=WIDE,
    )


def test_chat_openai_says_what_the_decoder_says(chat: ChatOpenAI, local: Decoder) -> None:
    answer = chat.invoke(ASK)
    assert answer.text == said_by(local, 4)
    assert answer.usage_metadata is not None and answer.usage_metadata["output_tokens"] > 1
    assert answer.response_metadata["finish_reason"] == "stop"
    assert "".join(chunk.text for chunk in chat.stream(ASK)) == answer.text
    assert chat.batch([ASK, GIFT])[1].text == said_by(local, 4, GIFT)
    several = chat.generate([[HumanMessage(ASK)]], n=3).generations[0]
    assert [one.text for one in several] == [
        completion.text for completion in local.generate(ASK, **WIDE, seed=4, n=3)
    ]


async def test_chat_openai_streams_asynchronously(chat: ChatOpenAI, local: Decoder) -> None:
    async def ask(seed: int) -> str:
        parts = [part.text async for part in chat.astream(ASK, seed=seed)]
        return "".join(parts)

    said = await asyncio.gather(*map(ask, range(4)))
    assert said == [said_by(local, seed) for seed in range(4)]


def test_chat_openai_has_logprobs(chat: ChatOpenAI) -> None:
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke(ASK)
    tokens = answer.response_metadata["logprobs"]["content"]
    assert "".join(token["baco"]["text"] for token in tokens) == answer.text
    assert all(len(token["top_logprobs"]) <= 2 for token in tokens)


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_chat_openai_has_structured_output(chat: ChatOpenAI, method: Any) -> None:
    schema = Gift if method != "json_mode" else None
    structured = chat.with_structured_output(schema, method=method)
    made = structured.invoke(GIFT)
    assert isinstance(made, Gift if schema else dict) and made


def test_chat_openai_binds_tools(chat: ChatOpenAI) -> None:
    bound = chat.bind_tools([find_ideas], tool_choice="any")
    [call] = bound.invoke(GIFT).tool_calls
    assert call["name"] == "find_ideas" and call["args"]["request"]
    whole: Any = None
    for chunk in bound.stream(GIFT):
        whole = chunk if whole is None else whole + chunk
    assert [(c["name"], c["args"]) for c in whole.tool_calls] == [(call["name"], call["args"])]
    called = bound.invoke(GIFT)
    result = ToolMessage("a puzzle", tool_call_id=called.tool_calls[0]["id"])
    history: Any = [HumanMessage(GIFT), called, result]
    assert chat.bind_tools([find_ideas]).invoke(history).text


def test_chat_openai_raises_what_its_users_catch(chat: ChatOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="gamma must be"):
        chat.invoke(ASK, extra_body={"gamma": -1})


def test_text_completions_of_langchain(served: Serving, local: Decoder) -> None:
    shared: Any = {"base_url": served.api, "api_key": "none", "max_tokens": 12}
    llm = OpenAI(model="tiny", temperature=0.7, seed=4, extra_body=WIDE, **shared)
    start = "I would suggest"
    said = said_by(local, 4, start, raw=True, max_tokens=12)
    assert llm.invoke(start) == said
    assert "".join(llm.stream(start)) == said


# -- LlamaIndex ------------------------------------------------------------------------------------


@pytest.fixture
def like(served: Serving) -> OpenAILike:
    return OpenAILike(
        model="tiny",
        api_base=served.api,
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        temperature=0.7,
        max_retries=0,
        additional_kwargs={"seed": 4, "extra_body": WIDE},
    )


def test_openai_like_chats_and_completes(like: OpenAILike, local: Decoder) -> None:
    said = said_by(local, 4)
    asked = [ChatMessage(role="user", content=ASK)]
    assert like.chat(asked).message.content == said
    assert like.complete(ASK).text == said
    assert [*like.stream_chat(asked)][-1].message.content == said
    assert [*like.stream_complete(ASK)][-1].text == said


async def test_openai_like_is_asynchronous(like: OpenAILike, local: Decoder) -> None:
    said = said_by(local, 4)
    assert (await like.acomplete(ASK)).text == said
    parts = [part async for part in await like.astream_chat([ChatMessage(content=ASK)])]
    assert parts[-1].message.content == said


def test_openai_like_calls_tools(like: OpenAILike) -> None:
    tool = FunctionTool.from_defaults(find_ideas)
    answer = like.chat_with_tools([tool], GIFT, tool_required=True)
    [call] = like.get_tool_calls_from_response(answer)
    assert call.tool_name == "find_ideas" and call.tool_kwargs["request"]
    *_, last = like.stream_chat_with_tools([tool], GIFT, tool_required=True)
    [streamed] = like.get_tool_calls_from_response(last)
    assert streamed.tool_kwargs == call.tool_kwargs
    template = PromptTemplate("Suggest a gift for {whom}.")
    assert like.structured_predict(Gift, template, whom="a friend").idea


def test_openai_like_asks_for_a_form(like: OpenAILike) -> None:
    structured = like.model_copy(update={"should_use_structured_outputs": True})
    template = PromptTemplate("Suggest a gift for {whom}.")
    assert structured.structured_predict(Gift, template, whom="a friend").idea


def test_openai_like_without_a_chat_goes_on_with_text(served: Serving, local: Decoder) -> None:
    llm = OpenAILike(
        model="tiny",
        api_base=served.api,
        api_key="none",
        temperature=0.7,
        max_tokens=12,
        additional_kwargs={"seed": 4, "extra_body": WIDE},
    )
    start = "I would suggest"
    said = said_by(local, 4, start, raw=True, max_tokens=12)
    assert llm.complete(start).text == said
    assert [*llm.stream_complete(start)][-1].text == said
    asked = [ChatMessage(role="user", content=ASK)]
    prompt = llm.messages_to_prompt(asked)
    written = said_by(local, 4, prompt, raw=True, max_tokens=12)
    assert llm.chat(asked).message.content == written
