"""A worker thread and its queue: what the engines that decode in this process have in common.

Callers only submit and cancel. One thread owns the models: it admits sequences from the queue, and
each of its iterations gives every running sequence a token or more. Where memory runs out, all
sequences go back to the queue, with what they have said, and fewer of them run at a time. What a
request's own router, matcher or sink raises ends that request and no other.
"""

from __future__ import annotations

import atexit
import copy
import math
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch

from ..core.errors import BacoError, DecoderClosedError, DecoderError, QueueFullError
from ..policy.params import ALIGNED, PolicyParams
from ..text.token_space import TokenSpace
from .base import Capabilities, EngineRequest, EngineSettings
from .faults import device_lost, out_of_memory, too_large
from .metrics import Metrics
from .sequence import SequenceState

S = TypeVar("S", bound=SequenceState)

_WORKERS: weakref.WeakSet[Worker] = weakref.WeakSet()  # type: ignore[type-arg]


@atexit.register
def _close_all() -> None:
    """Let workers finish their iteration before the interpreter takes torch away from them."""
    for worker in list(_WORKERS):
        worker.close()


class Worker(ABC, Generic[S]):
    """An engine with a thread of its own; see `Engine` for what callers see of it.

    Args:
        space: The ids that the pair emits.
        context: Context windows of base and aligned, in tokens.
        settings: How the engine is opened.
        device: Where the logits meet.

    Attributes:
        classes: The classes of the ids, on that device.
        dtype: What the step computes in; float64 unless the engine says that its logits have less.
        most_rows: Most sequences that run at once; fewer than allowed after memory has run out.
        queue: The sequences that wait; guarded by `changed`.
        policy: The settings of all running sequences, once they are asked for; None again whenever
            sequences come or go.
    """

    def __init__(
        self,
        space: TokenSpace,
        context: tuple[int, int],
        settings: EngineSettings,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capabilities, self.metrics = Capabilities(), Metrics()
        self.context, self.settings = context, settings
        self.space, self.classes = space, space.classes(device)
        self.dtype = torch.float64
        self.most_rows = settings.max_rows
        self.policy: PolicyParams | None = None
        self.queue: deque[S] = deque()
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, name="baco-decoder", daemon=True)
        self._closed, self._why_closed = False, "this decoder is closed. Open another one."
        self._cancelling = False  # whether a request that waits may have been cancelled
        self._timed = False  # whether any request has ever had a deadline
        self._process = os.getpid()

    def start(self) -> None:
        """Start the thread, once everything else is ready."""
        self.thread.start()
        _WORKERS.add(self)

    # -- what each engine does in its own way -------------------------------------------------

    @property
    @abstractmethod
    def sequences(self) -> Sequence[S]:
        """All sequences that have been admitted."""

    @abstractmethod
    def make_sequence(self, request: EngineRequest) -> S:
        """Return the sequence of a request that has come now."""

    @abstractmethod
    def iterate(self) -> None:
        """Admit sequences, and give every running one a token or more."""

    @abstractmethod
    def remove(self, sequence: S) -> None:
        """Let go of a sequence that has ended."""

    @abstractmethod
    def reset(self) -> None:
        """Let go of all sequences, and free their memory."""

    def dispose(self) -> None:
        """Free the models once the thread has stopped; does nothing unless overridden."""

    # -- what callers do ----------------------------------------------------------------------

    def submit(self, requests: Sequence[EngineRequest]) -> None:
        """Queue requests, all or none; errors are those of `Engine.submit`."""
        self.require_open()
        for request in requests:
            self.capabilities.require(request)
        with self.changed:
            if self._closed:
                raise DecoderClosedError(self._why_closed)
            most = self.settings.max_waiting
            if len(self.queue) + len(requests) > most:
                raise QueueFullError(
                    f"{len(self.queue)} rows are waiting and {len(requests)} came, but the queue "
                    f"holds {most}. Send fewer at once, or raise max_waiting."
                )
            self.queue.extend(map(self.make_sequence, requests))
            self._timed |= any(request.deadline < math.inf for request in requests)
            self.changed.notify()

    def cancel(self, requests: Sequence[EngineRequest]) -> None:
        """Ask requests to stop; each does before the next iteration."""
        if self.forked:
            return
        with self.changed:
            for request in requests:
                request.cancelled = True
            self._cancelling = True
            self.changed.notify()

    def require_open(self) -> None:
        """Refuse callers who would wait for ever; errors are those of `Engine.require_open`."""
        self.require_reader()
        if self._closed:
            raise DecoderClosedError(self._why_closed)

    def require_reader(self) -> None:
        """Refuse a reader who would wait for ever; errors are those of `Engine.require_reader`."""
        if self.forked:  # before any lock is asked for: one of the parent's threads may hold it
            raise DecoderClosedError(
                "this decoder was opened before the process was forked, and its worker stayed in "
                "the parent. Open the decoder in the child, or start children with 'spawn'."
            )
        if threading.current_thread() is self.thread:
            raise DecoderError(
                "a router or a script asked its own decoder for tokens, and would wait for ever. "
                "Use another decoder inside it."
            )

    def close(self) -> None:
        """Stop the thread; requests that have not finished fail with `DecoderClosedError`."""
        self.stop()
        if not self.forked and threading.current_thread() is not self.thread:
            self.thread.join()

    def stop(self) -> None:
        """Ask the thread to stop without waiting for it, as a garbage collector must."""
        if self.forked:
            return
        with self.changed:
            self._closed = True
            self.changed.notify()

    @property
    def closed(self) -> bool:
        """Whether the engine has been closed, or stayed behind in a parent process."""
        return self._closed or self.forked

    @property
    def forked(self) -> bool:
        """Whether this is a forked child: no thread here, and the lock may be held for ever."""
        return self._process != os.getpid()

    @property
    def running(self) -> int:
        """Number of sequences that have been admitted."""
        return len(self.sequences)

    @property
    def waiting(self) -> int:
        """Number of sequences that wait."""
        return len(self.queue)

    # -- what the thread does -----------------------------------------------------------------

    def _run(self) -> None:
        while self._wait_for_work():
            started = time.perf_counter()
            try:
                with torch.inference_mode():
                    self._drop_cancelled()
                    self._drop_late()
                    self.iterate()
            except BaseException as error:  # whatever it is must reach every caller: they wait
                self._recover(error)
            self.metrics.busy_s += time.perf_counter() - started
        self._recover(DecoderClosedError("the decoder was closed while this request was running."))
        self.dispose()

    def _wait_for_work(self) -> bool:
        with self.changed:
            while not (self._closed or self.sequences or self.queue):
                self.changed.wait()
            return not self._closed

    def take_waiting(self, count: int) -> list[S]:
        """Take so many sequences from the queue, in the order in which they came."""
        with self.changed:
            return [self.queue.popleft() for _ in range(min(count, len(self.queue)))]

    def put_back(self, sequences: Sequence[S]) -> None:
        """Put sequences back, in front of those that wait."""
        with self.changed:
            self.queue.extendleft(reversed(sequences))

    def admit(self, sequences: Sequence[S]) -> None:
        """Book sequences that have left the queue, and turn their settings into tensors."""
        now = time.monotonic()
        built: dict[tuple[int, int], PolicyParams] = {}  # samples of one request share theirs
        for sequence in sequences:
            request = sequence.request
            if sequence.policy is None:
                key = id(request.params), id(request.router)
                if key not in built:
                    built[key] = PolicyParams.build(request.params, request.router)
                sequence.policy = built[key]
            self.metrics.admit(now - sequence.submitted)
            self.policy = None

    def policy_of(self, running: Sequence[S]) -> PolicyParams:
        """Return the settings of all running sequences, where the logits meet."""
        if self.policy is None:
            parts = [each.policy for each in running if each.policy is not None]
            self.policy = PolicyParams.stack(parts, self.classes.content.device, self.dtype)
        return self.policy

    def release(self, sequences: Sequence[S]) -> None:
        """Let go of sequences that have ended; each makes room for one more after a shortage."""
        for sequence in sequences:
            self.policy = None
            self.remove(sequence)
            self.most_rows = min(self.most_rows + 1, self.settings.max_rows)

    def _drop_cancelled(self) -> None:
        if not self._cancelling:
            return
        with self.changed:
            self._cancelling = False
            dropped = [each for each in self.queue if each.request.cancelled]
            self.queue = deque(each for each in self.queue if not each.request.cancelled)
        for sequence in dropped:
            sequence.cancel()
        for sequence in [each for each in self.sequences if each.request.cancelled]:
            self.release([sequence])  # where this fails, the others still have their slots
            sequence.cancel()

    def _drop_late(self) -> None:
        """Fail what has taken longer than it may, waiting or running."""
        if not self._timed:
            return
        now = time.monotonic()
        with self.changed:
            waiting = [each for each in self.queue if each.request.deadline < now]
            if waiting:
                self.queue = deque(each for each in self.queue if each.request.deadline >= now)
        for sequence in waiting:
            sequence.expire()
        for sequence in [each for each in self.sequences if each.request.deadline < now]:
            self.release([sequence])  # where this fails, the others still have their slots
            sequence.expire()

    def _recover(self, error: BaseException) -> None:
        """Free all slots after an error; restart if memory ran out, else fail all sequences."""
        sequences = [each for each in self.sequences if not each.finished]
        full = out_of_memory(error)
        if full:
            error.__traceback__ = None  # its frames hold tensors
        self.policy = None
        try:
            self.reset()
        except BaseException as other:  # a lost device cannot be tidied up
            self._abandon(sequences, other if full else error)
            return
        if full:
            self._restart(sequences, error)
        else:
            self._abandon(sequences, error)

    def _restart(self, sequences: list[S], error: BaseException) -> None:
        """Put sequences back into the queue, and run half as many at a time from now on.

        A sequence that ran alone and got no token since it last did so fails: `OutOfMemoryError`.
        """
        self.metrics.restarts += 1
        self.most_rows = max(len(sequences) // 2, 1)
        if len(sequences) == 1 and sequences[0].stuck_at == sequences[0].decoded:
            sequence = sequences.pop()
            limit, prompt = sequence.request.limit, len(sequence.request.prompts[ALIGNED])
            sequence.fail(too_large(error, sequence.decoded, limit, prompt))
        elif len(sequences) == 1:
            sequences[0].stuck_at = sequences[0].decoded
        self.put_back(sequences)
        self._cancelling = True  # some may have been

    def _abandon(self, sequences: list[S], error: BaseException) -> None:
        """Fail all sequences, running and waiting."""
        with self.changed:
            sequences += self.queue
            self.queue.clear()
            if device_lost(error):
                self._closed = True
                self._why_closed = f"the device failed for good: restart the process ({error})"
        for sequence in sequences:
            # One exception object each: they are raised in threads of their own.
            sequence.fail(copy.copy(error) if isinstance(error, BacoError) else error)
