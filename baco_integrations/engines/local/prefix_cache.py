"""The prefix cache: what a model has read of finished sequences, for those that begin alike.

Invariant: what is kept never takes more bytes than the budget; the least recently used goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .runner import Runner

MAX_PREFIXES = 256
"""Most texts that are kept: all of them are looked at whenever a sequence is admitted."""


class Prefix(NamedTuple):
    """How many tokens of a prompt have been read already, and in which row."""

    length: int
    row: list[int]


NO_PREFIX = Prefix(0, [])


class PrefixCache:
    """What one model has read of texts, as rows of its own.

    Args:
        runner: The model's runner.
        budget: Most bytes to keep; what several texts share counts for each of them.

    Attributes:
        bytes: Bytes that are kept.
        most_tokens: Most tokens of a text that are kept.
        saved: The rows by the tokens that they have read, the last used one last.
    """

    def __init__(self, runner: Runner, budget: int) -> None:
        self.budget, self.bytes, self._runner = budget, 0, runner
        self.most_tokens = budget // runner.page_bytes * runner.page
        self.saved: dict[tuple[int, ...], list[int]] = {}

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

    def add(self, tokens: tuple[int, ...], row: list[int]) -> None:
        """Keep what a row has read, in place of shorter beginnings of it.

        Of a text that is larger than the budget its beginning is kept.
        """
        tokens = tokens[: self.most_tokens]
        if not tokens or self.longest(tokens).length == len(tokens):
            return
        for saved in [saved for saved in self.saved if saved == tokens[: len(saved)]]:
            self.drop(saved)
        self.saved[tokens] = self._runner.share(row, len(tokens))
        self.bytes += self._runner.page_bytes * len(self.saved[tokens])
        while self.bytes > self.budget or len(self.saved) > MAX_PREFIXES:
            self.drop(next(iter(self.saved)))

    def drop(self, tokens: tuple[int, ...]) -> None:
        """Keep what has been read of some tokens no longer."""
        row = self.saved.pop(tokens)
        self.bytes -= self._runner.page_bytes * len(row)
        self._runner.release(row)

    def clear(self) -> None:
        """Forget everything, as the runner has."""
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
