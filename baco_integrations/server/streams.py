"""Answers as streams of server-sent events, a chunk for each token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from ..api import responses
from ..api.errors import error_answer
from ..api.requests import ChatBody, CompletionBody, GenerationBody
from ..api.responses import Json
from ..core.errors import BacoError
from ..core.outputs import Completion, TokenStep
from ..decoder.stream import AsyncStream
from .answers import Asked, unless_gone
from .logs import LOGGER

DONE = b"data: [DONE]\n\n"

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
    # What nobody reads stays with its stream, which counts it.
    came: asyncio.Queue[Event | BaseException | None] = asyncio.Queue(len(streams))

    async def read(place: int, stream: AsyncStream) -> None:
        try:
            async for event in events_of(place, stream):
                await came.put(event)
            await came.put(None)
        except Exception as error:
            await came.put(error)

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
