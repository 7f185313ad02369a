"""Streams: a request's tokens on their way from the engine's thread to its reader.

The engine never holds a stream, only its mailbox; so a stream that nobody holds any more is
collected, and cancels its request.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import StreamOverrunError, too_late
from ..core.outputs import Completion, TokenStep
from ..core.params import SamplingParams

if TYPE_CHECKING:  # what comes over the network is read without torch
    from .output import Event

MAX_UNREAD = 16384
"""A request whose caller leaves so many tokens unread is cancelled: they take memory."""

LONGEST_WAIT_S = 3600.0
"""A reader looks again after so long: there are numbers of seconds that no clock can wait."""

LOOP_TURN = 32
"""After so many tokens an async reader lets its loop turn, even if more are there already."""


class Decoding(Protocol):
    """What a stream asks of what decodes it: an `Engine`, or what asks a server."""

    def submit(self, requests: Sequence[Any], /) -> None:
        """Begin."""

    def cancel(self, requests: Sequence[Any], /) -> None:
        """Ask requests to stop."""

    def require_reader(self) -> None:
        """Refuse a reader to whom nothing can come."""

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process that the requests run in."""


class Mailbox:
    """Where the samples of one request publish, and what is known of how far they are.

    Args:
        engine: The engine that decodes it.
        deliver: Takes what the reader is to get; called from any thread.
        streaming: Whether the reader gets steps, or completions only.

    Attributes:
        requests: What the engine has been asked for, a request for each sample.
        sent: How many events have been delivered.
        taken: How many the reader has taken.
        decoded: How many tokens of each sample there are.
    """

    def __init__(
        self, engine: Decoding, deliver: Callable[[Event], None], *, streaming: bool
    ) -> None:
        self.requests: list[Any] = []
        self.sent = self.taken = 0
        self.decoded: Counter[int] = Counter()
        self._engine, self._deliver, self._streaming = engine, deliver, streaming

    def publish(self, event: Event) -> None:
        """Deliver an event, or cancel the request if too many lie unread."""
        if isinstance(event, TokenStep):
            self.decoded[event.sample] += 1
            if not self._streaming:
                return
        self.sent += 1
        if self.sent - self.taken > MAX_UNREAD:
            self._engine.cancel(self.requests)
            event = StreamOverrunError(
                f"{MAX_UNREAD} tokens of this stream lay unread, and the request was cancelled. "
                "Read it while it runs, or ask with generate() for what is wanted as a whole."
            )
        self._deliver(event)


class RunningRequest(ABC):
    """The samples of one request while they run; what `Stream` and `AsyncStream` have in common.

    The deadline is checked here as well as in the engine, so that a reader gets its error in time
    even while the threads that render or decode are busy.

    Args:
        engine: The engine that decodes it.
        decoder: The decoder that was asked; it lives as long as its streams.
        params: The settings.
        deadline: When it fails, on the monotonic clock.
        streaming: Whether steps are wanted, or completions only.

    Attributes:
        completions: The samples that have finished, in order; cancelled ones once it is closed.
        mailbox: Where the samples publish.
    """

    def __init__(
        self,
        engine: Decoding,
        decoder: object,
        params: SamplingParams,
        deadline: float,
        *,
        streaming: bool,
    ) -> None:
        self.completions: list[Completion] = []
        self.mailbox = Mailbox(engine, self._delivery(), streaming=streaming)
        self._engine, self._decoder = engine, decoder
        self._params, self._deadline = params, deadline
        self._lock = threading.Lock()
        self._ended = False

    @abstractmethod
    def _delivery(self) -> Callable[[Event], None]:
        """Return a function that takes an event in any thread; it must not refer to the stream."""

    @abstractmethod
    def _wake(self) -> None:
        """Wake all waiting readers, so that they check the state again."""

    def _take(self, event: Event) -> TokenStep | None:
        """Count an event as read; return it if it is a step, None if it is a completion.

        An event that is an error cancels the request, and is raised.
        """
        self.mailbox.taken += 1
        if isinstance(event, TokenStep):
            return event
        if isinstance(event, Completion):
            with self._lock:  # two may read at once
                self.completions.append(event)
                self.completions.sort(key=lambda completion: completion.sample)
                ended = len(self.completions) == len(self.mailbox.requests)
            if ended:
                self._end()
            return None
        self.cancel()
        self._end()
        raise event

    def _left(self) -> float:
        """Return how many seconds to wait for an event before the deadline is checked again."""
        return min(max(self._deadline - time.monotonic(), 0), LONGEST_WAIT_S)

    def _require_time(self) -> None:
        """Cancel a request for which nothing came in time.

        Raises:
            DeadlineError: Its time is over.
        """
        if time.monotonic() < self._deadline:
            return
        self.cancel()
        self._end()
        decoded = max(self.mailbox.decoded.values(), default=0)
        raise too_late(self._params.timeout, decoded, self._params.max_tokens)

    def cancel(self) -> None:
        """Ask the engine to cancel what still runs."""
        if self._ended:
            return
        if self._engine.forked:  # nothing will come from the parent
            self._end()
            return
        with self._lock:
            if not self.mailbox.requests:  # nor will there be any
                self._end()
                return
        self._engine.cancel(self.mailbox.requests)

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def __del__(self) -> None:
        if hasattr(self, "_ended"):
            self.cancel()


class Stream(RunningRequest, Iterator[TokenStep]):
    """Iterates over a request's tokens as they are decoded; closing it cancels the request.

    Attributes:
        completions: The samples that have finished, in order; cancelled ones once it is closed.
    """

    def _delivery(self) -> Callable[[Event], None]:
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        return self._events.put

    def __next__(self) -> TokenStep:
        while not self._ended:
            self._engine.require_reader()
            try:
                event = self._events.get(timeout=self._left())
            except queue.Empty:
                self._require_time()
                continue
            if event is None:
                self._wake()  # other waiting readers
            elif (step := self._take(event)) is not None:
                return step
        raise StopIteration

    def _wake(self) -> None:
        self._events.put(None)

    def drain(self) -> list[Completion]:
        """Read to the end, closing the stream whatever happens, and return the completions."""
        with self:
            for _ in self:
                pass
        return self.completions

    def close(self) -> None:
        """Cancel what still runs; on return its slots are free."""
        self.cancel()
        with suppress(Exception):  # closing is not the place to learn of a failure
            for _ in self:
                pass

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncStream(RunningRequest, AsyncIterator[TokenStep]):
    """Iterates over a request's tokens on an event loop, which stays free between them.

    The loop need not be the one that it was made on, nor the same for all tokens.

    Attributes:
        completions: The samples that have finished, in order; cancelled ones once it is closed.
    """

    def _delivery(self) -> Callable[[Event], None]:
        self._events: deque[Event] = deque()
        self._waiters: set[asyncio.Future[None]] = set()
        events, waiters = self._events, self._waiters

        def deliver(event: Event) -> None:
            events.append(event)
            wake(waiters)

        return deliver

    @property
    def wanted(self) -> bool:
        """Whether the stream has not ended, so that it may still be read."""
        return not self._ended

    def begin(self, requests: Sequence[Any]) -> None:
        """Submit requests that were rendered after the stream was made, unless it is closed."""
        with self._lock:
            if not self._ended:
                self.mailbox.requests += requests
                self._engine.submit(requests)

    async def __anext__(self) -> TokenStep:
        while not self._ended:
            self._engine.require_reader()
            if not self._events:
                await self._more()
            elif self.mailbox.taken % LOOP_TURN == 0:
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
        timer = loop.call_later(self._left(), arrive, waiter) if timed else None
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
        wake(self._waiters)

    async def aclose(self) -> None:
        """Cancel what still runs; on return its slots are free."""
        self.cancel()
        with suppress(Exception):
            async for _ in self:
                pass

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


def wake(waiters: set[asyncio.Future[None]]) -> None:
    """Wake readers, each on its own loop; from any thread."""
    for waiter in list(waiters):  # those of now: one that is woken may wait again at once
        waiters.discard(waiter)
        with suppress(RuntimeError):  # its loop is closed
            waiter.get_loop().call_soon_threadsafe(arrive, waiter)


def arrive(waiter: asyncio.Future[None]) -> None:
    """Let one reader go on."""
    if not waiter.done():
        waiter.set_result(None)
