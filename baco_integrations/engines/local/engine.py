"""The one loop: requests wait, rows run, each iteration gives every running row a token or more.

A row's life: `Engine.submit` puts it in the queue; an iteration lets it into a slot, where its
prompts are read up to their last token, no more at a time than running rows can bear; every
iteration then feeds each running row's pending token to both sides, takes one `step` and hands the
result to the row's sink; a finished row leaves its slot.

With lookahead, base goes on from tokens that are drafted, aligned reads all of them in one forward,
and the same `step` decides them one by one, as far as the drafted were right.

One worker thread owns the sides. Callers only submit and cancel. Where memory runs out, all rows
go back to the queue, with what they have said, and fewer of them run at a time. What a row's own
router, matcher or sink raises ends that row and no other.
"""

from __future__ import annotations

import atexit
import copy
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch

from ...core.errors import (
    BacoError,
    DeadlineError,
    DecoderClosedError,
    DecoderError,
    OutOfMemoryError,
    QueueFullError,
    WorkerError,
)
from ...core.outputs import FinishReason
from ...core.params import SamplingParams
from ...policy.grammar_masks import Constraint, GrammarMasks
from ...policy.step import ALIGNED, BASE, NOBODY, PolicyParams, State, StepOutput, step
from ...policy.token_classes import TokenClasses
from ..metrics import Metrics
from .faults import device_lost, out_of_memory
from .runner import Side
from .scheduler import PREFILL_CHUNK, Scheduler
from .sequence import Row, TokenOutput
from .speculative import ACCELERATOR_ROW_COST, MAX_DRAFT, ROW_COST, Depth, Draft, is_worthwhile

PREFILL_SLOWDOWN = 2
"""While prompts are read, rows that run take at most so many times as long again; and much longer,
by the square of the ratio, where more rows wait than run."""

MIN_CHUNK = 8
"""Fewer tokens of a prompt at a time are not worth a forward."""

_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Let workers finish their iteration before the interpreter takes torch away from them."""
    for engine in list(_ENGINES):
        engine.close()


class Engine:
    """Two sides, one step, and the worker thread that runs them.

    Args:
        base: The base side.
        aligned: The aligned side.
        classes: The vocabulary's classes, on the device where the logits meet.
        max_rows: Most rows that run at once.
        max_waiting: Most rows that wait.
        lookahead: How many tokens to guess at a time.
        prefix_bytes: Most bytes of prompts and answers to keep for who begins alike.
    """

    def __init__(
        self,
        base: Side,
        aligned: Side,
        classes: TokenClasses,
        *,
        max_rows: int,
        max_waiting: int,
        lookahead: Depth = "off",
        prefix_bytes: int = 0,
    ) -> None:
        self.metrics = Metrics()
        self.max_rows = max_rows
        self.max_waiting = max_waiting
        self._sides: tuple[Side, ...] = (base, aligned)
        self._slots = Scheduler(self._sides, prefix_bytes, self.metrics)
        self._tables = classes
        self._both = getattr(base, "advance_both", None)
        if lookahead == "auto" and self._both is not None:
            lookahead = "off"  # both sides in one forward are faster still
        self._ahead = MAX_DRAFT if lookahead == "auto" else 0 if lookahead == "off" else lookahead
        self._always_ahead = lookahead != "auto"
        self._row_cost = ROW_COST.get(classes.content.device.type, ACCELERATOR_ROW_COST)
        self._most = max_rows  # fewer after memory has run out
        self._settings: PolicyParams | None = None  # rebuilt whenever rows join or release
        self._waiting: deque[Row] = deque()
        self._changed = threading.Condition()
        self._closed, self._why_closed = False, "this decoder is closed. Open another one."
        self._cancelling = False  # whether a waiting row may have been cancelled
        self._timed = False  # whether any row has ever had a deadline
        self._process = os.getpid()
        self._worker = threading.Thread(target=self._run, name="baco-decoder", daemon=True)
        self._worker.start()
        _ENGINES.add(self)

    # -- what callers do ---------------------------------------------------------------------

    def submit(self, rows: Sequence[Row]) -> None:
        """Queue rows, all or none.

        Raises:
            DecoderClosedError: The engine is closed, or this process was forked from its owner.
            QueueFullError: There is no room for all of them.
        """
        self.require_open()
        with self._changed:
            if self._closed:
                raise DecoderClosedError(self._why_closed)
            if len(self._waiting) + len(rows) > self.max_waiting:
                raise QueueFullError(
                    f"{len(self._waiting)} rows are waiting and {len(rows)} came, but the queue "
                    f"holds {self.max_waiting}. Send fewer at once, or raise max_waiting."
                )
            now = time.monotonic()
            for row in rows:
                row.submitted = now
            self._waiting.extend(rows)
            self._timed |= any(row.deadline < math.inf for row in rows)
            self._changed.notify()

    def require_open(self) -> None:
        """Refuse callers who would wait for ever.

        Raises:
            DecoderClosedError: The engine is closed, or this process was forked from its owner.
            DecoderError: The caller is the engine's own worker.
        """
        self.require_reader()
        if self._closed:
            raise DecoderClosedError(self._why_closed)

    def require_reader(self) -> None:
        """Refuse to let anybody wait to whom the worker cannot get.

        Raises:
            DecoderClosedError: This process was forked from the engine's owner.
            DecoderError: The caller is the engine's own worker.
        """
        if self.forked:  # before any lock is asked for: one of the parent's threads may hold it
            raise DecoderClosedError(
                "this decoder was opened before the process was forked, and its worker stayed in "
                "the parent. Open the decoder in the child, or start children with 'spawn'."
            )
        if threading.current_thread() is self._worker:
            raise DecoderError(
                "a router or a script asked its own decoder for tokens, and would wait for ever. "
                "Use another decoder inside it."
            )

    def cancel(self, rows: Sequence[Row]) -> None:
        """Ask rows to stop; each leaves before the next iteration. Finished rows are unharmed."""
        if self.forked:
            return
        with self._changed:
            for row in rows:
                row.cancelled = True
            self._cancelling = True
            self._changed.notify()

    def close(self) -> None:
        """Stop the worker; rows that have not finished fail with `DecoderClosedError`."""
        self.stop()
        if not self.forked and threading.current_thread() is not self._worker:
            self._worker.join()

    def stop(self) -> None:
        """Ask the worker to stop without waiting for it, as a garbage collector must."""
        if self.forked:
            return
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def closed(self) -> bool:
        """Whether the engine has been closed, or stayed behind in a parent process."""
        return self._closed or self.forked

    @property
    def forked(self) -> bool:
        """Whether this is a forked child: no worker here, and the lock may be held for ever."""
        return self._process != os.getpid()

    # -- what the worker does ----------------------------------------------------------------

    @property
    def _rows(self) -> list[Row]:
        return self._slots.running

    def _run(self) -> None:
        while self._wait_for_work():
            started = time.perf_counter()
            try:
                self._iterate()
            except BaseException as error:  # whatever it is must reach every caller: they wait
                self._recover(error)
            self.metrics.busy_s += time.perf_counter() - started
        self._recover(DecoderClosedError("the decoder was closed while this request was running."))
        self._sides, self._both = (), None  # and with them the memory of their rows
        self._slots = Scheduler((), 0, self.metrics)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._closed or self._slots.rows or self._waiting):
                self._changed.wait()
            return not self._closed

    @torch.inference_mode()
    def _iterate(self) -> None:
        """Let in, read, feed, decide, deliver."""
        self._drop_cancelled()
        if self._timed:
            self._expire()
        self._admit()
        if not self._rows:
            return
        limits = self._limits(range(len(self._rows)))
        if self._both is not None and not self._ahead:
            base, aligned = self._feed_both()
            draft = Draft([base], [], [])
        else:
            draft = self._draft(limits)
            aligned = self._feed(ALIGNED, draft.drafted)
        self._decide(draft, aligned, limits)

    # Letting rows in.

    def _admit(self) -> None:
        """Let waiting rows in and read their prompts, as far as rows that run can bear it."""
        running, waiting = len(self._rows), len(self._slots.reading) + len(self._waiting)
        crowd = max(1, waiting / max(running, 1)) ** 2
        left = int(PREFILL_SLOWDOWN * (1 / self._row_cost + running) * crowd)
        while left > 0 and (self._slots.reading or self._admit_waiting(left)):
            busy = bool(self._rows)
            share = max(left // len(self._slots.reading), 1)
            cost = self._slots.read(min(share, PREFILL_CHUNK) if busy else PREFILL_CHUNK)
            self._settings = None
            left -= cost * busy
            if self._slots.reading:
                return

    def _admit_waiting(self, left: int) -> bool:
        """Let in who waits, as many as there are slots for; say whether anyone came."""
        room = self._most - len(self._rows)
        if self._rows:
            room = min(room, max(left // MIN_CHUNK, 1))
        with self._changed:
            candidates = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        try:
            self._slots.admit(candidates)
        except BaseException as error:
            if out_of_memory(error) or device_lost(error):
                raise
            row = self._slots.reading[-1]
            _fail(row, error)
            self._release([row])
            candidates.remove(row)
        finally:  # whoever has no slot waits on, in front, whatever happened
            group = set(self._slots.reading)
            with self._changed:
                self._waiting.extendleft(row for row in reversed(candidates) if row not in group)
        now = time.monotonic()
        for row in group:
            waited = now - row.submitted
            self.metrics.admitted += 1
            self.metrics.waited_s += waited
            self.metrics.longest_wait_s = max(self.metrics.longest_wait_s, waited)
        return bool(group)

    def _drop_cancelled(self) -> None:
        if not self._cancelling:
            return
        with self._changed:
            self._cancelling = False
            dropped = [row for row in self._waiting if row.cancelled]
            self._waiting = deque(row for row in self._waiting if not row.cancelled)
        for row in dropped:
            _dismiss(row)
        for row in [row for row in self._slots.rows if row.cancelled]:
            self._release([row])  # where this fails, the others still have their slots
            _dismiss(row)

    def _expire(self) -> None:
        """Fail what has taken longer than it may, waiting or running."""
        now = time.monotonic()
        with self._changed:
            late = [row for row in self._waiting if row.deadline < now]
            if late:
                self._waiting = deque(row for row in self._waiting if row.deadline >= now)
        running = [row for row in self._slots.rows if row.deadline < now]
        self._release(running)
        for row in (*late, *running):
            _fail(row, too_late(row.params, row.decoded, row.limit))

    def _release(self, rows: list[Row]) -> None:
        """Take rows out of their slots."""
        for row in rows:
            self._slots.release(row, keep=row.error is None)
            self._settings = None
            self._most = min(self._most + 1, self.max_rows)

    # Deciding tokens.

    def _draft(self, limits: GrammarMasks | None) -> Draft:
        """Let base read the pending tokens, and draft further ones as long as that saves time."""
        draft = Draft([self._feed(BASE, [])[:, 0]], [], [])
        room = min(self._ahead, max(row.limit - row.decoded - 1 for row in self._rows))
        room = min(room, *(row.room - row.decoded - 1 for row in self._rows))
        everyone = range(len(self._rows))
        compiled = self._compiled().take(everyone) if room > 0 else None
        # A user's router is asked only once for each token.
        alive = [float(row.guard is None) for row in self._rows]
        owners = [row.owner for row in self._rows]
        while compiled and len(draft.drafted) < room:
            depth, logits = len(draft.drafted), draft.base[-1]
            state = self._state(everyone, owners, depth)
            guess = step(logits, logits, compiled, state, self._tables, limits)
            owners = guess.source.tolist()
            alive = self._draft_token(draft, guess, alive)
            if len(draft.drafted) == depth:
                break
            limits = self._limits(everyone)
            draft.base.append(self._feed(BASE, draft.drafted[-1:], depth + 1)[:, 0])
        _forget(self._rows)
        return draft

    def _draft_token(self, draft: Draft, guess: StepOutput, alive: list[float]) -> list[float]:
        """Go on by a guess for every row if that saves time.

        Args:
            draft: What has been read ahead so far.
            guess: What the step says with base in aligned's place.
            alive: Of each row, the chance that all its drafted are right.

        Returns:
            The chances, with this guess.
        """
        depth, tokens = len(draft.drafted), guess.token.tolist()
        chances = [
            row.acceptance.chance(p_max) if owner == ALIGNED else None
            for row, owner, p_max in zip(
                self._rows, guess.source.tolist(), guess.p_max.tolist(), strict=True
            )
        ]
        alive = [
            now
            * (1.0 if chance is None else chance)
            * (token >= 0)
            # Behind a row's last token there is nothing to guess.
            * (row.decoded + depth + 1 < row.limit)
            for row, now, chance, token in zip(self._rows, alive, chances, tokens, strict=True)
        ]
        if not any(alive) or not (self._always_ahead or is_worthwhile(alive, self._row_cost)):
            return alive
        draft.drafted.append([max(token, 0) for token in tokens])
        draft.chances.append(chances)
        for place, (row, token) in enumerate(zip(self._rows, tokens, strict=True)):
            if token in row.end:
                alive[place] = 0.0
            elif row.matcher and alive[place]:
                with _kept_to(row):
                    row.matcher.guess(token)
        return alive

    def _decide(self, draft: Draft, aligned: torch.Tensor, limits: GrammarMasks | None) -> None:
        """Decide the rows' next tokens, each as long as what was fed is what had been decided."""
        compiled, places = self._compiled(), list(range(len(self._rows)))
        taken: slice | list[int] = slice(None)  # all of them, without a copy
        done: list[Row] = []
        self.metrics.iterations += 1
        self.metrics.rows += len(places)
        self.metrics.largest_batch = max(self.metrics.largest_batch, len(places))
        for depth, base in enumerate(draft.base):
            if depth:
                places = self._right(draft, depth - 1, places)
                places = [place for place in places if not self._rows[place].finished]
                if not places:
                    break
                taken, limits = places, self._limits(places)
                compiled = self._compiled().take(places)
            state = self._state(places, [self._rows[place].owner for place in places])
            output = step(base[taken], aligned[taken, depth], compiled, state, self._tables, limits)
            done += self._deliver(places, output)
        self._release(done)

    def _right(self, draft: Draft, depth: int, places: list[int]) -> list[int]:
        """Return the places whose last token had been drafted; the rows learn from it."""
        right = []
        for place in places:
            row, chance = self._rows[place], draft.chances[depth][place]
            hit = row.guard is None and row.pending[BASE] == draft.drafted[depth][place]
            if chance is not None:
                row.acceptance.learn(chance, hit)
            self.metrics.drafted += 1
            self.metrics.right += hit
            right += [place] * hit
        return right

    def _feed(self, side: int, drafted: list[list[int]], depth: int = 0) -> torch.Tensor:
        """Feed the pending tokens, or what was drafted behind them, to a side."""
        columns = drafted if depth else [[row.pending[side] for row in self._rows], *drafted]
        tokens = [list(row) for row in zip(*columns, strict=True)]
        self.metrics.forwards += 1
        self.metrics.fed += len(tokens)
        return self._sides[side].advance(tokens, [row.position(side) + depth for row in self._rows])

    def _feed_both(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Feed the pending tokens to both sides in one forward."""
        self.metrics.forwards += 1
        self.metrics.fed += 2 * len(self._rows)
        positions = [(row.position(BASE), row.position(ALIGNED)) for row in self._rows]
        assert self._both is not None
        base, aligned = self._both([row.pending for row in self._rows], positions)
        return base, aligned[:, None]

    def _compiled(self) -> PolicyParams:
        if self._settings is None:
            self._settings = PolicyParams.build(
                [row.params for row in self._rows],
                [row.guard for row in self._rows],
                self._tables.content.device,
            )
        return self._settings

    def _state(self, places: Sequence[int], owners: list[int], depth: int = 0) -> State:
        """Return the state of some rows, so many tokens behind what is decided."""
        device = self._tables.content.device
        rows = [self._rows[place] for place in places]
        decoded = [row.decoded + depth for row in rows]
        numbers = torch.tensor([owners, decoded], device=device)
        noise = np.stack([row.noise_at(at) for row, at in zip(rows, decoded, strict=True)])
        drawn = torch.from_numpy(noise).to(device)
        tokens = [row.tokens for row in rows]
        return State(numbers[0], numbers[1], drawn[:, 0], drawn[:, 1], tokens)

    def _limits(self, places: Sequence[int]) -> GrammarMasks | None:
        """Return what the grammars of some rows allow; rows are numbered as they come."""
        rows = [self._rows[place] for place in places]
        size = len(self._tables.content)
        guided = []
        for number, row in enumerate(rows):
            if row.matcher and row.error is None:
                # One bit more than there are tokens: the grammar's own end.
                bits = np.zeros(size // 32 + 1, dtype=np.int32)
                with _kept_to(row):
                    row.matcher.allow(bits)
                    guided.append((number, Constraint.of(row.matcher), bits))
        if not guided:
            return None
        numbers, constraints, masks = zip(*guided, strict=True)
        device = self._tables.content.device
        return GrammarMasks.build(numbers, constraints, np.stack(masks), size, device)

    def _deliver(self, places: list[int], output: StepOutput) -> list[Row]:
        """Hand decided tokens to their rows; return those that have ended."""
        records = _records(output)
        self.metrics.tokens += len(records)
        done = []
        for place, record in zip(places, records, strict=True):
            row = self._rows[place]
            with _kept_to(row):
                row.error = row.error or self._fault(row, record)
                if row.error is None and record is not None:
                    row.finished = self._accept(row, record)
            if row.error is not None:
                _fail(row, row.error)
            done += [row] * row.finished
        return done

    @staticmethod
    def _fault(row: Row, record: TokenOutput | None) -> BaseException | None:
        """Return what keeps a row from going on; tell its matcher what came."""
        if row.guard is not None and row.guard.error is not None:
            error = row.guard.error  # told as it is, unless it would end whoever reads it
            return error if isinstance(error, Exception) else failure(error)
        if record is None:
            return failure(ArithmeticError("a model's logits are not finite"))
        if row.matcher and not (record.token >= 0 and row.matcher.accept(record.token)):
            return _off_grammar(row, row.matcher.error)
        return None

    def _accept(self, row: Row, record: TokenOutput) -> bool:
        """Hand a token to its row; return whether it was the last."""
        record = record._replace(switched=row.owner not in (NOBODY, record.source))
        row.owner = record.source
        row.tokens.append(record.token)
        row.pending = (record.token, record.token)
        self.metrics.from_base += record.source == BASE
        reason: FinishReason | None = None
        if record.token in row.end:
            reason = "stop"
        elif row.decoded == row.limit:
            reason = "length"
        return row.sink.accept(record, reason) or reason is not None

    # When something fails.

    def _recover(self, error: BaseException) -> None:
        """Empty the slots after an error, and go on with those rows that can."""
        rows = [row for row in self._slots.rows if not row.finished]
        full = out_of_memory(error)
        if full:
            error.__traceback__ = None  # its frames hold tensors
        try:
            self._reset()
        except BaseException as other:  # a lost device cannot be tidied up
            self._abandon(rows, other if full else error)
            return
        if full:
            self._restart(rows, error)
        else:
            self._abandon(rows, error)

    def _restart(self, rows: list[Row], error: BaseException) -> None:
        """Begin again with fewer rows at a time; a row that gets nowhere even alone fails."""
        self.metrics.restarts += 1
        self._most = max(len(rows) // 2, 1)
        if len(rows) == 1 and rows[0].stuck_at == rows[0].decoded:
            row = rows.pop()
            _fail(row, _too_large(row, error))
        elif len(rows) == 1:
            rows[0].stuck_at = rows[0].decoded
        _forget(rows)
        with self._changed:
            self._waiting.extendleft(reversed(rows))
            self._cancelling = True  # some may have been

    def _abandon(self, rows: list[Row], error: BaseException) -> None:
        """Fail every row, running and waiting."""
        with self._changed:
            rows += self._waiting
            self._waiting.clear()
            if device_lost(error):
                self._closed, self._why_closed = True, f"{_LOST} ({error})"
        for row in rows:
            # One exception object each: they are raised in threads of their own.
            _fail(row, copy.copy(error) if isinstance(error, BacoError) else error)

    def _reset(self) -> None:
        self._settings = None
        self._slots.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


_LOST = "the device failed for good: restart the process"


def _too_large(row: Row, error: BaseException) -> OutOfMemoryError:
    told = str(error).strip().partition("\n")[0] or type(error).__name__
    return OutOfMemoryError(
        f"memory ran out ({told}) with {row.decoded} of at most {row.limit} tokens decoded behind "
        f"a prompt of {len(row.prompts[ALIGNED])}, and nothing else was running. Shorten the "
        "conversation, lower max_tokens, or load the pair quantised or in a smaller dtype."
    )


@contextmanager
def _kept_to(row: Row) -> Iterator[None]:
    """Keep what a row's own matcher or sink raises for that row."""
    try:
        yield
    except BaseException as error:
        row.error = row.error or error


def _fail(row: Row, error: BaseException) -> None:
    """End a row with an error; what is none of ours is told as the cause of one."""
    routed = row.guard is not None and row.guard.error is error
    row.error = error if routed or isinstance(error, BacoError) else failure(error)
    row.finished = True
    with suppress(BaseException):  # a sink that takes no error has nobody behind it
        row.sink.fail(row.error)


def _dismiss(row: Row) -> None:
    """Tell a row's sink that it has been cancelled."""
    with _kept_to(row):
        row.sink.cancelled()
    if row.error is not None:
        _fail(row, row.error)


def _forget(rows: Sequence[Row]) -> None:
    """Let matchers go back to the last token that came."""
    for row in rows:
        if row.matcher:
            with _kept_to(row):
                row.matcher.roll_back()


def failure(cause: BaseException) -> WorkerError:
    """Return the error of a request whose part of the work has failed."""
    told = WorkerError(f"the decoder's worker failed: {type(cause).__name__}: {cause}")
    told.__cause__ = cause
    return told


def too_late(params: SamplingParams, decoded: int, limit: int) -> DeadlineError:
    """Return the error of a request that has run out of time."""
    return DeadlineError(
        f"the request took longer than its timeout of {params.timeout:g} s, with {decoded} "
        f"of at most {limit} tokens decoded. Raise timeout, or lower max_tokens."
    )


def _off_grammar(row: Row, said: str) -> DecoderError:
    if said:
        return DecoderError(
            f"the grammar engine gave up after {row.decoded} tokens: {said.rstrip('.')}. Ask for "
            "less at once, or simplify the schema or the pattern."
        )
    return DecoderError(
        f"no token that the grammar allows can follow after {row.decoded} tokens: the models give "
        "none of them any probability, or the vocabulary cannot spell what must come. Loosen the "
        "schema or the pattern."
    )


def _records(output: StepOutput) -> list[TokenOutput | None]:
    """Bring a step's output to Python in one copy; None where a row's logits are not finite."""
    columns = [column.double() for column in output[:7]]
    rows = torch.stack(columns, -1).tolist()
    offered = _offered(output)
    return [
        TokenOutput(int(row[0]), int(row[1]), row[2], row[3], row[4], row[5], False, offer)
        if row[6]
        else None
        for row, offer in zip(rows, offered, strict=True)
    ]


def _offered(
    output: StepOutput,
) -> list[tuple[list[tuple[int, float]], list[tuple[int, float]]] | None]:
    if output.alternatives is None:
        return [None] * len(output.token)
    ids, probabilities = (tensor.tolist() for tensor in output.alternatives)
    base, aligned = (
        [list(zip(*row, strict=True)) for row in zip(ids[side], probabilities[side], strict=True)]
        for side in (BASE, ALIGNED)
    )
    return list(zip(base, aligned, strict=True))
