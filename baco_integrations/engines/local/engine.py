"""The local engine: two models in this process, and the one loop that runs them.

Each iteration admits sequences, prefills no more of their prompts than running sequences can bear,
lets both models read every running sequence's pending token, takes one `step`, and puts the tokens
into the requests' sinks. With speculative decoding, base goes on from tokens that it drafts,
aligned reads all of them in one forward, and the same `step` decides them one by one, as far as the
draft was right.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.routing import Source
from ...models.pair import ModelPair
from ...policy.grammar_masks import GrammarMasks
from ...policy.params import ALIGNED, BASE
from ...policy.step import StepOutput, step
from ...text.token_space import TokenSpace
from ..base import EngineRequest, EngineSettings, Mix
from ..batch import deliver, masks_of, state_of
from ..faults import device_lost, out_of_memory
from ..worker import Worker
from .runner import PairRunner, run_pair
from .scheduler import PREFILL_CHUNK, Scheduler
from .sequence import LocalSequence
from .shared_weights import run_shared_weights
from .speculative import ACCELERATOR_ROW_COST, MAX_DRAFT, ROW_COST, Draft, is_worthwhile

PREFILL_SLOWDOWN = 2
"""While prompts are prefilled, running sequences take at most so many times as long; and much
longer, by the square of the ratio, where more sequences wait than run."""

MIN_CHUNK = 8
"""Fewer tokens of a prompt at a time are not worth a forward."""


class LocalEngine(Worker[LocalSequence]):
    """Two models, one step, and the thread that runs them.

    Args:
        runner: The models.
        space: The ids that the pair emits.
        context: Context windows of base and aligned, in tokens.
        settings: How the engine is opened.
        only: The one side that runs; the other one's logits are all alike.
        mix: What replaces aligned's logits.
    """

    def __init__(
        self,
        runner: PairRunner,
        space: TokenSpace,
        context: tuple[int, int],
        settings: EngineSettings,
        *,
        only: Source | None = None,
        mix: Mix | None = None,
    ) -> None:
        super().__init__(space, context, settings, runner.device)
        runners = {BASE: runner.base, ALIGNED: runner.aligned}
        if only is not None:
            side = BASE if only == "base" else ALIGNED
            runners = {side: runners[side]}
        self.runners, self.mix = runners, mix
        self.forward_both = None if only else runner.forward_both
        self.scheduler = Scheduler(runners, settings.prefix_bytes, self.metrics)
        lookahead = settings.lookahead
        self.always_drafts = lookahead != "auto"
        # One forward for both sides is faster than drafts.
        automatic = 0 if self.forward_both is not None else MAX_DRAFT
        lengths = {"auto": automatic, "off": 0}
        self.max_draft = lookahead if isinstance(lookahead, int) else lengths[lookahead]
        self.row_cost = ROW_COST.get(self.classes.content.device.type, ACCELERATOR_ROW_COST)
        self.start()

    @property
    def sequences(self) -> Sequence[LocalSequence]:
        """All sequences that have a slot."""
        return self.scheduler.sequences

    def make_sequence(self, request: EngineRequest) -> LocalSequence:
        """Return the sequence of a request that has come now."""
        return LocalSequence(request, self.space, time.monotonic())

    def iterate(self) -> None:
        """Admit and prefill, forward, decide, deliver."""
        self.admit_and_prefill()
        running = self.scheduler.running
        if not running:
            return
        masks = self.masks(running)
        if self.forward_both is not None and not self.max_draft:
            base, aligned = self.forward_pending()
            draft = Draft([base], [], [])
        else:
            draft = self.draft(masks)
            aligned = self.forward(ALIGNED, [self.pending(ALIGNED), *draft.tokens])
        self.release(self.decide(draft, aligned, masks))

    def remove(self, sequence: LocalSequence) -> None:
        """Take a sequence out of its slot."""
        self.scheduler.release(sequence, keep=sequence.error is None)

    def reset(self) -> None:
        """Empty all slots, and free their memory."""
        for sequence in self.sequences:
            roll_back(sequence)
        self.scheduler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def dispose(self) -> None:
        """Let go of the models."""
        self.runners.clear()
        self.forward_both = None

    # -- admitting and prefilling -------------------------------------------------------------

    def admit_and_prefill(self) -> None:
        """Admit sequences and prefill their prompts, as far as running ones can bear it."""
        scheduler = self.scheduler
        running, waiting = len(scheduler.running), len(scheduler.prefilling) + self.waiting
        crowd = max(1, waiting / max(running, 1)) ** 2
        left = int(PREFILL_SLOWDOWN * (1 / self.row_cost + running) * crowd)
        while left > 0 and (scheduler.prefilling or self.admit_waiting(left)):
            busy = bool(scheduler.running)
            share = max(left // len(scheduler.prefilling), 1)
            cost = scheduler.prefill(min(share, PREFILL_CHUNK) if busy else PREFILL_CHUNK)
            left -= cost * busy
            if scheduler.prefilling:
                return
            self.policy = None

    def admit_waiting(self, left: int) -> bool:
        """Admit sequences, as many as there are slots for; return whether any was admitted.

        Args:
            left: How many tokens of prompts may be read now.
        """
        scheduler = self.scheduler
        room = self.most_rows - len(scheduler.running)
        if scheduler.running:
            room = min(room, max(left // MIN_CHUNK, 1))
        candidates = self.take_waiting(room)
        try:
            scheduler.admit(candidates)
        except BaseException as error:
            if out_of_memory(error) or device_lost(error):
                raise
            sequence = scheduler.prefilling[-1]
            sequence.fail(error)
            self.release([sequence])
            candidates.remove(sequence)
        finally:  # whatever happened, who has no slot waits on
            admitted = set(scheduler.prefilling)
            self.put_back([each for each in candidates if each not in admitted])
        self.admit(scheduler.prefilling)
        return bool(scheduler.prefilling)

    # -- forwards -----------------------------------------------------------------------------

    def pending(self, side: int) -> list[int]:
        """Return the token of each running sequence that a side reads next."""
        return [sequence.pending(side) for sequence in self.scheduler.running]

    def forward(self, side: int, columns: list[list[int]], depth: int = 0) -> Tensor:
        """Let a side read tokens of all running sequences.

        Args:
            side: The side.
            columns: The tokens, one list over the sequences for each position.
            depth: How many drafted tokens the side has read behind the pending one, and itself.

        Returns:
            The logits behind each token, ``(r, q, v)``.
        """
        running = self.scheduler.running
        tokens = [list(row) for row in zip(*columns, strict=True)]
        self.metrics.forwards += 1
        self.metrics.fed += len(tokens)
        if side not in self.runners:
            size = self.classes.base_size if side == BASE else self.classes.aligned_size
            device = self.classes.content.device
            return torch.zeros(len(tokens), len(columns), size, device=device)
        positions = [sequence.position(side) + depth for sequence in running]
        return self.runners[side].forward(tokens, positions)

    def forward_pending(self) -> tuple[Tensor, Tensor]:
        """Let both sides read the pending tokens in one forward.

        Returns:
            Logits of base ``(r, v)`` and of aligned ``(r, 1, v)``.
        """
        assert self.forward_both is not None
        running = self.scheduler.running
        self.metrics.forwards += 1
        self.metrics.fed += 2 * len(running)
        base, aligned = self.forward_both(
            [(each.pending(BASE), each.pending(ALIGNED)) for each in running],
            [(each.position(BASE), each.position(ALIGNED)) for each in running],
        )
        return base, aligned[:, None]

    # -- drafting -----------------------------------------------------------------------------

    def draft(self, masks: GrammarMasks | None) -> Draft:
        """Let base read the pending tokens, and draft further ones as long as that saves time."""
        running = self.scheduler.running
        draft = Draft([self.forward(BASE, [self.pending(BASE)])[:, 0]], [], [])
        requests = [sequence.request for sequence in running]
        left = [r.limit - s.decoded - 1 for r, s in zip(requests, running, strict=True)]
        room = [r.room - s.decoded - 1 for r, s in zip(requests, running, strict=True)]
        longest = min(self.max_draft, max(left), *room)
        if longest <= 0:
            return draft
        policy = self.policy_of(running).take(range(len(running)))._replace(alternatives=0)
        # A user's router is asked only once for each token.
        chances = [float(request.router is None) for request in requests]
        owners = [sequence.owner for sequence in running]
        while (depth := len(draft.tokens)) < longest:
            logits = draft.base[-1]
            state = state_of(running, owners, depth, logits.device)
            guess = step(logits, logits, policy, state, self.classes, masks)
            owners = guess.source.tolist()
            chances = self.extend(draft, guess, chances)
            if len(draft.tokens) == depth:
                break
            masks = self.masks(running)
            draft.base.append(self.forward(BASE, draft.tokens[-1:], depth + 1)[:, 0])
        for sequence in running:
            roll_back(sequence)
        return draft

    def extend(self, draft: Draft, guess: StepOutput, chances: list[float]) -> list[float]:
        """Draft another token for every sequence if that saves time.

        Args:
            draft: What has been drafted so far.
            guess: What the step says with base in aligned's place.
            chances: Of each sequence, the chance that its whole draft is right.

        Returns:
            The chances, with this token.
        """
        running, depth = self.scheduler.running, len(draft.tokens)
        tokens = guess.token.tolist()
        own = [
            sequence.acceptance.chance(p_max) if source == ALIGNED else None
            for sequence, source, p_max in zip(
                running, guess.source.tolist(), guess.p_max.tolist(), strict=True
            )
        ]
        chances = [
            chance
            * (1.0 if new is None else new)
            * (token >= 0)
            # Behind a sequence's last token there is nothing to draft.
            * (sequence.decoded + depth + 1 < sequence.request.limit)
            for sequence, chance, new, token in zip(running, chances, own, tokens, strict=True)
        ]
        if not any(chances) or not (self.always_drafts or is_worthwhile(chances, self.row_cost)):
            return chances
        draft.tokens.append([max(token, 0) for token in tokens])
        draft.chances.append(own)
        for place, (sequence, token) in enumerate(zip(running, tokens, strict=True)):
            if token in sequence.request.end:
                chances[place] = 0.0
            elif sequence.request.matcher and chances[place]:
                with sequence.keeping_errors():
                    sequence.request.matcher.guess(token)
        return chances

    # -- deciding -----------------------------------------------------------------------------

    def masks(self, sequences: Sequence[LocalSequence]) -> GrammarMasks | None:
        """Return what the grammars of some sequences allow."""
        content = self.classes.content
        return masks_of(sequences, len(content), content.device)

    def decide(
        self, draft: Draft, aligned: Tensor, masks: GrammarMasks | None
    ) -> list[LocalSequence]:
        """Decide the next tokens, of each sequence as long as its draft is right.

        Args:
            draft: What base has read ahead.
            aligned: Aligned's logits behind the pending and the drafted tokens, ``(r, q, v)``.
            masks: What the grammars allow for the first of them.

        Returns:
            The sequences that have ended.
        """
        running = list(self.scheduler.running)
        places, policy = list(range(len(running))), self.policy_of(running)
        rows: slice | list[int] = slice(None)  # all of them, without a copy
        ended: list[LocalSequence] = []
        self.metrics.take_step(len(running))
        for depth, base in enumerate(draft.base):
            if depth:
                places = self.accepted(draft, depth - 1, places)
                if not places:
                    break
                rows, masks = places, self.masks([running[place] for place in places])
                policy = self.policy_of(running).take(places)
            sequences = [running[place] for place in places]
            ours, theirs = base[rows], aligned[rows, depth]
            if self.mix is not None:
                theirs = self.mix(ours, theirs)
            owners = [sequence.owner for sequence in sequences]
            state = state_of(sequences, owners, 0, ours.device)
            output = step(ours, theirs, policy, state, self.classes, masks)
            ended += deliver(sequences, output, self.metrics)
        return ended

    def accepted(self, draft: Draft, depth: int, places: list[int]) -> list[int]:
        """Return the places whose last token is the drafted one, and that have not ended.

        Metrics and the sequences' estimates of acceptance take note of all `places`.
        """
        right = []
        for place in places:
            sequence = self.scheduler.running[place]
            chance = draft.chances[depth][place]
            hit = (
                sequence.request.router is None
                and sequence.pending(BASE) == draft.tokens[depth][place]
            )
            if chance is not None:
                sequence.acceptance.learn(chance, hit)
            self.metrics.drafted += 1
            self.metrics.accepted += hit
            if hit and not sequence.finished:
                right.append(place)
        return right


def roll_back(sequence: LocalSequence) -> None:
    """Let a sequence's matcher go back to the last token that was decided."""
    if sequence.request.matcher:
        with sequence.keeping_errors():
            sequence.request.matcher.roll_back()


def open_local(pair: ModelPair, settings: EngineSettings, **options: Any) -> LocalEngine:
    """Open the engine of a pair; options are ``only`` and ``mix`` of `LocalEngine`."""
    run = run_shared_weights if pair.lora else run_pair
    runner = run(pair.base, pair.aligned, pair.context, settings)
    return LocalEngine(runner, pair.token_space, pair.context, settings, **options)
