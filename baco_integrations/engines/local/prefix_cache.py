"""The prefix cache: what a model has read of finished sequences, for those that begin alike.

Invariant: what is kept are copies, which never take more bytes than the budget; the least recently
used go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .runner import SavedPrefix

MAX_PREFIXES = 256
"""Most texts that are kept: all of them are looked at whenever a sequence is admitted."""


class Prefix(NamedTuple):
    """How many tokens of a prompt have been read already, and where: a slot, or a saved prefix."""

    length: int
    source: int | SavedPrefix


NO_PREFIX = Prefix(0, 0)


class PrefixCache:
    """Saved prefixes of one model.

    Args:
        budget: Most bytes to keep.

    Attributes:
        bytes: Bytes that are kept.
        saved: The prefixes by their tokens, the last used one last.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes = budget, 0
        self.saved: dict[tuple[int, ...], SavedPrefix] = {}

    def longest(self, tokens: Sequence[int]) -> Prefix:
        """Return the saved prefix that has the longest common beginning with some tokens.

        It counts as used now. Without a common token the result is `NO_PREFIX`.
        """
        best, found = 0, None
        for saved in self.saved:
            length = common_length(saved, tokens)
            if length > best:
                best, found = length, saved
        if found is None:
            return NO_PREFIX
        self.saved[found] = self.saved.pop(found)
        return Prefix(best, self.saved[found])

    def add(self, tokens: tuple[int, ...], prefix: SavedPrefix) -> None:
        """Keep the prefix of some tokens, in place of shorter beginnings of them."""
        for saved in [saved for saved in self.saved if saved == tokens[: len(saved)]]:
            self.drop(saved)
        if prefix.bytes > self.budget:
            return
        self.saved[tokens] = prefix
        self.bytes += prefix.bytes
        while self.bytes > self.budget or len(self.saved) > MAX_PREFIXES:
            self.drop(next(iter(self.saved)))

    def drop(self, tokens: tuple[int, ...]) -> None:
        """Keep the prefix of some tokens no longer."""
        self.bytes -= self.saved.pop(tokens).bytes

    def clear(self) -> None:
        """Keep nothing."""
        self.saved.clear()
        self.bytes = 0


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many items, from the first on, two sequences of one type share."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # whole slices are compared much faster than tokens one by one
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
