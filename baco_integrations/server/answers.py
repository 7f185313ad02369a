"""From a body to an answer: the decoder is asked, and what it says is sent, whole or as a stream.

Invariant: whoever goes away is noticed while the decoder works for them, and frees its rows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from .. import __version__
from ..api import responses
from ..api.errors import ApiError, error_answer
from ..api.requests import ChatBody, CompletionBody, GenerationBody, read_model_id
from ..api.responses import Json, Token, token_of, usage_of
from ..core.errors import BacoError, ParameterError, nearest
from ..core.messages import Messages
from ..core.outputs import Completion, TokenStep
from ..core.params import SamplingParams
from ..decoder.decoder import Decoder
from ..decoder.stream import AsyncStream
from .gate import Noted
from .logs import LOGGER
from .pairs import ServedPair, ServedPairs
from .settings import ServerSettings

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"


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
    params = body.params(told, pairs.defaults)
    if params.n * len(prompts) > settings.max_choices:
        raise ParameterError(
            "n",
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
    choices = [responses.chat_choice(each, asked.tokens_of(each.steps)) for each in samples]
    return {**asked.head, "choices": choices, "usage": asked.note([samples])}


async def whole_text(request: Request, asked: Asked, echo: bool) -> responses.TextCompletion:
    """Return the continuations of prompts."""
    completions = await answered(request, asked)
    choices = [
        responses.text_choice(
            place * asked.params.n + each.sample,
            str(prompt) if echo else "",
            each,
            asked.tokens_of(each.steps),
        )
        for place, (prompt, samples) in enumerate(zip(asked.prompts, completions, strict=True))
        for each in samples
    ]
    return {**asked.head, "choices": choices, "usage": asked.note(completions)}


# -- streams ---------------------------------------------------------------------------------------

Event = tuple[int, TokenStep | Completion]
"""What a stream says: the place of the prompt, and a token or a finished sample."""
Write = Callable[[int, TokenStep | Completion], Json]
"""Makes a choice of a chunk of an event."""


async def events_of(place: int, stream: AsyncStream) -> AsyncGenerator[Event, None]:
    """Return a stream's tokens and, behind its last token, each sample's completion."""
    told = set[int]()

    def finished() -> list[Completion]:
        ended = [each for each in stream.completions if each.sample not in told]
        told.update(each.sample for each in ended)
        return ended

    async with stream:
        async for step in stream:
            for completion in finished():
                yield place, completion
            yield place, step
    for completion in finished():
        yield place, completion


async def merged(streams: Sequence[AsyncStream]) -> AsyncGenerator[Event, None]:
    """Return the events of several streams as they come; the first error ends all."""
    if len(streams) == 1:
        async with aclosing(events_of(0, streams[0])) as events:
            async for event in events:
                yield event
        return
    came: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()

    async def read(place: int, stream: AsyncStream) -> None:
        try:
            async for event in events_of(place, stream):
                came.put_nowait(event)
            came.put_nowait(None)
        except Exception as error:
            came.put_nowait(error)

    tasks = [asyncio.create_task(read(*each)) for each in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            said = await came.get()
            if isinstance(said, BaseException):
                raise said
            if said is None:
                running -= 1
            else:
                yield said
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def streamed(
    request: Request, asked: Asked, body: GenerationBody, write: Write, opening: Sequence[Json] = ()
) -> EventStream:
    """Return a response that sends an answer as it is decoded.

    It begins with the first token: what fails before has its own status.

    Args:
        request: The request.
        asked: What it asks.
        body: Its body.
        write: Makes a choice of an event.
        opening: Choices to send first.
    """
    begun, decoder = time.monotonic(), asked.decoder
    events = merged([decoder.astream(prompt, asked.params) for prompt in asked.prompts])
    try:
        first = await unless_gone(request, anext(events))
    except BaseException:
        await events.aclose()
        raise
    metrics = request.app.state.metrics
    metrics.first_token.labels(asked.pair).observe(time.monotonic() - begun)
    return EventStream(sent(asked, body, events, first, write, opening), events)


async def sent(
    asked: Asked,
    body: GenerationBody,
    events: AsyncIterator[Event],
    first: Event,
    write: Write,
    opening: Sequence[Json],
) -> AsyncGenerator[bytes, None]:
    """Return a stream's lines: chunks, the usage if it was asked for, an error if one came."""
    kind = "chat.completion.chunk" if isinstance(body, ChatBody) else "text_completion"
    head: Json = {**asked.head, "object": kind}
    if body.include_usage:
        head["usage"] = None
    completions: list[list[Completion]] = [[] for _ in asked.prompts]
    asked.noted.facts["gone"] = True  # until its end has been sent
    for choice in opening:
        yield line({**head, "choices": [choice]})
    try:
        place, event = first
        while True:
            if isinstance(event, Completion):
                completions[place].append(event)
            yield line({**head, "choices": [write(place, event)]})
            try:
                place, event = await anext(events)
            except StopAsyncIteration:
                break
        usage = asked.note(completions)
        if body.include_usage:
            yield line({**head, "choices": [], "usage": usage})
    except Exception as error:
        asked.noted.facts["error"] = type(error).__name__
        if not isinstance(error, BacoError):
            LOGGER.exception("a stream failed")
        yield line(error_answer(error))
    yield DONE
    del asked.noted.facts["gone"]


def line(data: object) -> bytes:
    """Return an event of server-sent events."""
    return b"data: " + to_json(data) + b"\n\n"


class EventStream(StreamingResponse):
    """Server-sent events, whose source is closed whatever happens.

    Args:
        lines: The events' lines.
        source: What is read for them.
    """

    def __init__(
        self, lines: AsyncGenerator[bytes, None], source: AsyncGenerator[Event, None]
    ) -> None:
        # A proxy that buffers would hold tokens back.
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(lines, media_type="text/event-stream", headers=headers)
        self._lines, self._source = lines, source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._lines.aclose()
            await self._source.aclose()


async def stream_chat(request: Request, asked: Asked, body: ChatBody) -> EventStream:
    """Return a response that streams the answer to a conversation."""

    def write(_: int, event: TokenStep | Completion) -> Json:
        if isinstance(event, Completion):
            return responses.chat_end(event.sample, event)
        return responses.chat_delta(event.sample, event, asked.tokens_of([event]))

    begin: Json = {"role": "assistant", "content": ""}
    opening: list[Json] = [
        {"index": index, "delta": begin, "finish_reason": None, "logprobs": None}
        for index in range(asked.params.n)
    ]
    return await streamed(request, asked, body, write, opening)


async def stream_text(request: Request, asked: Asked, body: CompletionBody) -> EventStream:
    """Return a response that streams the continuations of prompts."""
    n, lengths = asked.params.n, dict[int, int]()

    def write(place: int, event: TokenStep | Completion) -> Json:
        index = place * n + event.sample
        if isinstance(event, Completion):
            end: Json = {"index": index, "text": "", "finish_reason": event.finish_reason}
            return {**end, "logprobs": None, "baco": responses.choice_info(event)}
        tokens, offset = asked.tokens_of([event]), lengths.get(index, 0)
        lengths[index] = offset + len(event.text)
        logprobs = None if tokens is None else responses.text_logprobs(tokens, offset)
        return {"index": index, "text": event.text, "finish_reason": None, "logprobs": logprobs}

    opening: list[Json] = [
        {"index": p * n + s, "text": str(prompt), "finish_reason": None, "logprobs": None}
        for p, prompt in enumerate(asked.prompts if body.echo else ())
        for s in range(n)
    ]
    return await streamed(request, asked, body, write, opening)


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
