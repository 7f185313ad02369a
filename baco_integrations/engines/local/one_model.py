"""One model as both sides of a pair: one forward gives the logits behind both prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..base import EngineSettings
from .runner import ModelRunner, PairRunner, most_pages


class OneModelRunner(ModelRunner):
    """The runner of both sides of a pair of one model; their rows lie in one cache."""

    def forward_both(
        self,
        rows: Sequence[Sequence[list[int]]],
        tokens: Sequence[tuple[int, int]],
        positions: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """Read a token each in base and aligned of all rows; see `ForwardBoth`."""
        logits = super().forward(
            [row for both in rows for row in both],
            [[token] for both in tokens for token in both],
            [position for both in positions for position in both],
        )
        return logits[0::2, 0], logits[1::2, 0]


def run_one_model(
    base: Any, aligned: Any, context: tuple[int, int], settings: EngineSettings
) -> PairRunner:
    """Return the runner of a model that is both sides; arguments as for `run_pair`."""
    runner = OneModelRunner(
        base,
        max_rows=2 * settings.max_rows,
        max_length=max(context),
        most_pages=most_pages([base], settings),
        graphs=settings.graphs,
    )
    dtype = torch.promote_types(base.dtype, torch.float32)
    return PairRunner(runner, runner, runner.device, runner.forward_both, dtype)
