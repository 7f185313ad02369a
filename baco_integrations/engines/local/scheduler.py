"""Who lives in which slot: rows that run fill the first ones, the group that is read the next.

A row comes with what is known of its beginning already, from a row that runs or from what was
kept; the rest of its prompts is read piece by piece. A group is read together, so that its rows
begin to run together.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...policy.step import ALIGNED, BASE
from ..metrics import Metrics
from .prefix_cache import NOTHING, Prefix, PrefixCache, common
from .runner import Side
from .sequence import Row

SIDES = (BASE, ALIGNED)
PREFILL_CHUNK = 512
"""Most positions of a prompt that one forward takes, which bounds the memory that it needs."""

MIN_CACHED = 16
"""Fewer tokens than these are read again as quickly as they are copied."""

MIN_SHARED_WAIT = 64
"""A row waits for another that is about to read so many tokens for both."""


class Scheduler:
    """The rows that have a slot, and what was kept of those that had one.

    Args:
        sides: Base and aligned.
        prefix_bytes: Most bytes of prefixes to keep.
        metrics: Where to count what is read.

    Attributes:
        running: The rows of slots ``0 ..``.
        reading: The rows of the slots behind these.
    """

    def __init__(self, sides: Sequence[Side], prefix_bytes: int, metrics: Metrics) -> None:
        self.running: list[Row] = []
        self.reading: list[Row] = []
        self._sides, self._metrics = sides, metrics
        self._kept = [PrefixCache(prefix_bytes // len(sides)) for _ in sides]

    @property
    def rows(self) -> list[Row]:
        """All rows in the order of their slots."""
        return [*self.running, *self.reading]

    def admit(self, candidates: Sequence[Row]) -> None:
        """Let rows in, to be read together.

        Who begins as another one that is let in waits until that one's beginning has been read.
        Where this fails for a row, that row is the last one of `reading`.
        """
        known: dict[Row, list[Prefix]] = {}
        for row in candidates:
            self.reading.append(row)
            found = [self._known(side, row.history(side)[:-1]) for side in SIDES]
            if not any(_waits(row, found, other) for other in known):
                known[row] = found
            self.reading.pop()
        group = sorted(known, key=lambda row: row.position(ALIGNED) - known[row][ALIGNED].length)
        for row in group:
            slot = len(self.running) + len(self.reading)
            self.reading.append(row)
            row.start([0, 0])
            for side, (length, source) in enumerate(known[row]):
                if isinstance(source, int):
                    self._sides[side].copy(source, slot, length)
                else:
                    self._sides[side].load(source, slot, length)
                self._metrics.reused += length
            row.read = [prefix.length for prefix in known[row]]

    def read(self, width: int) -> int:
        """Read up to so many tokens of each prompt of the group; who has no more to read, runs.

        Returns:
            How many tokens were read on the side that read more.
        """
        cost = max(self._read_side(side, width) for side in SIDES)
        if not any(row.unread(side) for row in self.reading for side in SIDES):
            for row in self.reading:
                row.read = None
            self.running += self.reading
            self.reading = []
        return cost

    def release(self, row: Row, *, keep: bool) -> None:
        """Take a row out of its slot, which others fill; what it has seen may be kept."""
        slot, running = self.rows.index(row), len(self.running)
        if keep:
            for side in SIDES:
                self._keep(row, slot, side)
        if slot >= running:
            self._move(self.reading[-1], len(self.rows) - 1, slot)
            self.reading[slot - running] = self.reading[-1]
            self.reading.pop()
            return
        self._move(self.running[-1], running - 1, slot)
        self.running[slot] = self.running[-1]
        self.running.pop()
        if self.reading:  # they close up, the last one in front
            self._move(self.reading[-1], running + len(self.reading) - 1, running - 1)
            self.reading.insert(0, self.reading.pop())

    def reset(self) -> None:
        """Empty all slots, and free their memory."""
        self.running, self.reading = [], []
        for side, kept in zip(self._sides, self._kept, strict=True):
            kept.clear()
            side.reset()

    def _known(self, side: int, tokens: tuple[int, ...]) -> Prefix:
        """Return the longest beginning of some tokens that a side has seen."""
        best = self._kept[side].longest(tokens)
        for slot, row in enumerate(self.running):
            length = row.shares(side, tokens)
            if length > best.length:
                best = Prefix(length, slot)
        return best if best.length >= min(MIN_CACHED, len(tokens)) else NOTHING

    def _read_side(self, side: int, width: int) -> int:
        first, pieces, positions = len(self.running), [], []
        for row in self.reading:
            start = row.seen(side)
            pieces.append(row.history(side)[start : min(start + width, row.position(side))])
            positions.append(start)
        for start, stop in _alike([len(piece) for piece in pieces]):
            if any(pieces[start:stop]):
                self._sides[side].read(first + start, pieces[start:stop], positions[start:stop])
        for row, piece in zip(self.reading, pieces, strict=True):
            assert row.read is not None
            row.read[side] += len(piece)
        count = sum(map(len, pieces))
        self._metrics.prefilled += count
        return count

    def _keep(self, row: Row, slot: int, side: int) -> None:
        """Keep what a side has seen of a row; of samples only the prompt that they share."""
        text = row.history(side) if row.params.n == 1 else row.prompts[side][:-1]
        text = text[: row.seen(side)]
        kept = self._kept[side]
        if kept.budget and len(text) >= MIN_CACHED and kept.longest(text).length < len(text):
            kept.add(text, self._sides[side].save(slot, len(text)))

    def _move(self, row: Row, source: int, target: int) -> None:
        if source != target:
            for side in SIDES:
                self._sides[side].copy(source, target, row.seen(side))


def _waits(row: Row, known: Sequence[Prefix], other: Row) -> bool:
    """Tell whether a row does better to come after another one."""
    if row.prompts == other.prompts and not (row.tokens or other.tokens):
        return True
    shared = [common(row.history(side), other.history(side)) for side in SIDES]
    return any(
        now >= prefix.length + MIN_SHARED_WAIT for now, prefix in zip(shared, known, strict=True)
    )


def _alike(lengths: list[int]) -> list[tuple[int, int]]:
    """Cut into ranges in which padding to the longest at most doubles the work."""
    ranges: list[tuple[int, int]] = []
    start = 0
    for stop in range(1, len(lengths) + 1):
        following = lengths[start : stop + 1]
        if stop == len(lengths) or max(following) * len(following) > 2 * sum(following):
            ranges.append((start, stop))
            start = stop
    return ranges
