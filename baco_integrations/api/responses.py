"""Answers in OpenAI's form, with what only BACo knows beside each token and each choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict

from ..core.outputs import Alternative, Completion, TokenStep
from ..core.tool_calls import CallPiece, ToolCall
from .data import call_data, provenance, summary, token_usage

Spell = Callable[[int], bytes]
"""Returns the bytes of a token."""

Json = dict[str, Any]

LEAST_LOGPROB = -9999.0
"""Stands for a probability of 0, as JSON knows no infinity."""


class LikelyToken(TypedDict):
    """A token with its log probability in the distribution that was sampled."""

    token: str
    logprob: float
    bytes: list[int]


class Token(LikelyToken):
    """A decoded token; ``baco`` says who gave it, and how probable it was on either side."""

    top_logprobs: list[LikelyToken]
    baco: Json


class ChoiceLogprobs(TypedDict):
    """The tokens of a choice."""

    content: list[Token]
    refusal: None


class ChatMessage(TypedDict):
    """An answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: NotRequired[list[Json]]


class ChatChoice(TypedDict):
    """One sample; ``baco`` says how it came about."""

    index: int
    message: ChatMessage
    finish_reason: str
    logprobs: ChoiceLogprobs | None
    baco: Json


class TextChoice(TypedDict):
    """One continuation of a prompt; ``baco`` says how it came about."""

    index: int
    text: str
    finish_reason: str | None
    logprobs: Json | None
    baco: NotRequired[Json]


class Usage(TypedDict):
    """Tokens of the prompt, which counts once, and of all samples."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Head(TypedDict):
    """What every answer begins with."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(Head):
    """The answer of ``/v1/chat/completions``."""

    choices: list[ChatChoice]
    usage: Usage


class TextCompletion(Head):
    """The answer of ``/v1/completions``."""

    choices: list[TextChoice]
    usage: Usage


class Served(TypedDict):
    """A pair that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["baco"]
    baco: Json


class ServedList(TypedDict):
    """All pairs that are served."""

    object: Literal["list"]
    data: list[Served]


def usage_of(completions: Iterable[Completion]) -> Usage:
    """Return the numbers of tokens of one request's samples."""
    usage: Any = token_usage(completions)
    counted: Usage = usage
    return counted


def likely(token: int, probability: float, spell: Spell) -> LikelyToken:
    """Return a token with its log probability."""
    data = spell(token)
    logprob = math.log(probability) if probability > 0 else LEAST_LOGPROB
    return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}


def token_of(step: TokenStep, spell: Spell, top: int) -> Token:
    """Return a decoded token.

    Args:
        step: The token.
        spell: Spells ids.
        top: How many of the most probable tokens of the sampled distribution to list.
    """
    told = provenance(step)
    if not step.calls:
        del told["calls"]
    offered: Sequence[Alternative] = (step.alternatives or {}).get("sampled", ())[:top]
    return {
        **likely(step.token_id, step.p_sampled, spell),
        "top_logprobs": [likely(each.token_id, each.probability, spell) for each in offered],
        "baco": told,
    }


def choice_info(completion: Completion) -> Json:
    """Return how a completion came about."""
    info = {**summary(completion), "sample": completion.sample}
    del info["finish_reason"]
    info |= completion.usage._asdict()
    wrong = [
        {"index": index, "error": call.error}
        for index, call in enumerate(completion.tool_calls)
        if call.error is not None
    ]
    return {**info, "invalid_tool_calls": wrong} if wrong else info


def chat_choice(completion: Completion, tokens: list[Token] | None) -> ChatChoice:
    """Return a sample of a chat; `tokens` are None where they were not asked for."""
    message: ChatMessage = {"role": "assistant", "content": completion.text, "refusal": None}
    if completion.tool_calls:
        message["content"] = completion.text or None
        message["tool_calls"] = [written_call(call) for call in completion.tool_calls]
    return {
        "index": completion.sample,
        "message": message,
        "finish_reason": completion.finish_reason,
        "logprobs": None if tokens is None else {"content": tokens, "refusal": None},
        "baco": choice_info(completion),
    }


def written_call(call: ToolCall) -> Json:
    """Return a call as OpenAI writes it; one that is not valid keeps what came of its text."""
    return call_data(call.id, call.name, call.arguments)


def written_piece(piece: CallPiece) -> Json:
    """Return a streamed piece of a call."""
    named: Json = {} if piece.name is None else {"name": piece.name}
    data: Json = {"index": piece.index, "function": {**named, "arguments": piece.arguments}}
    return data if piece.id is None else {**data, "id": piece.id, "type": "function"}


def chat_delta(index: int, step: TokenStep, tokens: list[Token] | None) -> Json:
    """Return what a token adds to a choice of a streamed chat."""
    delta: Json = {"content": step.text} if step.text or not step.calls else {}
    if step.calls:
        delta["tool_calls"] = [written_piece(piece) for piece in step.calls]
    logprobs = None if tokens is None else {"content": tokens, "refusal": None}
    return {"index": index, "delta": delta, "finish_reason": None, "logprobs": logprobs}


def chat_end(index: int, completion: Completion) -> Json:
    """Return the last piece of a choice of a streamed chat."""
    return {
        "index": index,
        "delta": {},
        "finish_reason": completion.finish_reason,
        "logprobs": None,
        "baco": choice_info(completion),
    }


def text_logprobs(tokens: Sequence[Token], offset: int = 0) -> Json:
    """Return tokens as ``/v1/completions`` lists them.

    Args:
        tokens: The tokens.
        offset: Where the first one's text begins.
    """
    offsets, place = [], offset
    for each in tokens:
        offsets.append(place)
        place += len(each["baco"]["text"])
    return {
        "tokens": [each["token"] for each in tokens],
        "token_logprobs": [each["logprob"] for each in tokens],
        "top_logprobs": [by_text(each["top_logprobs"]) for each in tokens],
        "text_offset": offsets,
        "baco": [each["baco"] for each in tokens],
    }


def by_text(offered: Sequence[LikelyToken]) -> dict[str, float]:
    """Return the log probabilities of tokens by text: of several with one text, the highest."""
    highest: dict[str, float] = {}
    for each in offered:  # the most probable first
        highest.setdefault(each["token"], each["logprob"])
    return highest


def text_choice(
    index: int, prompt: str, completion: Completion, tokens: list[Token] | None
) -> TextChoice:
    """Return a sample that goes on with a prompt.

    Args:
        index: Which choice it is.
        prompt: What the text begins with; nothing unless the prompt is to be repeated.
        completion: The sample.
        tokens: Its tokens, if they were asked for.
    """
    return {
        "index": index,
        "text": prompt + completion.text,
        "finish_reason": completion.finish_reason,
        "logprobs": None if tokens is None else text_logprobs(tokens),
        "baco": choice_info(completion),
    }
