"""Scripted pairs on the local engine, whose caches, drafts and slots they then go through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from baco_integrations import Decoder, ScriptedPair
from baco_integrations.engines.base import EngineSettings
from baco_integrations.engines.local.engine import LocalEngine
from baco_integrations.engines.local.runner import PairRunner, Rows, Tokens
from baco_integrations.policy.params import ALIGNED, BASE


class ScriptedRunner:
    """One side of a pair's scripts; each row is the list of tokens that it has read."""

    page = page_bytes = 1
    most_pages = 10**9

    def __init__(self, pair: ScriptedPair, side: int) -> None:
        self._pair, self._side = pair, side

    def prefill(self, rows: Rows, tokens: Tokens, positions: Sequence[int]) -> torch.Tensor:
        logits = []
        for row, fed, position in zip(rows, tokens, positions, strict=True):
            row[position:] = fed
            logits.append(self._pair.logits(self._side, row))
        return torch.from_numpy(np.array(logits))

    def forward(
        self,
        rows: Rows,
        tokens: Tokens,
        positions: Sequence[int],
        drafted: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        logits = []
        more = [*zip(*(each.tolist() for each in drafted), strict=True)] or [()] * len(rows)
        tokens = [[*read, *rest] for read, rest in zip(tokens, more, strict=True)]
        for row, fed, position in zip(rows, tokens, positions, strict=True):
            row[position:] = fed
            ends = range(position + 1, position + len(fed) + 1)
            logits.append([self._pair.logits(self._side, row[:end]) for end in ends])
        return torch.from_numpy(np.array(logits))

    def share(self, row: Sequence[int], length: int) -> list[int]:
        return [*row[:length]]

    def release(self, row: list[int]) -> None:
        row.clear()

    def reset(self) -> None:
        pass


def local_decoder(pair: ScriptedPair, **settings: Any) -> Decoder:
    """Open a decoder of a scripted pair on the local engine."""
    runner = PairRunner(ScriptedRunner(pair, BASE), ScriptedRunner(pair, ALIGNED))
    opened = EngineSettings(**{"lookahead": "off", **settings})
    return Decoder(pair, engine=LocalEngine(runner, pair.token_space, pair.context, opened))
