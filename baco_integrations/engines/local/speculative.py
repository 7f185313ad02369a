"""Speculative decoding: base drafts tokens where that saves time, aligned checks them at once.

A draft is the step itself with base's logits in aligned's place. It is right wherever base gives
the token, and wherever aligned agrees under the same uniform. What was drafted wrong is decided
again, so nothing in here touches the output; only the time depends on it. All numbers come from
the rows themselves, not from clocks, so that the same batch takes the same course again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

Depth = Literal["auto", "off"] | int
"""How many tokens to guess at a time: as many as pay off, none, or so many."""

MAX_DRAFT = 8
"""Most drafted in a row: hardly ever are more of them all right."""

ROW_COST = {"cpu": 0.08}
"""What another row, or another position, adds to a forward's time, by type of device."""

ACCELERATOR_ROW_COST = 0.005
"""The same on all other devices: there a forward takes as long as reading the weights."""


class Draft(NamedTuple):
    """What base has read ahead of what is decided.

    Attributes:
        base: Base's logits behind the pending token and behind each guess, ``(r, v)`` each.
        drafted: The tokens drafted behind the pending one, ``r`` each.
        chances: Of each guess, that it is right; None where base is drafted to give it.
    """

    base: list[Tensor]
    drafted: list[list[int]]
    chances: list[list[float | None]]


class AcceptanceEstimate:
    """How far a row's drafted of what aligned says have come true.

    Aligned mostly agrees with base as often as base is sure of itself; how much more or less often
    depends on the pair, the text and gamma.
    """

    def __init__(self) -> None:
        self._expected = self._right = 4.0  # so many drafted came as expected, to begin with

    def chance(self, p_max: float) -> float:
        """Return the chance that aligned says what base would, so sure of itself."""
        return min(p_max * self._right / self._expected, 1.0)

    def learn(self, chance: float, right: bool) -> None:
        """Take in how such a guess turned out."""
        self._expected += chance
        self._right += right


def is_worthwhile(chances: Sequence[float], row_cost: float) -> bool:
    """Tell whether another guess for all rows takes less time than it saves.

    It costs a forward of base, and another position in aligned's; each token it brings saves a
    row's share of an iteration with two forwards.

    Args:
        chances: Of every row, that all its drafted with this one are right.
        row_cost: What another row adds to a forward's time.
    """
    rows = len(chances)
    wider = rows * row_cost / (1 + rows * row_cost)
    return sum(chances) > rows * (1 + wider) / 2
