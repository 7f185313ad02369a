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
        log_z: ``(r,)`` logarithm of the normaliser.
    """

    p_max: Tensor
    entropy: Tensor
    top: Tensor
    log_z: Tensor

    @classmethod
    def read(cls, logits: Tensor) -> Signals:
        """Read the signals of raw logits ``(r, v)``."""
        log_z = logits.logsumexp(-1)
        probabilities = (logits - log_z[:, None]).exp()
        top = logits.argmax(-1)
        p_max = probabilities.gather(-1, top[:, None])[:, 0]
        return cls(p_max, torch.special.entr(probabilities).sum(-1), top, log_z)
