"""What is known of distributions of which only the most probable tokens have come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...policy.params import ALIGNED, BASE, NOBODY, PolicyParams, State
from ...policy.signals import Signals
from ...policy.step import WORD_MASS, Decision
from ...policy.token_classes import TokenClasses
from .replies import Position


class Known(NamedTuple):
    """What is known of a distribution of which only the most probable tokens have come.

    Attributes:
        ids: Those tokens, without embedding rows that are no tokens, ``(k,)``.
        logprobs: Their log probabilities, ``(k,)``.
        log_z: Logarithm of the mass of all real tokens.
        rest: The mass of the real tokens that have not come; at least 0.
        unseen: How many these are.
    """

    ids: Any
    logprobs: Any
    log_z: float
    rest: float
    unseen: int

    @classmethod
    def of(cls, position: Position, size: int) -> Known:
        """Return what a position tells of a model that has so many real tokens."""
        real = position.ids < size
        mass = np.exp(position.logprobs)
        # All that there is adds up to 1 but for rounding.
        unseen = size - int(real.sum())
        rest = max(1 - float(mass.sum()), 0.0) if unseen else 0.0
        total = float(mass[real].sum()) + rest
        ids, logprobs = position.ids[real], position.logprobs[real]
        return cls(ids, logprobs, float(np.log(total)), rest / total, unseen)

    @property
    def entropy(self) -> float:
        """Entropy in nats, the rest taken for one token: never more than that of the whole."""
        logs = self.logprobs[np.isfinite(self.logprobs)] - self.log_z
        rest = -self.rest * np.log(self.rest) if self.rest else 0.0
        return float(rest - (np.exp(logs) * logs).sum())


def fill(side: Sequence[Known], ids: Any) -> Tensor:
    """Return the log probabilities ``(r, k)`` of some sorted ids, as far as they are known."""
    logits = np.full((len(side), len(ids)), -np.inf)
    for row, each in enumerate(side):
        logits[row, np.searchsorted(ids, each.ids)] = each.logprobs
    return torch.from_numpy(logits)


def column(values: Sequence[float]) -> Tensor:
    """Return a number for each row, ``(r,)``."""
    return torch.tensor(values, dtype=torch.float64)


def signals_of(side: Sequence[Known], logits: Tensor) -> Signals:
    """Return what a router reads of base's distributions, given what `fill` made of them."""
    log_z, entropy = column([s.log_z for s in side]), column([s.entropy for s in side])
    return Signals((logits.amax(-1) - log_z).exp(), entropy, logits.argmax(-1))


def uncertain(
    decision: Decision,
    params: PolicyParams,
    state: State,
    classes: TokenClasses,
    known: Sequence[Sequence[Known]],
) -> Tensor:
    """Tell in which rows whole distributions might give another token, ``(r,)`` bool.

    Args:
        decision: What was decided.
        params: The rows' settings.
        state: Their state.
        classes: The classes of the ids.
        known: What is known of base's distributions and of aligned's.
    """
    rest = torch.stack([column([each.rest for each in side]) for side in known])
    least = torch.stack([column([each.logprobs.min(initial=0) for each in side]) for side in known])
    unsure = uncertain_draw(decision, params, rest, least)
    unsure |= uncertain_word(decision, params, state, classes, rest)
    # Entropy is at least what is known of it, and at most this.
    least = decision.signals.entropy
    most = least + column([each.rest * np.log(max(each.unseen, 1)) for each in known[BASE]])
    limit = params.limits[2]
    return unsure | ((least <= limit) & (most > limit))


def uncertain_draw(decision: Decision, params: PolicyParams, rest: Tensor, least: Tensor) -> Tensor:
    """Tell in which rows a token might be drawn that has not come, ``(r,)`` bool.

    Args:
        decision: What was decided.
        params: The rows' settings.
        rest: The mass of what has not come of base's and aligned's distributions, ``(2, r)``.
        least: The least log probability that has come of them, ``(2, r)``.
    """
    from_base = decision.source == BASE
    settings = params.settings_of(decision.source)
    rest, least = (torch.where(from_base, each[BASE], each[ALIGNED]) for each in (rest, least))
    # Filters leave out what has not come: it is less probable than all that has.
    cut = (decision.logits > -torch.inf).sum(-1) > settings.last
    cut |= (least - decision.logits.amax(-1)) / settings.temperature < settings.min_p.log()
    return (settings.certain == 0) & (rest > 0) & ~cut


def uncertain_word(
    decision: Decision, params: PolicyParams, state: State, classes: TokenClasses, rest: Tensor
) -> Tensor:
    """Tell in which rows it is open whether the other side starts words enough, ``(r,)`` bool."""
    to_aligned = state.owner == BASE
    aligned, base = decision.raw
    emitted = base.masked_fill(classes.bans[params.ban], -torch.inf)
    mass = torch.where(to_aligned[:, None], aligned, emitted).exp()
    rest = torch.where(to_aligned, rest[ALIGNED], rest[BASE])
    starting, whole = (mass * classes.starts_word).sum(-1), mass.sum(-1) + rest
    open_ = (starting / whole < WORD_MASS) & ((starting + rest) / whole >= WORD_MASS)
    # Nobody asks for it where the owner goes on with its word.
    starts = classes.starts_word[decision.logits.argmax(-1)]
    return params.bound[BASE].isneginf() & (state.owner != NOBODY) & starts & open_
