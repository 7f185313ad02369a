"""Speculative decoding: base drafts tokens where that saves time, aligned checks them at once.

A draft is the step itself with base's logits in aligned's place. It is right wherever base gives
the token, and wherever aligned agrees under the same uniform. What was drafted wrong is decided
again, so nothing in here touches the output; only the time depends on it. All numbers come from
the sequences themselves, not from clocks, so that the same batch takes the same course again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

MAX_DRAFT = 8
"""Most tokens in a draft: hardly ever are more of them all right."""

ROW_COST = {"cpu": 0.08}
"""What another row, or another position, adds to a forward's time, by type of device."""

ACCELERATOR_ROW_COST = 0.005
"""The same on all other devices: there a forward takes as long as reading the weights."""


class Draft(NamedTuple):
    """What base has read ahead of what is decided.

    Attributes:
        base: Base's logits behind the pending token and behind each drafted one, ``(r, v)`` each.
        tokens: The tokens drafted behind the pending one, ``r`` each.
        chances: Of each, the chance that it is right; None where base is expected to give it.
    """

    base: list[Tensor]
    tokens: list[list[int]]
    chances: list[list[float | None]]


class AcceptanceEstimate:
    """How often drafted tokens that aligned has to agree with are right, for one sequence.

    Aligned mostly agrees with base as often as base is sure of itself; how much more or less often
    depends on the pair, the text and gamma.
    """

    def __init__(self) -> None:
        self._expected = self._accepted = 4.0  # as if so many had been as expected before

    def chance(self, p_max: float) -> float:
        """Return the chance that aligned agrees where base's highest probability is `p_max`."""
        return min(p_max * self._accepted / self._expected, 1.0)

    def learn(self, chance: float, accepted: bool) -> None:
        """Take in whether a drafted token that had such a chance was accepted."""
        self._expected += chance
        self._accepted += accepted


def is_worthwhile(chances: Sequence[float], row_cost: float) -> bool:
    """Tell whether another drafted token for all rows takes less time than it saves.

    It costs a forward of base, and another position in aligned's; each token it brings saves a
    row's share of an iteration with two forwards.

    Args:
        chances: Of every row, that its whole draft with this token is right.
        row_cost: What another row adds to a forward's time.
    """
    rows = len(chances)
    wider = rows * row_cost / (1 + rows * row_cost)
    return sum(chances) > rows * (1 + wider) / 2
