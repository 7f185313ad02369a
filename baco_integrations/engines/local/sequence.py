"""A sequence of the local engine: what each model has read of it, and how its drafts come true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...policy.params import ALIGNED, BASE
from ..base import TokenOutput
from ..sequence import SequenceState
from .prefix_cache import common_length
from .speculative import AcceptanceEstimate


@dataclass(eq=False)
class LocalSequence(SequenceState):
    """A sequence with a row in both models' caches.

    Attributes:
        sides: The sides that read it.
        rows: Its rows in the caches of base and aligned, once it has been admitted.
        prefilled: How many tokens each side has read, while the prompts are being read.
        acceptance: How often its drafted tokens are right.
    """

    sides: Sequence[int] = (BASE, ALIGNED)
    rows: list[list[int]] = field(default_factory=lambda: [[], []])
    prefilled: list[int] | None = None
    acceptance: AcceptanceEstimate = field(default_factory=AcceptanceEstimate)

    @property
    def is_draftable(self) -> bool:
        """Whether its tokens can be drafted: a router of the user's own is asked once a token."""
        return self.request.router is None and len(self.sides) == 2

    def pending(self, side: int) -> int:
        """Return the token that a side reads next."""
        return (self.fed(side) or self.request.prompts[side])[-1]

    def position(self, side: int) -> int:
        """Return the position at which a side reads the pending token."""
        return len(self.request.prompts[side]) - 1 + len(self.fed(side))

    def read(self, side: int) -> int:
        """Return how many tokens a side has read."""
        return self.position(side) if self.prefilled is None else self.prefilled[side]

    def unread(self, side: int) -> int:
        """Return how many tokens a side has still to read before the pending one."""
        return self.position(side) - self.read(side)

    def shared_length(self, side: int, tokens: tuple[int, ...]) -> int:
        """Return how many of some tokens, from the first on, a side has read in this sequence."""
        prompt = self.request.prompts[side]
        length = common_length(prompt, tokens)
        if length == len(prompt):
            length += common_length(tuple(self.fed(side)), tokens[length:])
        return min(length, self.read(side))

    def known(self, token: TokenOutput) -> TokenOutput:
        """Return a token without the numbers of a side that has not read the sequence."""
        if BASE not in self.sides:
            return token._replace(p_base=math.nan, p_max=math.nan, entropy=math.nan)
        return token if ALIGNED in self.sides else token._replace(p_aligned=math.nan)

    def roll_back(self) -> None:
        """Let the matcher go back to the last token that was decided."""
        if self.request.matcher:
            with self.keeping_errors():
                self.request.matcher.roll_back()
