"""Scripted pairs on the local engine, whose caches, drafts and slots they then go through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from baco_integrations import Decoder, ScriptedPair
from baco_integrations.engines.base import EngineSettings
from baco_integrations.engines.local.engine import LocalEngine
from baco_integrations.engines.local.runner import PairRunner, SavedPrefix
from baco_integrations.policy.params import ALIGNED, BASE


class ScriptedRunner:
    """One side of a pair's scripts; each slot is the list of tokens that it has read."""

    def __init__(self, pair: ScriptedPair, side: int) -> None:
        self._pair, self._side = pair, side
        self._read: dict[int, list[int]] = {}

    def prefill(self, start: int, tokens: Sequence[Sequence[int]], positions: Any) -> None:
        for slot, (fed, position) in enumerate(zip(tokens, positions, strict=True), start):
            self._read[slot] = [*self._read.get(slot, [])[:position], *fed]

    def forward(self, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> torch.Tensor:
        logits = []
        for slot, (fed, position) in enumerate(zip(tokens, positions, strict=True)):
            read = self._read.get(slot, [])[:position]
            ends = range(1, len(fed) + 1)
            logits.append([self._pair.logits(self._side, [*read, *fed[:end]]) for end in ends])
            self._read[slot] = [*read, *fed]
        return torch.from_numpy(np.array(logits))

    def copy(self, source: int, target: int, length: int) -> None:
        self._read[target] = self._read.get(source, [])[:length]

    def save(self, slot: int, length: int) -> SavedPrefix:
        return SavedPrefix(self._read[slot][:length], length)

    def load(self, saved: SavedPrefix, slot: int, length: int) -> None:
        self._read[slot] = saved.content[:length]

    def reset(self) -> None:
        self._read.clear()


def local_decoder(pair: ScriptedPair, **settings: Any) -> Decoder:
    """Open a decoder of a scripted pair on the local engine."""
    runner = PairRunner(ScriptedRunner(pair, BASE), ScriptedRunner(pair, ALIGNED))
    opened = EngineSettings(**{"lookahead": "off", **settings})
    return Decoder(pair, engine=LocalEngine(runner, pair.token_space, pair.context, opened))
