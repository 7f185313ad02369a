"""Samples on their way to their callers: records become text and steps, steps become streams.

The worker never holds a stream, only its queue; so a stream that nobody holds any more is
collected, and cancels its rows.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ..core.errors import StreamOverrunError
from ..core.outputs import Alternative, Completion, FinishReason, TokenStep, Usage
from ..core.params import SamplingParams
from ..core.routing import Source
from ..core.text_stream import TextStream
from ..core.tool_calls import CallPiece, CallReader, ToolCall
from ..engines.local.engine import Engine, too_late
from ..engines.local.sequence import Row, TokenOutput

SOURCES: tuple[Source, Source] = ("base", "aligned")

Event = TokenStep | Completion | BaseException

MOST_UNREAD = 16384
"""A request whose caller leaves so many tokens unread is cancelled: they take memory."""

_LONGEST_WAIT_S = 3600.0
"""A reader looks again after so long: there are numbers of seconds that no clock can wait."""

_PAUSE = 32
"""After so many tokens an async reader lets its loop turn, even if more are there already."""


class Sample:
    """One sample on its way: turns the engine's records into steps, text and a completion."""

    def __init__(
        self,
        params: SamplingParams,
        seed: int,
        index: int,
        usage: Usage,
        token_bytes: Sequence[bytes],
        base_stop: tuple[str, ...],
        reader: CallReader | None = None,
    ) -> None:
        self.publish: Callable[[Event], None]
        self.streaming = True
        self._params, self._seed, self._index, self._usage = params, seed, index, usage
        self._bytes = token_bytes
        own_stop = base_stop if params.spec.only == "base" else ()
        self._text = TextStream((*params.stop, *own_stop))
        self._reader = reader
        self._steps: list[TokenStep] = []
        self._finished = False

    def accept(self, record: TokenOutput, reason: FinishReason | None) -> bool:
        """Take a token; return whether a stop string ended the text."""
        data = b"" if reason == "stop" else self._bytes[record.token]
        text = self._text.push(data, last=reason is not None)
        calls: tuple[CallPiece, ...] = ()
        if self._reader is not None:
            cut = self._text.stopped or reason == "length"
            text, calls = self._reader.push(text, last=cut or reason is not None, cut=cut)
        values = record._asdict() | {"source": SOURCES[record.source]}
        values["token_id"] = values.pop("token")
        values["alternatives"] = self._alternatives(record)
        step = TokenStep(text=text, sample=self._index, calls=calls, **values)
        self._steps.append(step)
        if self.streaming:
            self.publish(step)
        if self._text.stopped or reason is not None:
            self._finish("stop" if self._text.stopped else reason or "stop")
        return self._text.stopped

    def fail(self, error: BaseException) -> None:
        """Pass an error on to the caller."""
        if not self._finished:
            self._finished = True
            self.publish(error)

    def cancelled(self) -> None:
        """Finish with what there is."""
        if not self._finished:
            self._finish("cancelled")

    def _finish(self, reason: FinishReason) -> None:
        self._finished = True
        params = self._params
        calls = () if self._reader is None else self._closed_calls(self._reader)
        has_gamma = params.spec.rule is not None or not isinstance(params.router, str)
        self.publish(
            Completion(
                text="".join(step.text for step in self._steps),
                steps=tuple(self._steps),
                finish_reason="tool_calls" if calls and reason == "stop" else reason,
                usage=self._usage._replace(completion_tokens=len(self._steps)),
                seed=self._seed,
                sample=self._index,
                router=params.spec.name,
                gamma=params.effective_gamma if has_gamma else None,
                tool_calls=calls,
            )
        )

    @staticmethod
    def _closed_calls(reader: CallReader) -> tuple[ToolCall, ...]:
        reader.push("", last=True)  # a cancelled sample ends in the middle
        return tuple(reader.calls)

    def _alternatives(self, record: TokenOutput) -> dict[Source, tuple[Alternative, ...]] | None:
        count = self._params.alternatives
        if not count or record.alternatives is None:
            return None
        return {
            source: tuple(
                Alternative(token, self._bytes[token].decode("utf-8", "replace"), probability)
                for token, probability in offered[:count]
            )
            for source, offered in zip(SOURCES, record.alternatives, strict=True)
        }


class _Gauge:
    """Counts a request's events on both ends of their way, and cancels it if they pile up."""

    def __init__(self, engine: Engine, rows: list[Row]) -> None:
        self.sent = self.taken = 0
        self._engine, self._rows = engine, rows

    def passed(self, event: Event) -> Event:
        """Count an event that is sent; return it, or the error that ends the stream instead."""
        self.sent += 1
        if self.sent - self.taken <= MOST_UNREAD:
            return event
        self._engine.cancel(self._rows)
        return StreamOverrunError(
            f"{MOST_UNREAD} tokens of this stream lay unread, and the request was cancelled. Read "
            "it while it runs, or ask with generate() for what is wanted as a whole."
        )


class _Running:
    """The samples of one request while they run; what `Stream` and `AsyncStream` have in common.

    A request's time is kept here as well as in the engine: whoever waits is told at the deadline,
    whatever the threads are busy with that render or decode.
    """

    _wake: Callable[[], None]
    """Lets whoever waits look again."""

    def __init__(
        self,
        engine: Engine,
        rows: list[Row],
        owner: object,
        params: SamplingParams,
        deadline: float,
    ) -> None:
        self.completions: list[Completion] = []
        self.rows = rows
        self._params, self._deadline = params, deadline
        self._gauge = _Gauge(engine, rows)
        # A decoder that nobody else holds lives as long as its streams.
        self._engine, self._owner = engine, owner
        self._lock = threading.Lock()
        self._ended = False

    def _take(self, event: Event) -> TokenStep | None:
        """Book an event; return it if it is a step, None if it ended a sample."""
        self._gauge.taken += 1
        if isinstance(event, TokenStep):
            return event
        if isinstance(event, Completion):
            with self._lock:  # two may read at once
                self.completions.append(event)
                self.completions.sort(key=lambda completion: completion.sample)
                ended = len(self.completions) == len(self.rows)
            if ended:
                self._end()
            return None
        self._cancel()
        self._end()
        raise event

    def _left(self) -> float:
        """Return how many seconds to wait for an event before looking at the time."""
        return min(max(self._deadline - time.monotonic(), 0), _LONGEST_WAIT_S)

    def _require_time(self) -> None:
        """Cancel a request for which nothing came in time.

        Raises:
            DeadlineError: Its time is over.
        """
        if time.monotonic() < self._deadline:
            return
        self._cancel()
        self._end()
        decoded = max((row.decoded for row in self.rows), default=0)
        raise too_late(self._params, decoded, self._params.max_tokens)

    def _cancel(self) -> None:
        if self._ended:
            return
        if self._engine.forked:  # nothing will come from the parent
            self._end()
            return
        with self._lock:
            if not self.rows:  # nor will there be any
                self._end()
                return
        self._engine.cancel(self.rows)

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def __del__(self) -> None:
        if hasattr(self, "_ended"):
            self._cancel()


class Stream(_Running, Iterator[TokenStep]):
    """Iterates over a request's tokens as they are decoded; closing it cancels the request.

    Attributes:
        completions: The samples that have finished, in order; cancelled ones once it is closed.
    """

    def __init__(self, engine: Engine, rows: list[Row], *given: Any) -> None:
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        super().__init__(engine, rows, *given)
        put, passed = self._events.put, self._gauge.passed
        self.publish = lambda event: put(passed(event))

    def __next__(self) -> TokenStep:
        while not self._ended:
            self._engine.require_reader()
            try:
                event = self._events.get(timeout=self._left())
            except queue.Empty:
                self._require_time()
                continue
            if event is None:
                self._wake()  # whoever else waits
            elif (step := self._take(event)) is not None:
                return step
        raise StopIteration

    def _wake(self) -> None:
        self._events.put(None)

    def close(self) -> None:
        """Cancel what still runs; on return its slots are free."""
        self._cancel()
        with suppress(Exception):  # closing is not the place to learn of a failure
            for _ in self:
                pass

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncStream(_Running, AsyncIterator[TokenStep]):
    """Iterates over a request's tokens on an event loop, which stays free between them.

    The loop need not be the one that it was made on, nor the same for all tokens.

    Attributes:
        completions: The samples that have finished, in order; cancelled ones once it is closed.
    """

    def __init__(self, engine: Engine, rows: list[Row], *given: Any) -> None:
        self._events: deque[Event] = deque()
        self._waiters: set[asyncio.Future[None]] = set()
        super().__init__(engine, rows, *given)
        events, waiters, passed = self._events, self._waiters, self._gauge.passed

        def publish(event: Event) -> None:
            events.append(passed(event))
            _wake(waiters)

        self.publish = publish

    @property
    def wanted(self) -> bool:
        """Whether anybody may still read it."""
        return not self._ended

    def begin(self, rows: list[Row], submit: Callable[[], None]) -> None:
        """Let rows run that come later than the stream; none once it is closed."""
        with self._lock:
            if not self._ended:
                self.rows += rows
                submit()

    async def __anext__(self) -> TokenStep:
        while not self._ended:
            self._engine.require_reader()
            if not self._events:
                await self._more()
            elif self._gauge.taken % _PAUSE == 0:
                await asyncio.sleep(0)
            try:
                event = self._events.popleft()
            except IndexError:  # another reader was faster
                continue
            if (step := self._take(event)) is not None:
                return step
        raise StopAsyncIteration

    async def _more(self) -> None:
        """Wait on the running loop until there may be something to read.

        Raises:
            DeadlineError: The time is over, and there is nothing.
        """
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        timed = self._deadline < math.inf
        timer = loop.call_later(self._left(), _arrive, waiter) if timed else None
        self._waiters.add(waiter)
        try:
            # What came before the waiter was there has woken nobody.
            if not (self._events or self._ended):
                await waiter
        finally:
            self._waiters.discard(waiter)
            if timer:
                timer.cancel()
        if not (self._events or self._ended):
            self._require_time()

    def _wake(self) -> None:
        _wake(self._waiters)

    async def aclose(self) -> None:
        """Cancel what still runs; on return its slots are free."""
        self._cancel()
        with suppress(Exception):
            async for _ in self:
                pass

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


def _wake(waiters: set[asyncio.Future[None]]) -> None:
    """Wake readers, each on its own loop; from any thread."""
    for waiter in list(waiters):  # those of now: one that is woken may wait again at once
        waiters.discard(waiter)
        with suppress(RuntimeError):  # its loop is closed
            waiter.get_loop().call_soon_threadsafe(_arrive, waiter)


def _arrive(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
