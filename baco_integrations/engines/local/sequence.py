"""A sequence of the local engine: what each model has read of it, and how its drafts come true."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..sequence import SequenceState
from .prefix_cache import common_length
from .speculative import AcceptanceEstimate


@dataclass(eq=False)
class LocalSequence(SequenceState):
    """A sequence that lives in a slot of both models' caches.

    Attributes:
        prefilled: How many tokens each side has read, while the prompts are being read.
        acceptance: How often its drafted tokens are right.
    """

    prefilled: list[int] | None = None
    acceptance: AcceptanceEstimate = field(default_factory=AcceptanceEstimate)

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
