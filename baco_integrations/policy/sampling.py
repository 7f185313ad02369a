"""From logits to a token: temperature, top-k, top-p, min-p, then one uniform through the CDF."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_UNIT = 2.0**61
"""What probability 1 is as an integer: sums of integers are the same in any order."""


class Sampling(NamedTuple):
    """Sampling settings of ``r`` rows, ready to compute with, ``(r,)`` floats each.

    Attributes:
        temperature: What logits are divided by; more than 0.
        certain: 1 where the temperature is 0, so that the most probable token is taken; else 0.
        last: Rank of the last token that top-k keeps, from 0; infinity without top-k.
        top_p: The mass that top-p keeps; 2 without.
        min_p: Share of the highest probability that a token needs; 0 without.
    """

    temperature: Tensor
    certain: Tensor
    last: Tensor
    top_p: Tensor
    min_p: Tensor

    @classmethod
    def build(cls, side: Any) -> Sampling:
        """Return the settings of one row, as ``(1,)`` tensors.

        Args:
            side: Something with ``temperature``, ``top_k``, ``top_p`` and ``min_p``, as users give
                them.
        """
        # Below 1e-6, every dtype has long arrived at the most probable token.
        numbers = (
            max(side.temperature, 1e-6) if side.temperature else 1.0,
            float(side.temperature == 0),
            side.top_k - 1 if side.top_k else math.inf,
            side.top_p if side.top_p < 1 else 2.0,
            side.min_p,
        )
        return cls(*(torch.tensor([number], dtype=torch.float64) for number in numbers))


class Filters(NamedTuple):
    """Which filters any row uses, so that the work of the others is skipped.

    Attributes:
        top_k: The largest top-k; 0 without.
        top_p: Whether top-p is used.
        min_p: Whether min-p is used.
    """

    top_k: int = 0
    top_p: bool = False
    min_p: bool = False

    @classmethod
    def of(cls, sides: Sequence[Any]) -> Filters:
        """Return the filters of some settings, see `Sampling.build`."""
        return cls.join([cls(s.top_k or 0, s.top_p < 1, s.min_p > 0) for s in sides])

    @classmethod
    def join(cls, several: Sequence[Filters]) -> Filters:
        """Return the filters that any of several has."""
        return cls(*(max(column) for column in zip(*several, strict=True)))


class Sampled(NamedTuple):
    """What was drawn, and from what.

    Attributes:
        token: ``(r,)`` the tokens.
        probability: ``(r,)`` the probability of each in the distribution that it was drawn from;
            not a number where no token has any.
        likeliest: Ids and probabilities ``(r, k)`` of that distribution's most probable tokens, if
            asked for; behind those that can be drawn are some of probability 0.
    """

    token: Tensor
    probability: Tensor
    likeliest: tuple[Tensor, Tensor] | None = None


def sample(
    logits: Tensor,
    uniform: Tensor,
    settings: Sampling,
    filters: Filters,
    alternatives: int = 0,
) -> Sampled:
    """Choose a token per row.

    Args:
        logits: ``(r, v)``; what must not be chosen is minus infinity.
        uniform: ``(r,)`` in [0, 1), the only source of chance.
        settings: Sampling settings; the lowest id wins ties for the most probable token.
        filters: Those that any row uses.
        alternatives: How many of the most probable tokens are asked for.
    """
    peak, best = logits.max(-1, keepdim=True)
    scaled = (logits - peak).div_(settings.temperature[:, None])
    probabilities = scaled.softmax(-1)
    if any(filters):
        probabilities = filtered(scaled, probabilities, settings, filters)
    # The last token takes all that is left, so that the search never runs off the end.
    cdf = probabilities[:, :-1].cumsum(-1)
    drawn = torch.searchsorted(cdf, uniform[:, None].to(cdf.dtype).contiguous(), right=True)
    # Sums in parallel may fall by a rounding, and what is left may be nothing but roundings.
    certain = settings.certain[:, None]
    possible = probabilities.gather(-1, drawn) > certain
    token = torch.where(possible, drawn, best)
    probability = torch.maximum(probabilities.gather(-1, token), certain)
    likeliest = None
    if alternatives:
        top = probabilities.topk(min(alternatives, probabilities.shape[-1]), -1)
        alone = torch.arange(top.values.shape[-1], device=token.device) == 0
        likeliest = (
            torch.where(certain > 0, token, top.indices),
            torch.where(certain > 0, alone, top.values),
        )
    return Sampled(token[:, 0], probability[:, 0], likeliest)


def filtered(scaled: Tensor, probabilities: Tensor, settings: Sampling, filters: Filters) -> Tensor:
    """Apply top-k, then top-p to what that leaves, then min-p.

    Args:
        scaled: Logits over temperature, ``(r, v)``, 0 for the most probable token.
        probabilities: Their softmax.
        settings: Sampling settings.
        filters: Those that any row uses.

    Returns:
        The softmax of what is left, ``(r, v)``; it is the same where nothing is left out.
    """
    if filters.top_k:
        scaled = scaled.masked_fill(beyond_top_k(scaled, settings.last, filters.top_k), -torch.inf)
    if filters.top_p:
        kept = scaled.softmax(-1) if filters.top_k else probabilities
        scaled = scaled.masked_fill(beyond_top_p(scaled, kept, settings.top_p), -torch.inf)
    if filters.min_p:
        least = settings.min_p[:, None] * probabilities.amax(-1, keepdim=True)
        scaled = scaled.masked_fill(probabilities < least, -torch.inf)
    return scaled.softmax(-1)


def beyond_top_k(scaled: Tensor, last: Tensor, largest: int) -> Tensor:
    """Tell which tokens are not among the top k, ``(r, v)`` bool; ties with the k-th are.

    Args:
        scaled: Logits over temperature, ``(r, v)``.
        last: ``(r,)`` rank of the last token that is kept, from 0.
        largest: The largest k.
    """
    size = min(largest, scaled.shape[-1])
    ordered = torch.nn.functional.pad(scaled.topk(size, -1).values, (0, 1), value=-torch.inf)
    return scaled < ordered.gather(-1, last.clamp(max=size).long()[:, None])


def beyond_top_p(scaled: Tensor, probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Tell which tokens come after the most probable ones that hold a mass, ``(r, v)`` bool.

    The one that crosses it is the last; the lowest id wins ties. Nothing is sorted: a token's key
    are the bits of its scaled logit, and the last key is found 16 bits at a time, from the mass
    that every value of these bits has.

    Args:
        scaled: Logits over temperature, ``(r, v)``, at most 0.
        probabilities: Their probabilities.
        top_p: The mass, ``(r,)``.
    """
    # The bits of positive floats are in the order of their values.
    kind = torch.int64 if scaled.dtype == torch.float64 else torch.int32
    key, shift = scaled.abs().view(kind).long(), 8 * scaled.element_size() - 16
    mass = (probabilities * _UNIT).long()
    wanted = (top_p[:, None] * _UNIT).long().clamp(min=1)
    # No float begins with more than 0x7ff8: where all are kept.
    last = torch.searchsorted(mass_up_to(key >> shift, mass), wanted).clamp(max=0x7FF8)
    while shift:
        # From here on, 0 stands for all keys below those that begin with the bits found.
        key -= (last << shift) - (1 << (shift - 16))
        shift -= 16
        digit = key >> shift if shift else key
        sums = mass_up_to(digit.clamp(0, (1 << 16) + 1), mass)
        last = torch.searchsorted(sums, wanted)
    # Ties are counted in the order of their ids.
    tied = mass * (key == last)
    room = wanted - sums.gather(-1, (last - 1).clamp(min=0))
    return key.add_(tied.cumsum(-1).sub_(tied) >= room) > last


def mass_up_to(digit: Tensor, mass: Tensor) -> Tensor:
    """Return the mass of all tokens whose digit is at most 0, 1, ..., ``(r, 2^16 + 2)``."""
    sums = torch.zeros(len(digit), (1 << 16) + 2, dtype=mass.dtype, device=mass.device)
    return sums.scatter_add_(-1, digit, mass).cumsum(-1)
