"""The engine of a `RemotePair`: two servers say what may come next, and the step is taken here.

Each side goes on by itself for some tokens with every answer. As long as what is decided is what it
went on with, it need not be asked again. Requests wait for nobody: whichever has heard from
both sides is decided, in one batch with all others that have.
"""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from ...core.errors import ParameterError
from ...core.params import SamplingParams
from ...core.routing import Source
from ...engines.base import Capabilities, EngineRequest, EngineSettings, Mix
from ...engines.batch import deliver, outputs_of, state_of
from ...engines.sequence import SequenceState
from ...engines.worker import Worker
from ...policy.params import ALIGNED, BASE, PolicyParams
from ...policy.step import StepOutput, decide, draw, report
from ..loop import NetworkLoop
from .known import Known, column, fill, signals_of, uncertain
from .pair import RemotePair
from .replies import Position

SIDES = (BASE, ALIGNED)

AHEAD = 3
"""For so many tokens more than one a side goes on by itself, where that is left to the engine."""


class Run(NamedTuple):
    """What a side has said of some positions, going on by itself.

    Attributes:
        start: How many tokens had been decided before its first position.
        positions: What it said.
    """

    start: int
    positions: Sequence[Position]

    def at(self, tokens: Sequence[int]) -> Position | None:
        """Return what it said of the token behind those decided; None if it went on otherwise."""
        done = len(tokens) - self.start
        own = [each.token for each in self.positions[:done]]
        known = done < len(self.positions) and list(tokens[self.start :]) == own
        return self.positions[done] if known else None


NOTHING = Run(0, ())


@dataclass(eq=False)
class RemoteSequence(SequenceState):
    """A sequence, and what both sides have said of it.

    Attributes:
        runs: What base and aligned have said last.
        asked: The sides whose answers have not come.
        tasks: What waits for them, on the network's event loop.
    """

    runs: list[Run] = field(default_factory=lambda: [NOTHING, NOTHING])
    asked: set[int] = field(default_factory=set)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def position(self, side: int) -> Position | None:
        """Return what a side has said of the next token, if it has."""
        return self.runs[side].at(self.tokens)

    @property
    def ready(self) -> bool:
        """Whether both sides have said what may come next."""
        return all(self.position(side) is not None for side in SIDES)


class Answer(NamedTuple):
    """What has come for a sequence from one side."""

    sequence: RemoteSequence
    side: int
    start: int
    task: asyncio.Task[list[Position]]


class RemotePairEngine(Worker[RemoteSequence]):
    """Asks two servers, decides and draws.

    Args:
        pair: The pair.
        settings: How the engine is opened; ``lookahead`` is how many tokens more than one a server
            goes on with by itself.
        only: Not to be had here.
        mix: Not to be had here.

    Raises:
        ParameterError: One side alone, or a mixture, is asked for.
    """

    def __init__(
        self,
        pair: RemotePair,
        settings: EngineSettings,
        *,
        only: Source | None = None,
        mix: Mix | None = None,
    ) -> None:
        if only is not None or mix is not None:
            remedy = "Load the two models in this process to measure them."
            raise ParameterError("pair", "a ModelPair where one side is measured", pair, remedy)
        super().__init__(pair.token_space, pair.context, settings)
        self.capabilities = Capabilities(grammar=False, custom_router=False)
        self.pair, self.clients, self.loop = pair, pair.clients(), NetworkLoop.current()
        self.known = min(pair.partly, default=None)
        automatic = {"auto": AHEAD, "off": 0}
        lookahead = settings.lookahead
        self.ahead = lookahead if isinstance(lookahead, int) else automatic[lookahead]
        self.sizes = (pair.base_size, pair.aligned_size)
        self.admitted: list[RemoteSequence] = []
        self.answers: list[Answer] = []
        self.start()

    @property
    def sequences(self) -> Sequence[RemoteSequence]:
        """All sequences that have been admitted."""
        return self.admitted

    def submit(self, requests: Sequence[EngineRequest]) -> None:
        """Queue requests, all or none; what will be approximate of them is warned of once."""
        super().submit(requests)
        if self.known is None:
            return
        for params in {id(request.params): request.params for request in requests}.values():
            for what in approximations(params, self.known):
                warn_approximate(what)

    def make_sequence(self, request: EngineRequest) -> RemoteSequence:
        """Return the sequence of a request that has come now."""
        return RemoteSequence(request, self.space, time.monotonic())

    def remove(self, sequence: RemoteSequence) -> None:
        """Let go of a sequence that has ended; what it has asked is no longer waited for."""
        self.admitted.remove(sequence)
        self.loop.call(cancel_all, sequence.tasks)

    def reset(self) -> None:
        """Let go of all sequences."""
        self.release(list(self.admitted))

    def iterate(self) -> None:
        """Admit what waits, ask for what is missing, decide what both sides have answered."""
        new = self.take_waiting(self.most_rows - len(self.admitted))
        self.admitted += new
        self.admit(new)
        self.metrics.prefilled += sum(len(p) for each in new for p in each.request.prompts)
        for sequence in self.admitted:
            for side in SIDES:
                self.ask(sequence, side)
        if not any(sequence.ready for sequence in self.admitted):
            self.wait()
        self.read_answers()
        ready = [sequence for sequence in self.admitted if sequence.ready]
        if ready:
            self.metrics.take_step(len(ready))
            decided, output = self.step(ready)
            self.release(deliver(decided, outputs_of(output)[0], self.metrics))

    # -- asking ------------------------------------------------------------------------------

    def ask(self, sequence: RemoteSequence, side: int) -> None:
        """Ask a side for the next tokens of a sequence, unless it has said them or been asked."""
        if side in sequence.asked or sequence.position(side) is not None:
            return
        sequence.asked.add(side)
        self.metrics.forwards += 1
        self.metrics.fed += 1
        left = sequence.request.limit - sequence.decoded
        count = min(1 + self.ahead, left)
        self.loop.call(self.begin, sequence, side, sequence.history(side), count)

    def begin(self, sequence: RemoteSequence, side: int, seen: Sequence[int], count: int) -> None:
        """Send a request to a side; called on the network's event loop."""
        start = len(seen) - len(sequence.request.prompts[side])
        task = asyncio.create_task(self.clients[side].run(seen, count))
        sequence.tasks.add(task)
        task.add_done_callback(partial(self.answered, sequence, side, start))

    def answered(
        self, sequence: RemoteSequence, side: int, start: int, task: asyncio.Task[list[Position]]
    ) -> None:
        """Take an answer; called on the network's event loop."""
        sequence.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # so that it is not told of as unread, should nobody read it
            with self.changed:
                self.answers.append(Answer(sequence, side, start, task))
                self.changed.notify()

    def wait(self) -> None:
        """Wait for an answer, or for anything else that is to be done."""
        with self.changed:
            deadlines = [each.request.deadline for each in (*self.admitted, *self.queue)]
            timeout = min(deadlines, default=0.0) - time.monotonic()
            self.changed.wait_for(self.is_needed, min(max(timeout, 0), threading.TIMEOUT_MAX))

    def is_needed(self) -> bool:
        """Tell whether there is anything to do besides waiting; `changed` is held."""
        room = self.queue and len(self.admitted) < self.most_rows
        return bool(self.answers or room or self._closed or self._cancelling)

    def read_answers(self) -> None:
        """Give the answers that have come to their sequences; an error ends its sequence alone."""
        with self.changed:
            answers, self.answers = self.answers, []
        for sequence, side, start, task in answers:
            sequence.asked.discard(side)
            if sequence not in self.admitted:
                continue
            if (error := task.exception()) is not None:
                self.release([sequence])
                sequence.fail(error)
            else:
                sequence.runs[side] = Run(start, task.result())

    # -- deciding ----------------------------------------------------------------------------

    def step(self, ready: Sequence[RemoteSequence]) -> tuple[list[RemoteSequence], StepOutput]:
        """Decide and draw a token for sequences, from what their sides have said; return both.

        The step runs over the ids that any of them has named, which are numbered in their order.
        """
        sides = [[each.position(side) for each in ready] for side in SIDES]
        known = [
            [Known.of(position, size) for position in positions if position is not None]
            for positions, size in zip(sides, self.sizes, strict=True)
        ]
        ids = np.unique(np.concatenate([each.ids for side in known for each in side]))
        base, aligned = (fill(side, ids) for side in known)
        device = self.classes.content.device
        classes = self.classes.take(torch.from_numpy(ids))
        parts = [each.policy for each in ready if each.policy is not None]
        params = PolicyParams.stack(parts, device)
        state = state_of(ready, device)
        decision = decide(
            *(base, aligned, params, state, classes),
            signals=signals_of(known[BASE], base),
            log_z=torch.stack([column([each.log_z for each in known[s]]) for s in (ALIGNED, BASE)]),
        )
        unsure = uncertain(decision, params, state, classes, known)
        self.metrics.truncated += int(unsure.sum())
        for sequence, another in zip(ready, unsure.tolist(), strict=True):
            sequence.request.sink.approximate |= another
        output = report(decision, params, draw(decision, params, state.u_token))
        return list(ready), numbered(output, ids)


def numbered(output: StepOutput, ids: Any) -> StepOutput:
    """Return a step's output with tokens as they are numbered in the vocabulary."""
    names = torch.from_numpy(ids)
    token = torch.where(output.token < 0, -1, names[output.token.clamp(min=0)])
    alternatives = output.alternatives
    if alternatives is not None:
        alternatives = names[alternatives[0]], alternatives[1]
    return output._replace(token=token, alternatives=alternatives)


def cancel_all(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks; called on their event loop."""
    for task in list(tasks):
        task.cancel()


def approximations(params: SamplingParams, logprobs: int) -> list[str]:
    """Return what of a request is approximate, where so many tokens are known at each position.

    Whether a completion really may be another one is told by its ``approximate``, as `uncertain`
    sees it at each token.

    Args:
        params: The settings.
        logprobs: How many of the most probable tokens come.
    """
    found = []
    if params.spec.rule == "h":
        found.append("the entropy that router h reads is that of the most probable tokens")
    for side in (params.side("base"), params.side("aligned")):
        if side.temperature and not (0 < (side.top_k or 0) < logprobs or side.min_p):
            found.append(
                f"tokens are drawn from the {logprobs} most probable ones; a top_k well below "
                "that is exact"
            )
    return found


@cache
def warn_approximate(what: str) -> None:
    """Warn once of what is approximate."""
    warnings.warn(
        f"decoding over endpoints that tell only the most probable tokens is approximate: {what}",
        UserWarning,
        stacklevel=4,
    )
