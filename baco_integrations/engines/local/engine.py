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
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...core.routing import Source
from ...models.pair import ModelPair
from ...policy.grammar_masks import GrammarMasks
from ...policy.params import ALIGNED, BASE
from ...policy.step import StepOutput, step
from ...policy.transfer import upload
from ...text.token_space import TokenSpace
from ..base import EngineRequest, EngineSettings, Mix, TokenOutput
from ..batch import deliver, masks_of, outputs_of, state_of
from ..faults import device_lost, out_of_memory
from ..worker import Worker
from .kv_cache import KVCacheFullError
from .one_model import run_one_model
from .runner import PairRunner, require_room, run_pair
from .scheduler import PREFILL_CHUNK, Scheduler
from .sequence import LocalSequence
from .shared_weights import run_shared_weights
from .speculative import ACCELERATOR_COSTS, COSTS, MAX_DRAFT, Draft, Drafter

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
        self.runners, self.mix, self.dtype = runners, mix, runner.dtype
        self.forward_both = None if only else runner.forward_both
        self.device = self.classes.content.device
        self.costs = COSTS.get(self.device.type, ACCELERATOR_COSTS)
        padding = int(1 / self.costs.query)
        self.scheduler = Scheduler(runners, settings.prefix_bytes, self.metrics, padding)
        lookahead = settings.lookahead
        # One forward for both sides is faster than drafts.
        automatic = 0 if self.forward_both is not None else MAX_DRAFT
        longest = lookahead if isinstance(lookahead, int) else automatic * (lookahead == "auto")
        read, always = partial(self.read, BASE), lookahead != "auto"
        self.drafter = Drafter(read, self.masks, self.guess, longest, always, self.costs)
        self.start()

    @property
    def sequences(self) -> Sequence[LocalSequence]:
        """All sequences that have been admitted."""
        return self.scheduler.sequences

    def make_sequence(self, request: EngineRequest) -> LocalSequence:
        """Return the sequence of a request that has come now."""
        now, sides = time.monotonic(), self.sides_of(request)
        return LocalSequence(request, self.space, now, sides=sides)

    def sides_of(self, request: EngineRequest) -> list[int]:
        """Return the sides that have to run for a request: alternatives are those of both."""
        only = None if request.router else request.params.spec.only
        if only is None or request.params.alternatives or self.mix is not None:
            return [*self.runners]
        asked = BASE if only == "base" else ALIGNED
        return [side for side in self.runners if side == asked] or [*self.runners]

    def submit(self, requests: Sequence[EngineRequest]) -> None:
        """Queue requests, all or none; errors are those of `Engine.submit`.

        Raises:
            OutOfMemoryError: A prompt is too long for `kv_bytes`, even with nothing beside it.
        """
        for request in requests:
            for side in self.sides_of(request):
                require_room(self.runners[side], len(request.prompts[side]))
        super().submit(requests)

    def iterate(self) -> None:
        """Give every running sequence a token or more; without room for all, the last one waits."""
        try:
            self.take_turn()
        except KVCacheFullError:
            for sequence in self.sequences:
                sequence.roll_back()
            if self.scheduler.drop_prefixes():
                return
            *others, last = self.sequences
            if not others:
                raise
            self.scheduler.release(last, keep=False)
            self.put_back([last])
            self.policy, self.most_rows = None, len(others)
            self.metrics.restarts += 1

    def take_turn(self) -> None:
        """Admit and prefill, forward, decide, deliver."""
        running = list(self.scheduler.running)
        joined = self.admit_and_prefill()
        if not self.scheduler.running:
            return
        draft, aligned = self.read_ahead(running) if running else (Draft([], [], [], []), [])
        self.release(self.decide(running, joined, draft, aligned))

    def remove(self, sequence: LocalSequence) -> None:
        """Let go of a sequence."""
        self.scheduler.release(sequence, keep=sequence.error is None)

    def reset(self) -> None:
        """Let go of all sequences, and free their memory."""
        for sequence in self.sequences:
            sequence.roll_back()
        self.scheduler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def dispose(self) -> None:
        """Let go of the models."""
        self.runners.clear()
        self.forward_both = None

    # -- admitting and prefilling -------------------------------------------------------------

    def admit_and_prefill(self) -> dict[int, list[Tensor]]:
        """Admit sequences and prefill their prompts, as far as running ones can bear it.

        Returns:
            Each side's logits behind the prompts of those that run from now on, ``(r, v)`` each.
        """
        scheduler, joined = self.scheduler, dict[int, list[Tensor]]({BASE: [], ALIGNED: []})
        running, waiting = len(scheduler.running), len(scheduler.prefilling) + self.waiting
        crowd = max(1, waiting / max(running, 1)) ** 2
        left = int(PREFILL_SLOWDOWN * (1 / self.costs.query + running) * crowd)
        while left > 0 and (scheduler.prefilling or self.admit_waiting(left)):
            busy, group = bool(scheduler.running), scheduler.prefilling
            share = max(left // len(group), 1)
            cost, logits = scheduler.prefill(min(share, PREFILL_CHUNK) if busy else PREFILL_CHUNK)
            left -= cost * busy
            if scheduler.prefilling:
                break
            self.policy = None
            for side, parts in joined.items():
                parts.append(self.for_all(side, group, logits.get(side)))
        return joined

    def admit_waiting(self, left: int) -> bool:
        """Admit sequences, as many as may run; return whether any was admitted.

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
        finally:  # whatever happened, who was not admitted waits on
            admitted = set(scheduler.prefilling)
            self.put_back([each for each in candidates if each not in admitted])
        self.admit(scheduler.prefilling)
        return bool(scheduler.prefilling)

    # -- forwards -----------------------------------------------------------------------------

    def read(
        self,
        side: int,
        sequences: Sequence[LocalSequence],
        drafted: Sequence[Tensor] = (),
        depth: int = 0,
    ) -> Tensor:
        """Let a side read the pending tokens of sequences and drafted ones behind them.

        Args:
            side: The side.
            sequences: The sequences.
            drafted: The drafted tokens, ``(r,)`` each.
            depth: How many tokens behind the pending one the side has read, and itself.

        Returns:
            The logits behind each token, ``(r, q, v)``.
        """
        places = [place for place, each in enumerate(sequences) if side in each.sides]
        if not places:
            return self.for_all(side, sequences, None)[:, None].expand(-1, 1 + len(drafted), -1)
        members = [sequences[place] for place in places]
        if len(places) < len(sequences):
            index = upload(places, self.device)
            drafted = [tokens[index] for tokens in drafted]
        self.metrics.forwards += 1
        self.metrics.fed += len(members)
        logits = self.runners[side].forward(
            [sequence.rows[side] for sequence in members],
            [[] if depth else [sequence.pending(side)] for sequence in members],
            [sequence.position(side) + depth for sequence in members],
            drafted,
        )
        return self.for_all(side, sequences, logits)

    def for_all(
        self, side: int, sequences: Sequence[LocalSequence], logits: Tensor | None
    ) -> Tensor:
        """Return a side's logits for all sequences: all alike for those that it does not read.

        Args:
            side: The side.
            sequences: The sequences.
            logits: Those of the ones that it reads, ``(r, ...)``; None if it reads none.
        """
        if logits is None:
            width = self.classes.base_size if side == BASE else self.classes.aligned_size
            return torch.zeros(len(sequences), width, device=self.device)
        places = [place for place, each in enumerate(sequences) if side in each.sides]
        if len(places) == len(sequences):
            return logits
        every = logits.new_zeros((len(sequences), *logits.shape[1:]))
        every[upload(places, self.device)] = logits
        return every

    def read_ahead(self, running: list[LocalSequence]) -> tuple[Draft, Sequence[Tensor]]:
        """Let both sides read the pending tokens, and what is drafted behind them.

        Returns:
            The draft, and aligned's logits behind the pending and each drafted token, ``(r, v)``
            each.
        """
        together = self.forward_both if not self.drafter.longest else None
        if together is None or any(len(each.sides) < 2 for each in running):
            draft = self.drafter.draft(running)
            return draft, self.read(ALIGNED, running, draft.tokens).unbind(1)
        self.metrics.forwards += 1
        self.metrics.fed += 2 * len(running)
        base, aligned = together(
            [each.rows for each in running],
            [(each.pending(BASE), each.pending(ALIGNED)) for each in running],
            [(each.position(BASE), each.position(ALIGNED)) for each in running],
        )
        return Draft([base], [], [], [self.masks(running)]), [aligned]

    # -- deciding -----------------------------------------------------------------------------

    def guess(self, running: list[LocalSequence], draft: Draft) -> StepOutput:
        """Take a step behind a draft with base's logits in aligned's place."""
        policy = self.policy_of(self.scheduler.running).take(range(len(running)))
        depths, logits = [len(draft.tokens)] * len(running), draft.base[-1]
        state = state_of(running, self.device, self.dtype, depths, draft.sources[-1:])
        policy = policy._replace(alternatives=0)
        return step(logits, logits, policy, state, self.classes, draft.masks[-1])

    def masks(self, sequences: Sequence[LocalSequence]) -> GrammarMasks | None:
        """Return what the grammars of some sequences allow."""
        return masks_of(sequences, len(self.classes.content), self.device)

    def decide(
        self,
        running: list[LocalSequence],
        joined: dict[int, list[Tensor]],
        draft: Draft,
        aligned: Sequence[Tensor],
    ) -> list[LocalSequence]:
        """Decide the next tokens of all sequences in one step, and hand them over.

        Of a sequence with a draft the tokens behind it are decided too, as if it were right; they
        count as far as it is.

        Args:
            running: The sequences that ran before.
            joined: Logits of those that run from now on, by side.
            draft: What base has read ahead.
            aligned: Aligned's logits behind the pending and the drafted tokens, ``(r, v)`` each.

        Returns:
            The sequences that have ended.
        """
        everyone, length = self.scheduler.running, len(draft.tokens)
        count, before = len(everyone), len(running)
        rows = [*everyone, *running * length]
        depths = [0] * count + [1 + cell // before for cell in range(before * length)]
        parts = [*draft.base[:1], *joined[BASE], *draft.base[1:]]
        base = torch.cat([self.classes.fit_base(each) for each in parts])
        parts = [*aligned[:1], *joined[ALIGNED], *aligned[1:]]
        theirs = torch.cat([self.classes.fit_aligned(each) for each in parts])
        if self.mix is not None:
            theirs = self.mix(base, theirs)
        policy = self.policy_of(everyone)
        if length:
            places = [*range(count), *[*range(before)] * length]
            policy = policy.take(places)._replace(custom=policy.custom)
        firsts = [0, *range(count, len(rows), before or 1)]
        masks = GrammarMasks.join(
            [(before, self.masks(everyone[before:])), *zip(firsts, draft.masks, strict=False)]
        )
        state = state_of(rows, self.device, self.dtype, depths, draft.sources)
        output = step(base, theirs, policy, state, self.classes, masks)
        self.metrics.take_step(count)
        tokens, guesses = outputs_of(output, *draft.tokens, *draft.sources)
        ended, going = self.hand_over(everyone, tokens[:count]), [*range(before)]
        behind = [tokens[first : first + before] for first in firsts]
        for depth in range(length):
            drafted = [*zip(guesses[depth], guesses[length + depth], strict=True)]
            going = [
                place
                for place in going
                if self.is_right(running[place], behind[depth][place], *drafted[place])
            ]
            ended += self.hand_over(
                [running[place] for place in going], [behind[depth + 1][place] for place in going]
            )
        return ended

    def hand_over(
        self, sequences: Sequence[LocalSequence], tokens: Sequence[TokenOutput | None]
    ) -> list[LocalSequence]:
        """Hand tokens to their sequences; return those that have ended."""
        known = [
            token and sequence.known(token)
            for sequence, token in zip(sequences, tokens, strict=True)
        ]
        return deliver(sequences, known, self.metrics)

    def is_right(
        self, sequence: LocalSequence, token: TokenOutput | None, guess: float, source: float
    ) -> bool:
        """Tell whether a sequence's draft is right so far, and goes on; take note of it.

        Args:
            sequence: The sequence.
            token: What has been decided.
            guess: The token that was drafted in its place.
            source: Who was expected to give it.
        """
        if not sequence.is_draftable or token is None:
            return False
        # The rest was decided as if the source had been right, too.
        right = (token.token, token.source) == (guess, source)
        if source == ALIGNED:
            sequence.acceptance.learn(sequence.acceptance.chance(token.p_max), right)
        self.metrics.drafted += 1
        self.metrics.accepted += right
        return right and not sequence.finished


RUN = {"two-models": run_pair, "adapter": run_shared_weights, "one-model": run_one_model}
"""What makes the runners of a pair, by its kind."""


def open_local(pair: ModelPair, settings: EngineSettings, **options: Any) -> LocalEngine:
    """Open the engine of a pair; options are ``only`` and ``mix`` of `LocalEngine`."""
    runner = RUN[pair.kind](pair.base, pair.aligned, pair.context, settings)
    return LocalEngine(runner, pair.token_space, pair.context, settings, **options)
