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


def sample(logits: Tensor, uniform: Tensor, settings: Sampling, *, filters: bool) -> Tensor:
    """Choose a token per row.

    Args:
        logits: ``(r, v)``; what must not be chosen is minus infinity.
        uniform: ``(r,)`` in [0, 1), the only source of chance.
        settings: Sampling settings; temperature 0 takes the most probable token, the lowest id
            winning ties.
        filters: Whether any row uses top-k, top-p or min-p; without, their work is skipped.

    Returns:
        Token ids, ``(r,)``.
    """
    best = logits.argmax(-1)
    greedy = settings.temperature == 0
    # Below this, every dtype has long arrived at the most probable token; 0 would divide by zero.
    temperature = settings.temperature.masked_fill(greedy, 1).clamp(min=1e-6).to(logits.dtype)
    peak = logits.gather(-1, best[:, None])
    scaled = (logits - peak) / temperature[:, None]
    if filters:
        scaled = _filtered(scaled, settings)
    cdf = scaled.softmax(-1).cumsum(-1, dtype=torch.float64)
    point = uniform.double() * cdf[:, -1]
    drawn = torch.searchsorted(cdf, point[:, None], right=True)[:, 0]
    drawn = drawn.clamp(max=logits.shape[-1] - 1)  # not a number: the caller fails the row
    return torch.where(greedy, best, drawn)


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
