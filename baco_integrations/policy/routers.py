"""Routing: which side is to give each row's token, before words are looked at.

A router is compiled to numbers (content bits and limits), so rows with different routers and gammas
share one vectorised comparison: aligned speaks where any number of a row passes its limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.errors import ParameterError
from ..core.routing import Router, RouterSpec
from .signals import Signals
from .token_classes import FC, PUNC

_CONTENT_BITS = {"punc": PUNC, "fc": FC}

_ALWAYS, _NEVER = -math.inf, math.inf
"""Limits that every number reaches, and that none does."""


class Route(NamedTuple):
    """A router and gamma, compiled; aligned speaks where a number passes its limit.

    Attributes:
        content: Bits of the content classes that go to aligned.
        p_max: Aligned speaks where base's highest probability is at least this,
        uniform: or where the row's uniform is at least this,
        entropy: or where base's entropy is no more than this, in nats,
        low_p_max: or where base's highest probability is no more than this.
        only_base: The degenerate router ``base``.
    """

    content: int
    p_max: float = _NEVER
    uniform: float = _NEVER
    entropy: float = _ALWAYS
    low_p_max: float = _ALWAYS
    only_base: bool = False

    @property
    def limits(self) -> tuple[float, float, float, float]:
        """The limits, in the order of `passes`."""
        return self.p_max, self.uniform, self.entropy, self.low_p_max


def compile_route(spec: RouterSpec, gamma: float) -> Route:
    """Compile a router and its gamma to numbers."""
    content = sum(_CONTENT_BITS[rule] for rule in spec.content)
    if spec.only is not None:
        return Route(
            content, _NEVER if spec.only == "base" else _ALWAYS, only_base=spec.only == "base"
        )
    if spec.rule == "p":
        return Route(content, p_max=gamma)
    if spec.rule == "h":
        return Route(content, entropy=most_entropy(gamma))
    if spec.rule == "rand":
        return Route(content, uniform=gamma if gamma < 1 else _NEVER)
    if spec.rule == "nudge":
        return Route(content, low_p_max=1 - gamma)
    return Route(content)


def most_entropy(gamma: float) -> float:
    """Return up to which entropy ``exp(-H) < gamma`` does not hold."""
    # In float64, exp(-H) is 1 up to 2^-54.
    return max(-math.log(gamma), 2.0**-54) if gamma else math.inf


def passes(signals: Signals, uniform: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """Compare with limits ``(4, r)``; return two times two rows of answers, ``(2, r)`` each."""
    numbers = torch.stack((signals.p_max, uniform, signals.entropy, signals.p_max))
    return numbers[:2] >= limits[:2], numbers[2:] <= limits[2:]


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
