"""PrefixCache: what rows have seen is kept, so that who begins alike need not have it read again.

Invariant: what is kept are copies, which never take more bytes than the budget; what was of no use
for longest goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .runner import Saved

MOST = 256
"""Most texts that are kept: all of them are looked at whenever a row comes."""


class Prefix(NamedTuple):
    """How many tokens are known, and from where: a slot, or what was kept."""

    length: int
    source: int | Saved


NOTHING = Prefix(0, 0)


class PrefixCache:
    """What one side has seen.

    Args:
        budget: Most bytes to keep.

    Attributes:
        bytes: Bytes that are kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes = budget, 0
        self._kept: dict[tuple[int, ...], Saved] = {}  # the latest use is the last

    def longest(self, tokens: Sequence[int]) -> Prefix:
        """Return the longest beginning of some tokens that has been kept."""
        best, found = 0, None
        for kept in self._kept:
            length = common(kept, tokens)
            if length > best:
                best, found = length, kept
        if found is None:
            return NOTHING
        self._kept[found] = self._kept.pop(found)
        return Prefix(best, self._kept[found])

    def add(self, tokens: tuple[int, ...], saved: Saved) -> None:
        """Keep what a side has seen of some tokens, in place of shorter beginnings of them."""
        for kept in [kept for kept in self._kept if kept == tokens[: len(kept)]]:
            self._drop(kept)
        if saved.bytes > self.budget:
            return
        self._kept[tokens] = saved
        self.bytes += saved.bytes
        while self.bytes > self.budget or len(self._kept) > MOST:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self.bytes = 0

    def _drop(self, tokens: tuple[int, ...]) -> None:
        self.bytes -= self._kept.pop(tokens).bytes


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the longest beginning that two sequences of one type share."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # whole slices are compared much faster than tokens one by one
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
