"""The two sides of a pair that shares its weights: one forward gives the logits of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...models.lora.modules import SwitchedModel
from ..base import EngineSettings
from .runner import ModelRunner, PairRunner, SavedPrefix


class SharedWeightsRunner(ModelRunner):
    """One side of a pair that shares its weights; both sides share one cache.

    Base's slot ``i`` is the cache's slot ``2 i`` and aligned's is ``2 i + 1``, so those of both
    sides lie together.

    Args:
        model: The side's model.
        side: Which side it is, `BASE` or `ALIGNED`.
        max_rows: Most rows of each side that will run at once.
        settings: Further settings of `ModelRunner`.
    """

    def __init__(self, model: SwitchedModel, side: int, max_rows: int, **settings: Any) -> None:
        super().__init__(model.lora.model, max_rows=2 * max_rows, **settings)
        self._side_model, self._side = model, side

    def prefill(
        self, start: int, tokens: Sequence[Sequence[int]], positions: Sequence[int]
    ) -> None:
        """Read some tokens in each of the slots ``start ..``, from a position on."""
        with self._side_model.switched():
            super().prefill(start, tokens, positions)

    def forward(self, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> Tensor:
        """Read ``q`` tokens in each of the slots ``0 ..``; return logits ``(r, q, v)``."""
        with self._side_model.switched():
            return super().forward(tokens, positions)

    @torch.inference_mode()
    def forward_both(
        self, tokens: Sequence[tuple[int, int]], positions: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Read a token each in base and aligned of all rows; see `ForwardBoth`."""
        ids = torch.tensor(tokens).reshape(-1, 1)
        first = [position for both in positions for position in both]
        adapted, plain = slice(self._side, None, 2), slice(1 - self._side, None, 2)
        if not self._side_model.adapted:
            adapted, plain = plain, adapted
        with self._side_model.lora.switch.set(adapted, plain):
            logits = self.logits(range(len(first)), ids, first)
        return logits[0::2, 0], logits[1::2, 0]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy what has been read of the first `length` tokens from one slot to another."""
        super().copy(2 * source + self._side, 2 * target + self._side, length)

    def save(self, slot: int, length: int) -> SavedPrefix:
        """Return a copy of what has been read of a slot's first `length` tokens."""
        return super().save(2 * slot + self._side, length)

    def load(self, saved: SavedPrefix, slot: int, length: int) -> None:
        """Put the first `length` tokens of a saved prefix into a slot."""
        super().load(saved, 2 * slot + self._side, length)

    def slot_range(self, start: int, count: int) -> range:
        """Return where in the cache so many slots of this side are."""
        return range(2 * start + self._side, 2 * (start + count) + self._side, 2)


def run_shared_weights(
    base: Any, aligned: Any, context: tuple[int, int], settings: EngineSettings
) -> PairRunner:
    """Return the runners of two `SwitchedModel`s, with one cache; arguments as for `run_pair`."""
    first, second = (
        SharedWeightsRunner(
            model,
            side,
            settings.max_rows,
            device=base.device,
            max_length=max(context),
            graphs=settings.graphs,
        )
        for side, model in enumerate((base, aligned))
    )
    second.cache, second.graphs = first.cache, first.graphs
    return PairRunner(first, second, first.device, first.forward_both)
