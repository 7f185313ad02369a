"""Answers for LlamaIndex: a decoder's completions and steps as its responses."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse, LogProb

from ..adapters.base import Adapter
from ..api.data import provenance, summary, text_sources, token_usage
from ..core.messages import Message
from ..core.outputs import Completion, TokenStep
from ..core.tool_calls import ToolCall
from .tools import add_pieces, message_of, written_calls

R = TypeVar("R", ChatResponse, CompletionResponse)
Build = Callable[[str, Sequence[ToolCall], str | None, dict[str, Any]], R]
"""Builds a response of its text, its calls, what is new in a stream, and ``raw``."""


def answer(llm: Adapter, messages: list[Message], call: Mapping[str, Any], build: Build[R]) -> R:
    """Return the answer to a conversation."""
    (completion,) = llm.decoder.generate(messages, llm.request_params(call))
    return response_of(llm, completion, None, build)


async def aanswer(
    llm: Adapter, messages: list[Message], call: Mapping[str, Any], build: Build[R]
) -> R:
    """Return the answer to a conversation; the event loop stays free."""
    params = llm.request_params(call)
    (completion,) = await (await llm.adecoder()).agenerate(messages, params)
    return response_of(llm, completion, None, build)


def pieces(
    llm: Adapter, messages: list[Message], call: Mapping[str, Any], build: Build[R]
) -> Generator[R, None, None]:
    """Start an answer now, and return a generator of a response for each token, then a last one."""
    stream = llm.decoder.stream(messages, llm.request_params(call))

    def responses() -> Generator[R, None, None]:
        text, calls = "", list[ToolCall]()
        with stream:
            for step in stream:
                text += step.text
                add_pieces(calls, step.calls)
                yield build(text, calls, step.text, tokens_of([step]))
        yield response_of(llm, stream.completions[0], "", build)

    return responses()


async def apieces(
    llm: Adapter, messages: list[Message], call: Mapping[str, Any], build: Build[R]
) -> AsyncGenerator[R, None]:
    """As `pieces`; the event loop stays free."""
    params = llm.request_params(call)
    stream = (await llm.adecoder()).astream(messages, params)

    async def responses() -> AsyncGenerator[R, None]:
        text, calls = "", list[ToolCall]()
        async with stream:
            async for step in stream:
                text += step.text
                add_pieces(calls, step.calls)
                yield build(text, calls, step.text, tokens_of([step]))
        yield response_of(llm, stream.completions[0], "", build)

    return responses()


def response_of(llm: Adapter, completion: Completion, delta: str | None, build: Build[R]) -> R:
    """Return a completion as a response; `delta` is None where it was not streamed."""
    usage = token_usage([completion])
    raw = {"model": llm.model_name, "usage": usage, **summary(completion)}
    raw["sources"] = text_sources(completion)
    if wrong := [call._asdict() for call in completion.tool_calls if call.error is not None]:
        raw["invalid_tool_calls"] = wrong
    if delta is None:  # a stream's tokens came with its pieces
        raw |= tokens_of(completion.steps)
    valid = [call for call in completion.tool_calls if call.error is None]
    return build(completion.text, valid, delta, raw)


def chat_response(
    text: str, calls: Sequence[ToolCall], delta: str | None, raw: dict[str, Any]
) -> ChatResponse:
    """Return an answer to a conversation."""
    message = message_of(text, calls)
    return ChatResponse(message=message, delta=delta, raw=raw, **further_fields(raw))


def completion_response(
    text: str, calls: Sequence[ToolCall], delta: str | None, raw: dict[str, Any]
) -> CompletionResponse:
    """Return an answer to a prompt."""
    response = CompletionResponse(text=text, delta=delta, raw=raw, **further_fields(raw))
    response.additional_kwargs |= written_calls(calls)
    return response


def tokens_of(steps: Sequence[TokenStep]) -> dict[str, Any]:
    """Return where tokens came from, if their alternatives were asked for."""
    tokens = [provenance(step) for step in steps if step.alternatives is not None]
    return {"tokens": tokens} if tokens else {}


def is_last(response: ChatResponse) -> bool:
    """Tell whether a piece of a stream is its last, which sums up the whole."""
    return "finish_reason" in (response.raw or {})


def further_fields(raw: dict[str, Any]) -> dict[str, Any]:
    """Return ``additional_kwargs``, and ``logprobs`` of the distribution really sampled."""
    flat = {**raw.get("usage", {}), **raw}
    own = ("usage", "tokens", "sources")
    further = {name: value for name, value in flat.items() if name not in own}
    logprobs = [
        [
            LogProb(
                token=each["text"],
                logprob=math.log(each["probability"]),
                bytes=list(each["text"].encode()),
            )
            for each in token["alternatives"]["sampled"]
        ]
        for token in raw.get("tokens", ())
    ]
    return {
        "additional_kwargs": further,
        "logprobs": logprobs if "tokens" in raw else None,
    }
