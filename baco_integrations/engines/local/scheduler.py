"""The scheduler: which sequences run, and what of the others is prefilled when.

A sequence starts with what is known of its prompt already, from one that runs or from the prefix
cache; the rest is prefilled piece by piece. A group is prefilled together, so that its sequences
begin to run together: the last piece gives the logits behind their prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
    """The sequences that have been admitted, and the prefixes of those that had been.

    Args:
        runners: The models' runners, by the sides that run.
        prefix_bytes: Most bytes of prefixes to keep.
        metrics: Where to count what is read.
        padding: Most tokens of padding in a forward: more of them take longer than another one.

    Attributes:
        running: The sequences whose prompts have been read.
        prefilling: The sequences whose prompts are being read.
        prefix_caches: The prefixes that are kept, by side.
    """

    def __init__(
        self, runners: dict[int, Runner], prefix_bytes: int, metrics: Metrics, padding: int = 12
    ) -> None:
        self.running: list[LocalSequence] = []
        self.prefilling: list[LocalSequence] = []
        self._runners, self._metrics, self._padding = runners, metrics, padding
        budget = prefix_bytes // len(runners)
        self.prefix_caches = {side: PrefixCache(each, budget) for side, each in runners.items()}

    @property
    def sequences(self) -> list[LocalSequence]:
        """All sequences, in the order in which they were admitted."""
        return [*self.running, *self.prefilling]

    def admit(self, candidates: Sequence[LocalSequence]) -> None:
        """Admit a group of sequences, which are prefilled together.

        A sequence that shares a long prefix with another one of the group is left out: it is
        better admitted after that one has been prefilled. Where this fails for a sequence, that
        sequence is the last one of `prefilling`.
        """
        unread: dict[LocalSequence, int] = {}
        for sequence in candidates:
            self.prefilling.append(sequence)
            sequence.prefilled, sequence.rows = [0, 0], [[], []]
            prefixes = {
                side: self.known_prefix(side, sequence.history(side)[:-1])
                for side in sequence.sides
            }
            if any(better_later(sequence, prefixes, other) for other in unread):
                self.prefilling.pop()
                continue
            last = max(sequence.sides)  # aligned, where it runs
            unread[sequence] = sequence.position(last) - prefixes[last].length
            for side, (length, row) in prefixes.items():
                sequence.rows[side] = self._runners[side].share(row, length)
                sequence.prefilled[side] = length
                self._metrics.reused += length
        self.prefilling.sort(key=lambda sequence: unread[sequence])

    def prefill(self, width: int) -> tuple[int, dict[int, Tensor]]:
        """Read up to so many tokens of each prompt of the group; once all are read, it runs.

        Returns:
            How many tokens were read on the side that read more, and once the group runs the logits
            behind the prompts of those whom a side reads ``(r, v)``, by side.
        """
        cost, logits = 0, dict[int, Tensor]()
        ready = all(each.unread(side) < width for each in self.prefilling for side in each.sides)
        for side, runner in self._runners.items():
            group = [sequence for sequence in self.prefilling if side in sequence.sides]
            starts = [sequence.read(side) for sequence in group]
            # Only the last piece ends with the pending token: its logits are wanted then.
            stops = [
                sequence.position(side) + 1 if ready else min(at + width, sequence.position(side))
                for sequence, at in zip(group, starts, strict=True)
            ]
            pieces = [
                sequence.history(side)[start:stop]
                for sequence, start, stop in zip(group, starts, stops, strict=True)
            ]
            rows, parts = [sequence.rows[side] for sequence in group], []
            for place in similar_lengths([len(piece) for piece in pieces], self._padding):
                if any(pieces[place]):
                    parts.append(runner.prefill(rows[place], pieces[place], starts[place]))
            count = sum(map(len, pieces)) - len(group) * ready
            self._metrics.prefilled += count
            cost = max(cost, count + len(group) * ready)
            if ready and parts:
                logits[side] = torch.cat(parts)
            for sequence, stop in zip(group, stops, strict=True):
                assert sequence.prefilled is not None
                # Were the other side's memory short now, the pending token would be read again.
                sequence.prefilled[side] = min(stop, sequence.position(side))
        if ready:
            for sequence in self.prefilling:
                sequence.prefilled = None
            self.running, self.prefilling = [*self.running, *self.prefilling], []
        return cost, logits

    def release(self, sequence: LocalSequence, *, keep: bool) -> None:
        """Let go of a sequence; its prefix may be kept."""
        for side in sequence.sides:
            if keep:
                self.keep_prefix(sequence, side)
            self._runners[side].release(sequence.rows[side])
        (self.running if sequence.prefilled is None else self.prefilling).remove(sequence)

    def reset(self) -> None:
        """Let go of all sequences and prefixes, and free their memory."""
        self.running, self.prefilling = [], []
        for side, runner in self._runners.items():
            self.prefix_caches[side].clear()
            runner.reset()

    def known_prefix(self, side: int, tokens: tuple[int, ...]) -> Prefix:
        """Return the longest prefix of some tokens that a side has read, running or kept."""
        best = self.prefix_caches[side].longest(tokens)
        for sequence in self.running:
            length = sequence.shared_length(side, tokens) if side in sequence.sides else 0
            if length > best.length:
                best = Prefix(length, sequence.rows[side])
        return best if best.length >= min(MIN_CACHED, len(tokens)) else NO_PREFIX

    def keep_prefix(self, sequence: LocalSequence, side: int) -> None:
        """Keep what a side has read of a sequence; of several samples only their prompt."""
        one = sequence.request.params.n == 1
        text = sequence.history(side) if one else sequence.request.prompts[side][:-1]
        text = text[: sequence.read(side)]
        if len(text) >= MIN_CACHED:
            self.prefix_caches[side].add(text, sequence.rows[side])

    def drop_prefixes(self) -> bool:
        """Forget the least recently used prefix of each side; return whether there was any."""
        kept = [cache for cache in self.prefix_caches.values() if cache.saved]
        for cache in kept:
            cache.drop(next(iter(cache.saved)))
        return bool(kept)


def better_later(sequence: LocalSequence, known: dict[int, Prefix], other: LocalSequence) -> bool:
    """Tell whether a sequence should wait until another one, which begins alike, is prefilled."""
    if not known.keys() <= {*other.sides}:
        return False
    prompts = sequence.request.prompts
    unread = any(prefix.length < sequence.position(side) for side, prefix in known.items())
    if unread and prompts == other.request.prompts and not (sequence.tokens or other.tokens):
        return True
    return any(
        common_length(sequence.history(side), other.history(side))
        >= prefix.length + MIN_SHARED_WAIT
        for side, prefix in known.items()
    )


def similar_lengths(lengths: list[int], padding: int) -> list[slice]:
    """Return ranges of lengths that are read together, each with at most so much padding."""
    ranges: list[slice] = []
    start = 0
    for stop in range(1, len(lengths) + 1):
        following = lengths[start : stop + 1]
        if stop == len(lengths) or max(following) * len(following) - sum(following) > padding:
            ranges.append(slice(start, stop))
            start = stop
    return ranges
