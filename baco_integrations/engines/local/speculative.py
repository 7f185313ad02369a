"""Speculative decoding: base drafts tokens where that saves time, aligned checks them at once.

A draft is the step itself with base's logits in aligned's place. It is right wherever base gives
the token, and wherever aligned agrees under the same uniform. What was drafted wrong is decided
again, so nothing in here touches the output; only the time depends on it. All numbers come from
the sequences themselves, not from clocks, so that the same batch takes the same course again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...policy.grammar_masks import GrammarMasks
from ...policy.params import ALIGNED
from ...policy.step import StepOutput
from ...policy.transfer import download

if TYPE_CHECKING:
    from .sequence import LocalSequence

MAX_DRAFT = 8
"""Most tokens in a draft: hardly ever are more of them all right."""

PATIENCE = 8
"""After so many turns in a row in which a row's draft was not worthwhile, some are not tried."""

MAX_PAUSE = 32
"""Most turns between two tries."""


class Costs(NamedTuple):
    """What adds to a forward's time, in forwards of one short row.

    Attributes:
        query: Another row, or another token of a row.
        context: Each position that it attends to.
        looks: After how many drafted tokens the host looks whether to go on: each time it waits for
            the device. None where that costs nothing.
    """

    query: float
    context: float
    looks: frozenset[int] | None = None


COSTS = {"cpu": Costs(0.08, 5e-5)}
"""What was measured, by type of device."""

ACCELERATOR_COSTS = Costs(0.005, 1e-5, frozenset({0, 3}))
"""The same on all other devices: there a forward takes as long as reading the weights."""


class Draft(NamedTuple):
    """What base has read ahead of what is decided.

    Attributes:
        base: Base's logits behind the pending token and behind each drafted one, ``(r, v)`` each.
        tokens: The tokens drafted behind the pending one, ``(r,)`` each.
        sources: Who is expected to give each of them, likewise.
        masks: What the grammars allow in place of each of them, and behind the last one.
    """

    base: list[Tensor]
    tokens: list[Tensor]
    sources: list[Tensor]
    masks: list[GrammarMasks | None]


class AcceptanceEstimate:
    """How often drafted tokens that aligned has to agree with are right, for one sequence.

    Aligned mostly agrees with base as often as base is sure of itself; how much more or less often
    depends on the pair, the text and gamma.

    Attributes:
        pause: For how many turns nothing is drafted.
    """

    def __init__(self) -> None:
        self._expected = self._accepted = 4.0  # as if so many had been as expected before
        self._refused, self.pause = 0, 0

    def chance(self, p_max: float) -> float:
        """Return the chance that aligned agrees where base's highest probability is `p_max`."""
        return min(p_max * self._accepted / self._expected, 1.0)

    def learn(self, chance: float, accepted: bool) -> None:
        """Take in whether a drafted token that had such a chance was accepted."""
        self._expected += chance
        self._accepted += accepted

    def tried(self, worthwhile: bool, rows: int) -> None:
        """Take in whether a draft of so many rows was worthwhile: to find out takes time, too."""
        self._refused = 0 if worthwhile else self._refused + 1
        self.pause = min(max(self._refused * rows - PATIENCE, 0), MAX_PAUSE)


def is_worthwhile(chances: Sequence[float], contexts: Iterable[int], costs: Costs) -> bool:
    """Tell whether another drafted token for all rows takes less time than it saves.

    It costs a forward of base, and another position in aligned's; each token it brings saves a
    row's share of an iteration with two forwards.

    Args:
        chances: Of every row, that its whole draft with this token is right.
        contexts: How many tokens each row has read.
        costs: What adds to a forward's time.
    """
    wider = sum(costs.query + costs.context * context for context in contexts)
    return sum(chances) > len(chances) * (1 + wider / (1 + wider)) / 2


class Drafter:
    """Drafts tokens of running sequences.

    Args:
        read: Lets base read the pending token of sequences, and behind it drafted ones.
        masks: Says what the grammars of sequences allow.
        guess: Takes a step behind a draft with base's logits in aligned's place.
        longest: Most tokens in a draft.
        always: Whether to draft even where it saves no time.
        costs: What adds to a forward's time.
    """

    def __init__(
        self,
        read: Callable[..., Tensor],
        masks: Callable[[Sequence[LocalSequence]], GrammarMasks | None],
        guess: Callable[[list[LocalSequence], Draft], StepOutput],
        longest: int,
        always: bool,
        costs: Costs,
    ) -> None:
        self.longest = longest
        self._read, self._masks, self._guess = read, masks, guess
        self._always, self._costs = always, costs

    def draft(self, running: list[LocalSequence]) -> Draft:
        """Let base read the pending tokens, and draft further ones as long as that saves time."""
        masks = self._masks(running)
        draft = Draft([self._read(running)[:, 0]], [], [], [masks])
        chances = [float(sequence.is_draftable) for sequence in running]
        longest = self.room(running) if any(chances) and not self.pauses(running) else 0
        looks, unseen = self._costs.looks, list[StepOutput]()
        while (depth := len(draft.tokens)) < longest:
            guess = self._guess(running, draft)
            unseen.append(guess)
            if looks is None or depth in looks or masks is not None:
                chances = look(running, unseen, chances, depth)
                if not self.goes_on(running, chances, depth):
                    break
                unseen = []
            draft.tokens.append(guess.token)
            draft.sources.append(guess.source)
            draft.masks.append(None if masks is None else self._masks(running))
            draft.base.append(self._read(running, draft.tokens[-1:], depth + 1)[:, 0])
        for sequence in running:
            sequence.roll_back()
        return draft

    def room(self, running: list[LocalSequence]) -> int:
        """Return how many tokens may be drafted: none beyond a sequence's context window."""
        rooms = [each.request.room - each.decoded - 1 for each in running]
        limits = [each.request.limit - each.decoded - 1 for each in running]
        return min(self.longest, *rooms, max(limits))

    def pauses(self, running: list[LocalSequence]) -> bool:
        """Tell whether nothing is drafted this turn, as it has not been worthwhile lately."""
        pauses = [sequence.acceptance.pause for sequence in running]
        for sequence in running:
            sequence.acceptance.pause -= sequence.acceptance.pause > 0
        return not self._always and any(pauses)

    def goes_on(self, running: list[LocalSequence], chances: list[float], depth: int) -> bool:
        """Tell whether the tokens that were guessed last are drafted.

        Args:
            running: The sequences.
            chances: Of each, that its whole draft with these tokens is right.
            depth: How many tokens there are before the last of them.
        """
        contexts = [sequence.position(ALIGNED) for sequence in running]
        worthwhile = any(chances) and (
            self._always or is_worthwhile(chances, contexts, self._costs)
        )
        if depth == 0:
            for sequence in running:
                sequence.acceptance.tried(worthwhile, len(running))
        return worthwhile


def look(
    running: list[LocalSequence], unseen: list[StepOutput], chances: list[float], depth: int
) -> list[float]:
    """Return the chance that each sequence's draft is right, with the tokens guessed last.

    Their matchers take the last of them.

    Args:
        running: The sequences.
        unseen: What was guessed since the last time.
        chances: What the chances were then.
        depth: How many tokens there are before the last guess.
    """
    names = (*zip(*((each.token, each.source, each.p_max) for each in unseen), strict=True),)
    tokens, sources, peaks = (each.tolist() for each in download(*map(torch.stack, names)))
    found = []
    for place, (sequence, chance) in enumerate(zip(running, chances, strict=True)):
        for number in range(len(unseen)):
            token, request = int(tokens[number][place]), sequence.request
            decoded = sequence.decoded + depth + 1 - (len(unseen) - 1 - number)
            # Behind a sequence's last token there is nothing to draft.
            if token < 0 or token in request.end or decoded >= request.limit:
                chance = 0.0
            elif sources[number][place] == ALIGNED:
                chance *= sequence.acceptance.chance(peaks[number][place])
        if sequence.request.matcher and chance:
            with sequence.keeping_errors():
                sequence.request.matcher.guess(token)
        found.append(chance)
    return found
