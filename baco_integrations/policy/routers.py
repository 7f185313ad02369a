"""Routing: which side is to give each row's token, before words are looked at.

A router is compiled to numbers (content bits, a signal, a limit), so rows with different routers
and gammas share one vectorised comparison: base speaks where a row's statistic is below its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.errors import ParameterError
from ..core.routing import Router, RouterSpec
from .signals import Signals
from .token_classes import FC, PUNC

ALWAYS, P, H, RAND, NUDGE = range(5)
"""Statistics by the index that `statistics` gives them."""

_CONTENT_BITS = {"punc": PUNC, "fc": FC}
_STATISTIC = {"p": P, "h": H, "rand": RAND, "nudge": NUDGE, None: ALWAYS}


class Route(NamedTuple):
    """A router and gamma, compiled: base speaks where statistic number `statistic` < `limit`."""

    content: int
    statistic: int
    limit: float
    only_base: bool


def compile_route(spec: RouterSpec, gamma: float) -> Route:
    """Compile a router and its gamma to numbers."""
    content = sum(_CONTENT_BITS[rule] for rule in spec.content)
    if spec.only is not None:
        return Route(content, ALWAYS, float(spec.only == "base"), spec.only == "base")
    if spec.rule is None:
        return Route(content, ALWAYS, 1.0, False)
    limit = gamma - 1 if spec.rule == "nudge" else gamma
    return Route(content, _STATISTIC[spec.rule], limit, False)


def statistics(signals: Signals, uniform: Tensor) -> Tensor:
    """Return the statistics ``(r, 5)`` that logit rules compare, in the order of their names."""
    p_max = signals.p_max
    columns = (torch.zeros_like(p_max), p_max, (-signals.entropy).exp(), uniform, -p_max)
    return torch.stack([column.to(uniform.dtype) for column in columns], -1)


class RouteInputs(NamedTuple):
    """What a router of the user's own may look at, for its ``r`` rows.

    Attributes:
        base_logits: ``(r, v)`` raw.
        aligned_logits: ``(r, v)`` raw.
        p_max: ``(r,)`` base's highest probability.
        entropy: ``(r,)`` base's entropy in nats.
        top: ``(r,)`` base's most probable token.
        gamma: ``(r,)``.
        uniform: ``(r,)`` a uniform of the row's own for this position, in [0, 1).
        position: ``(r,)`` tokens decoded so far.
        owner: ``(r,)`` who gave the previous token: 0 base, 1 aligned, 2 nobody yet.
        decoded: The ids decoded so far, row by row.
    """

    base_logits: Tensor
    aligned_logits: Tensor
    p_max: Tensor
    entropy: Tensor
    top: Tensor
    gamma: Tensor
    uniform: Tensor
    position: Tensor
    owner: Tensor
    decoded: Sequence[Sequence[int]]


class GuardedRouter:
    """A user's router whose failure is kept for its own rows instead of reaching the others."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.error: BaseException | None = None

    def route(self, inputs: RouteInputs) -> Tensor:
        """Ask the user's router; after a failure, the aligned model speaks."""
        rows = len(inputs.p_max)
        try:
            chosen = self.router.route(inputs)
            if (
                not isinstance(chosen, Tensor)
                or chosen.shape != (rows,)
                or chosen.dtype != torch.bool
            ):
                raise ParameterError(
                    "router",
                    f"a router whose route() returns a bool tensor of shape ({rows},)",
                    chosen,
                    "Return one boolean per row: True where the base model is to speak.",
                )
            return chosen.to(inputs.p_max.device)
        except BaseException as error:  # whatever a user's code raises belongs to its own rows only
            self.error = error
            return torch.zeros(rows, dtype=torch.bool, device=inputs.p_max.device)
