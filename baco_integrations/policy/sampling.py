"""From logits to a token: temperature, top-k, top-p, min-p, then one uniform through the CDF."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sampling(NamedTuple):
    """Sampling settings, ``(r,)`` each; 0 switches top-k and min-p off, 1 switches top-p off."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor


class Sampled(NamedTuple):
    """What was drawn, and from what.

    Attributes:
        token: ``(r,)`` the tokens.
        probability: ``(r,)`` the probability of each in the distribution that it was drawn from.
        likeliest: Ids and probabilities ``(r, k)`` of that distribution's most probable tokens, if
            asked for; behind those that can be drawn are some of probability 0.
    """

    token: Tensor
    probability: Tensor
    likeliest: tuple[Tensor, Tensor] | None = None


def sample(
    logits: Tensor, uniform: Tensor, settings: Sampling, *, filters: bool, alternatives: int = 0
) -> Sampled:
    """Choose a token per row.

    Args:
        logits: ``(r, v)``; what must not be chosen is minus infinity.
        uniform: ``(r,)`` in [0, 1), the only source of chance.
        settings: Sampling settings; temperature 0 takes the most probable token, the lowest id
            winning ties.
        filters: Whether any row uses top-k, top-p or min-p; without, their work is skipped.
        alternatives: How many of the most probable tokens are asked for.
    """
    best = logits.argmax(-1)
    greedy = settings.temperature == 0
    # Below this, every dtype has long arrived at the most probable token; 0 would divide by zero.
    temperature = settings.temperature.masked_fill(greedy, 1).clamp(min=1e-6).to(logits.dtype)
    peak = logits.gather(-1, best[:, None])
    scaled = (logits - peak) / temperature[:, None]
    if filters:
        scaled = _filtered(scaled, settings)
    probabilities = scaled.softmax(-1)
    cdf = probabilities.cumsum(-1, dtype=torch.float64)
    point = uniform.double() * cdf[:, -1]
    drawn = torch.searchsorted(cdf, point[:, None], right=True)
    drawn = drawn.clamp(max=logits.shape[-1] - 1)  # not a number: the caller fails the row
    token, total = torch.where(greedy[:, None], best[:, None], drawn), cdf[:, -1:].to(scaled.dtype)
    probability = (probabilities.gather(-1, token) / total).masked_fill(greedy[:, None], 1)
    likeliest = None
    if alternatives:
        top = probabilities.topk(min(alternatives, probabilities.shape[-1]), -1)
        alone = torch.arange(top.values.shape[-1], device=token.device) == 0
        likeliest = (
            torch.where(greedy[:, None], token, top.indices),
            torch.where(greedy[:, None], alone, top.values / total),
        )
    return Sampled(token[:, 0], probability[:, 0], likeliest)


def _filtered(scaled: Tensor, settings: Sampling) -> Tensor:
    size = scaled.shape[-1]
    ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
    top_k = torch.where(settings.top_k == 0, size, settings.top_k).clamp(max=size)
    kth = ordered.gather(-1, top_k[:, None] - 1)
    ordered = ordered.masked_fill(ordered < kth, -torch.inf)  # ties with the k-th stay
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    out = (before >= settings.top_p[:, None]) & (settings.top_p[:, None] < 1)
    out[:, 0] = False
    ordered = ordered.masked_fill(out, -torch.inf)
    probabilities = ordered.softmax(-1)
    weak = probabilities < settings.min_p[:, None] * probabilities[:, :1]
    return torch.full_like(scaled, -torch.inf).scatter(
        -1, order, ordered.masked_fill(weak, -torch.inf)
    )
