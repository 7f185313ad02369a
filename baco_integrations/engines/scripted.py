"""The scripted engine: decodes a `ScriptedPair` by looking up what its scripts say."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..core.routing import Source
from ..models.scripted import ScriptedPair
from ..policy.params import ALIGNED, BASE
from ..policy.step import step
from .base import EngineRequest, EngineSettings, Mix
from .batch import deliver, masks_of, outputs_of, state_of
from .sequence import SequenceState
from .worker import Worker


class ScriptedEngine(Worker[SequenceState]):
    """Asks a pair's scripts for each distribution; there are no models, caches or drafts.

    Args:
        pair: The pair.
        settings: How the engine is opened.
        only: The one side whose script is asked; the other one's logits are all alike.
        mix: What replaces aligned's logits.
    """

    def __init__(
        self,
        pair: ScriptedPair,
        settings: EngineSettings,
        *,
        only: Source | None = None,
        mix: Mix | None = None,
    ) -> None:
        super().__init__(pair.token_space, pair.context, settings)
        self.pair, self.only, self.mix = pair, only, mix
        self.admitted: list[SequenceState] = []
        self.start()

    @property
    def sequences(self) -> Sequence[SequenceState]:
        """All sequences that have been admitted."""
        return self.admitted

    def make_sequence(self, request: EngineRequest) -> SequenceState:
        """Return the sequence of a request that has come now."""
        return SequenceState(request, self.space, time.monotonic())

    def remove(self, sequence: SequenceState) -> None:
        """Let go of a sequence that has ended."""
        self.admitted.remove(sequence)

    def reset(self) -> None:
        """Let go of all sequences."""
        self.admitted = []

    def iterate(self) -> None:
        """Admit what waits, look up, decide, deliver."""
        new = self.take_waiting(self.most_rows - len(self.admitted))
        self.admitted += new
        self.admit(new)
        self.metrics.prefilled += sum(len(p) - 1 for each in new for p in each.request.prompts)
        running = list(self.admitted)
        if not running:
            return
        base, aligned = (self.logits(side, running) for side in (BASE, ALIGNED))
        if self.mix is not None:
            aligned = self.mix(base, aligned)
        self.metrics.take_step(len(running))
        content = self.classes.content
        state = state_of(running, content.device)
        masks = masks_of(running, len(content), content.device)
        output = step(base, aligned, self.policy_of(running), state, self.classes, masks)
        self.release(deliver(running, outputs_of(output)[0], self.metrics))

    def logits(self, side: int, sequences: Sequence[SequenceState]) -> Tensor:
        """Return what a side's script says about the next tokens, ``(r, v)``."""
        self.metrics.forwards += 1
        self.metrics.fed += len(sequences)
        if self.only is not None and side != (BASE if self.only == "base" else ALIGNED):
            return torch.zeros(len(sequences), len(self.pair.tokens), dtype=torch.float64)
        rows = [self.pair.logits(side, each.history(side)) for each in sequences]
        return torch.from_numpy(np.stack(rows))
