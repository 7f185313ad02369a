"""The scheduler: which sequence lives in which slot, and what is prefilled when.

Running sequences fill the first slots, the group that is being prefilled the next ones. A sequence
starts with what is known of its prompt already, from one that runs or from the prefix cache; the
rest is prefilled piece by piece. A group is prefilled together, so that its sequences begin to run
together.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import Metrics
from .prefix_cache import NO_PREFIX, Prefix, PrefixCache, common_length
from .runner import Runner
from .sequence import LocalSequence

PREFILL_CHUNK = 512
"""Most positions of a prompt that one forward takes, which bounds the memory that it needs."""

MIN_CACHED = 16
"""Fewer tokens than these are read again as quickly as they are copied."""

MIN_SHARED_WAIT = 64
"""A sequence waits for another one that is about to read so many tokens for both."""


class Scheduler:
    """The sequences that have a slot, and the prefixes of those that had one.

    Args:
        runners: The models' runners, by the sides that run.
        prefix_bytes: Most bytes of prefixes to keep.
        metrics: Where to count what is read.

    Attributes:
        running: The sequences of slots ``0 ..``.
        prefilling: The sequences of the slots behind these.
        prefix_caches: The prefixes that are kept, by side.
    """

    def __init__(self, runners: dict[int, Runner], prefix_bytes: int, metrics: Metrics) -> None:
        self.running: list[LocalSequence] = []
        self.prefilling: list[LocalSequence] = []
        self._runners, self._metrics = runners, metrics
        self.prefix_caches = {side: PrefixCache(prefix_bytes // len(runners)) for side in runners}

    @property
    def sequences(self) -> list[LocalSequence]:
        """All sequences in the order of their slots."""
        return [*self.running, *self.prefilling]

    def admit(self, candidates: Sequence[LocalSequence]) -> None:
        """Give slots to a group of sequences, which are prefilled together.

        A sequence that shares a long prefix with another one of the group is left out: it is
        better admitted after that one has been prefilled. Where this fails for a sequence, that
        sequence is the last one of `prefilling`.
        """
        group: dict[LocalSequence, dict[int, Prefix]] = {}
        unread: dict[LocalSequence, int] = {}
        for sequence in candidates:
            self.prefilling.append(sequence)
            known = {
                side: self.known_prefix(side, sequence.history(side)[:-1]) for side in self._runners
            }
            if not any(better_later(sequence, known, other) for other in group):
                group[sequence] = known
                last = max(known)  # aligned, where it runs
                unread[sequence] = sequence.position(last) - known[last].length
            self.prefilling.pop()
        for sequence in sorted(group, key=lambda each: unread[each]):
            slot = len(self.running) + len(self.prefilling)
            self.prefilling.append(sequence)
            sequence.prefilled = [0, 0]
            for side, (length, source) in group[sequence].items():
                if isinstance(source, int):
                    self._runners[side].copy(source, slot, length)
                else:
                    self._runners[side].load(source, slot, length)
                self._metrics.reused += length
            for side, prefix in group[sequence].items():
                sequence.prefilled[side] = prefix.length

    def prefill(self, width: int) -> int:
        """Read up to so many tokens of each prompt of the group; once all are read, it runs.

        Returns:
            How many tokens were read on the side that read more.
        """
        group, first, cost = self.prefilling, len(self.running), 0
        for side, runner in self._runners.items():
            positions = [sequence.read(side) for sequence in group]
            pieces = [
                sequence.history(side)[start : min(start + width, sequence.position(side))]
                for sequence, start in zip(group, positions, strict=True)
            ]
            for start, stop in similar_lengths([len(piece) for piece in pieces]):
                if any(pieces[start:stop]):
                    runner.prefill(first + start, pieces[start:stop], positions[start:stop])
            for sequence, piece in zip(group, pieces, strict=True):
                assert sequence.prefilled is not None
                sequence.prefilled[side] += len(piece)
            count = sum(map(len, pieces))
            self._metrics.prefilled += count
            cost = max(cost, count)
        if not any(sequence.unread(side) for sequence in group for side in self._runners):
            for sequence in group:
                sequence.prefilled = None
            self.running += group
            self.prefilling = []
        return cost

    def release(self, sequence: LocalSequence, *, keep: bool) -> None:
        """Take a sequence out of its slot, which others fill; its prefix may be kept.

        Where this fails, it still counts as one of `sequences`.
        """
        slot, running = self.sequences.index(sequence), len(self.running)
        for side in self._runners if keep else ():
            self.keep_prefix(sequence, slot, side)
        if slot >= running:
            self.move(self.prefilling[-1], len(self.sequences) - 1, slot)
            self.prefilling[slot - running] = self.prefilling[-1]
            self.prefilling.pop()
            return
        self.move(self.running[-1], running - 1, slot)
        if self.prefilling:  # they close up, the last one in front
            self.move(self.prefilling[-1], running + len(self.prefilling) - 1, running - 1)
            self.prefilling.insert(0, self.prefilling.pop())
        self.running[slot] = self.running[-1]
        self.running.pop()

    def move(self, sequence: LocalSequence, source: int, target: int) -> None:
        """Copy what has been read of a sequence from one slot to another."""
        for side, runner in self._runners.items() if source != target else ():
            runner.copy(source, target, sequence.read(side))

    def reset(self) -> None:
        """Empty all slots, and free their memory."""
        self.running, self.prefilling = [], []
        for side, runner in self._runners.items():
            self.prefix_caches[side].clear()
            runner.reset()

    def known_prefix(self, side: int, tokens: tuple[int, ...]) -> Prefix:
        """Return the longest prefix of some tokens that a side has read, running or kept."""
        best = self.prefix_caches[side].longest(tokens)
        for slot, sequence in enumerate(self.running):
            length = sequence.shared_length(side, tokens)
            if length > best.length:
                best = Prefix(length, slot)
        return best if best.length >= min(MIN_CACHED, len(tokens)) else NO_PREFIX

    def keep_prefix(self, sequence: LocalSequence, slot: int, side: int) -> None:
        """Keep what a side has read of a sequence; of several samples only their prompt."""
        one = sequence.request.params.n == 1
        text = sequence.history(side) if one else sequence.request.prompts[side][:-1]
        text = text[: sequence.read(side)]
        cache = self.prefix_caches[side]
        if cache.budget and len(text) >= MIN_CACHED and cache.longest(text).length < len(text):
            cache.add(text, self._runners[side].save(slot, len(text)))


def better_later(sequence: LocalSequence, known: dict[int, Prefix], other: LocalSequence) -> bool:
    """Tell whether a sequence should wait until another one, which begins alike, is prefilled."""
    prompts = sequence.request.prompts
    if prompts == other.request.prompts and not (sequence.tokens or other.tokens):
        return True
    return any(
        common_length(sequence.history(side), other.history(side))
        >= prefix.length + MIN_SHARED_WAIT
        for side, prefix in known.items()
    )


def similar_lengths(lengths: list[int]) -> list[tuple[int, int]]:
    """Return ranges (start, stop) of lengths; padding to the longest at most doubles their sum."""
    ranges: list[tuple[int, int]] = []
    start = 0
    for stop in range(1, len(lengths) + 1):
        following = lengths[start : stop + 1]
        if stop == len(lengths) or max(following) * len(following) > 2 * sum(following):
            ranges.append((start, stop))
            start = stop
    return ranges
