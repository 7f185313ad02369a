"""The two sides of a pair that shares its weights: one forward gives the logits of both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...models.lora.modules import SwitchedModel
from ..base import EngineSettings
from .one_model import OneModelRunner
from .runner import PairRunner, most_pages


class SharedWeightsRunner(OneModelRunner):
    """One side of a pair that shares its weights; both sides share one cache.

    Args:
        model: The side's model.
        max_rows: Most rows of each side that will run at once.
        settings: Further settings of `ModelRunner`.
    """

    def __init__(self, model: SwitchedModel, max_rows: int, **settings: Any) -> None:
        super().__init__(model.lora.model, max_rows=2 * max_rows, **settings)
        self._side_model = model

    def prefill(self, *read: Any) -> Tensor:
        """Read some tokens in each of some rows; see `ModelRunner.prefill`."""
        with self._side_model.switched():
            return super().prefill(*read)

    def forward(self, *read: Any) -> Tensor:
        """Read ``q`` tokens in each of some rows; see `ModelRunner.forward`."""
        with self._side_model.switched():
            return super().forward(*read)

    def forward_both(self, rows: Any, tokens: Any, positions: Any) -> tuple[Tensor, Tensor]:
        """Read a token each in base and aligned of all rows, from base's runner."""
        adapted, plain = slice(0, None, 2), slice(1, None, 2)
        if not self._side_model.adapted:
            adapted, plain = plain, adapted
        with self._side_model.lora.switch.set(adapted, plain):
            return super().forward_both(rows, tokens, positions)


def run_shared_weights(
    base: Any, aligned: Any, context: tuple[int, int], settings: EngineSettings
) -> PairRunner:
    """Return the runners of two `SwitchedModel`s, with one cache; arguments as for `run_pair`."""
    first, second, both = (
        SharedWeightsRunner(
            model,
            settings.max_rows,
            device=base.device,
            max_length=max(context),
            most_pages=most_pages([base], settings),
            graphs=settings.graphs,
        )
        for model in (base, aligned, base)
    )
    for other in (second, both):
        other.cache, other.graphs = first.cache, first.graphs
    dtype = torch.promote_types(base.dtype, torch.float32)
    return PairRunner(first, second, first.device, both.forward_both, dtype)
