"""What a router reads from a distribution, raw: at temperature 1, before bans and filters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Signals(NamedTuple):
    """Signals of ``r`` rows.

    Attributes:
        p_max: ``(r,)`` probability of the most probable token.
        entropy: ``(r,)`` entropy in nats.
        top: ``(r,)`` the most probable token, the lowest id winning ties.
    """

    p_max: Tensor
    entropy: Tensor
    top: Tensor

    @classmethod
    def read(cls, probabilities: Tensor, top: Tensor) -> Signals:
        """Read the signals of distributions ``(r, v)`` whose most probable tokens are known."""
        p_max = probabilities.gather(-1, top[:, None])[:, 0]
        return cls(p_max, torch.special.entr(probabilities).sum(-1), top)
