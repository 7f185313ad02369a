"""From a body to an answer: the decoder is asked, and what it says is sent.

Invariant: whoever goes away is noticed while the decoder works for them, and frees its rows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

from fastapi import Request
from starlette.types import Receive

from .. import __version__
from ..api import responses
from ..api.errors import ApiError
from ..api.requests import ChatBody, GenerationBody, read_model_id
from ..api.responses import Token, token_of, usage_of
from ..core.errors import ParameterError, nearest
from ..core.messages import Messages
from ..core.outputs import Completion, TokenStep
from ..core.params import SamplingParams
from ..decoder.decoder import Decoder
from .gate import Noted
from .pairs import ServedPair, ServedPairs
from .settings import ServerSettings

T = TypeVar("T")


@dataclass
class Asked:
    """What one request asks of which decoder.

    Attributes:
        pair: The pair's name.
        decoder: Its decoder.
        prompts: What is to be answered, each with all of its samples.
        params: How to decode.
        head: What the answer and each of its chunks begin with.
        noted: Where facts are noted for the log.
        tokens: Whether the answer tells of each token.
        top: How many of the most probable tokens it lists with each.
        log_prompts: Whether texts are logged.
    """

    pair: str
    decoder: Decoder
    prompts: Sequence[Messages]
    params: SamplingParams
    head: responses.Head
    noted: Noted
    tokens: bool
    top: int
    log_prompts: bool

    def tokens_of(self, steps: Sequence[TokenStep]) -> list[Token] | None:
        """Return decoded tokens, None where they were not asked for."""
        spell = self.spell
        return [token_of(step, spell, self.top) for step in steps] if self.tokens else None

    def spell(self, token: int) -> bytes:
        """Return the bytes of a token."""
        return self.decoder.pair.token_space.bytes_of([token])

    def note(self, completions: Sequence[Sequence[Completion]]) -> responses.Usage:
        """Note what came out, and return its numbers of tokens."""
        each = [usage_of(samples) for samples in completions]
        usage = responses.Usage(
            prompt_tokens=sum(one["prompt_tokens"] for one in each),
            completion_tokens=sum(one["completion_tokens"] for one in each),
            total_tokens=sum(one["total_tokens"] for one in each),
        )
        flat = [completion for samples in completions for completion in samples]
        self.noted.facts |= {**usage, "finish": [completion.finish_reason for completion in flat]}
        if self.log_prompts:
            texts = [completion.text for completion in flat]
            self.noted.facts |= {"prompts": self.prompts, "answers": texts}
        return usage


def served_pair(pairs: ServedPairs, model: str) -> tuple[ServedPair, Mapping[str, Any]]:
    """Return the pair that a model's id names, and the settings in it.

    Raises:
        ApiError: There is none of that name.
        ParameterError: A setting in it is unknown.
    """
    name, settings = read_model_id(model, pairs.names)
    served = pairs.get(name)
    if served is None:
        hint = nearest(name, pairs.names)
        known = ", ".join(pairs.names)
        message = f"There is no model {name[:80]!r}. {hint}Served: {known}."
        raise ApiError(404, "model_not_found", message, "model")
    return served, settings


async def ask(request: Request, body: GenerationBody, prompts: Sequence[Messages]) -> Asked:
    """Check a request and find its decoder, which may have to be loaded first.

    Raises:
        ApiError: The model is unknown, or too much is asked for.
        PairError: The pair cannot be loaded.
        ParameterError: A setting is not allowed.
    """
    pairs: ServedPairs = request.app.state.pairs
    settings: ServerSettings = request.app.state.settings
    served, told = served_pair(pairs, body.model)
    # In a thread, as thousands of tools, or of properties in a schema, take seconds.
    params = await asyncio.to_thread(body.params, told, pairs.defaults)
    if params.n * len(prompts) > settings.max_choices:
        raise ParameterError(
            "n" if params.n > 1 else "prompt",
            f"such that a request has {settings.max_choices} answers at most",
            params.n * len(prompts),
            "Send several requests.",
        )
    # Not `replace`: it would check everything once more, which takes long for many tools.
    timeout = min(params.timeout or settings.request_timeout, settings.request_timeout)
    params = params.model_copy(update={"timeout": timeout})
    noted: Noted = request.state.noted
    noted.facts |= {"model": body.model[:200], "n": params.n, "stream": bool(body.stream)}
    decoder = await unless_gone(request, pairs.decoder(served))
    chat = isinstance(body, ChatBody)
    head = responses.Head(
        id=f"{'chatcmpl' if chat else 'cmpl'}-{uuid4().hex}",
        object="chat.completion" if chat else "text_completion",
        created=int(time.time()),
        model=body.model,
        system_fingerprint=f"baco-{__version__}",
    )
    top = (body.top_logprobs if isinstance(body, ChatBody) else body.logprobs) or 0
    return Asked(
        served.name,
        decoder,
        prompts,
        params,
        head,
        noted,
        body.wants_tokens,
        top,
        settings.log_prompts,
    )


# -- whole answers ---------------------------------------------------------------------------------


async def answered(request: Request, asked: Asked) -> list[list[Completion]]:
    """Return the samples of each prompt; if one fails, or the caller goes, all are cancelled."""

    async def all_of_them() -> list[list[Completion]]:
        tasks = [
            asyncio.ensure_future(asked.decoder.agenerate(prompt, asked.params))
            for prompt in asked.prompts
        ]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    return await unless_gone(request, all_of_them())


async def whole_chat(request: Request, asked: Asked) -> responses.ChatCompletion:
    """Return the answer to a conversation."""
    (samples,) = await answered(request, asked)

    def told() -> list[responses.ChatChoice]:
        return [responses.chat_choice(each, asked.tokens_of(each.steps)) for each in samples]

    # In a thread, as many tokens with many alternatives take a second.
    choices = await asyncio.to_thread(told)
    return {**asked.head, "choices": choices, "usage": asked.note([samples])}


async def whole_text(request: Request, asked: Asked, echo: bool) -> responses.TextCompletion:
    """Return the continuations of prompts."""
    completions = await answered(request, asked)

    def told() -> list[responses.TextChoice]:
        return [
            responses.text_choice(
                place * asked.params.n + each.sample,
                str(prompt) if echo else "",
                each,
                asked.tokens_of(each.steps),
            )
            for place, (prompt, samples) in enumerate(zip(asked.prompts, completions, strict=True))
            for each in samples
        ]

    choices = await asyncio.to_thread(told)
    return {**asked.head, "choices": choices, "usage": asked.note(completions)}


# -- callers who go --------------------------------------------------------------------------------


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Return what some work returns, or cancel it once the caller has gone.

    Raises:
        ApiError: The caller has gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "gone", "The caller has gone.")
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def disconnected(receive: Receive) -> None:
    """Return once the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
