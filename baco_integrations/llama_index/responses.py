"""Responses in LlamaIndex's words: what was said, and how it came about, as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse, LogProb

from ..adapters.base import provenance, summary
from ..core.outputs import Completion, TokenStep
from ..core.tool_calls import ToolCall
from .tools import message_of, told

R = TypeVar("R", ChatResponse, CompletionResponse)
Build = Callable[[str, Sequence[ToolCall], str | None, dict[str, Any]], R]
"""Builds a response of its text, its calls, what is new in a stream, and ``raw``."""


def chat_response(
    text: str, calls: Sequence[ToolCall], delta: str | None, raw: dict[str, Any]
) -> ChatResponse:
    """Return an answer to a conversation."""
    return ChatResponse(
        message=message_of(text, calls),
        delta=delta,
        raw=raw,
        logprobs=_logprobs(raw),
        additional_kwargs=_flat(raw),
    )


def completion_response(
    text: str, calls: Sequence[ToolCall], delta: str | None, raw: dict[str, Any]
) -> CompletionResponse:
    """Return an answer to a prompt."""
    return CompletionResponse(
        text=text,
        delta=delta,
        raw=raw,
        logprobs=_logprobs(raw),
        additional_kwargs={**_flat(raw), **told(calls)},
    )


def info_of(model: str, completion: Completion) -> dict[str, Any]:
    """Tell what was used and how a completion came about."""
    usage = {
        "prompt_tokens": completion.usage.prompt_tokens,
        "completion_tokens": completion.usage.completion_tokens,
        "total_tokens": completion.usage.total_tokens,
    }
    info = {"model": model, "usage": usage, **summary(completion)}
    wrong = [call._asdict() for call in completion.tool_calls if call.error is not None]
    return {**info, "invalid_tool_calls": wrong} if wrong else info


def tokens_of(steps: Sequence[TokenStep]) -> dict[str, Any]:
    """Tell where tokens came from, if their alternatives were asked for."""
    tokens = [provenance(step) for step in steps if step.alternatives is not None]
    return {"tokens": tokens} if tokens else {}


def is_last(response: ChatResponse) -> bool:
    """Tell whether a piece of a stream is its last, which sums up the whole."""
    return "finish_reason" in (response.raw or {})


def _logprobs(raw: dict[str, Any]) -> list[list[LogProb]] | None:
    """Return what the side that gave a token thought likely there, token by token."""
    if "tokens" not in raw:
        return None
    return [
        [
            LogProb(
                token=each["text"],
                logprob=math.log(each["probability"]),
                bytes=list(each["text"].encode()),
            )
            for each in token["alternatives"][token["source"]]
            if each["probability"]
        ]
        for token in raw["tokens"]
    ]


def _flat(raw: dict[str, Any]) -> dict[str, Any]:
    besides = {name: value for name, value in raw.items() if name not in ("usage", "tokens")}
    return {**raw.get("usage", {}), **besides}
