"""One step for a batch of rows: both sides' logits in, one token per row out.

This is the only place where a token is decided. It is a pure function, vectorised over rows: no
row reads another's numbers, and the only chance in it is the uniforms that come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.params import SamplingParams
from .grammar_masks import GrammarMasks
from .routers import GuardedRouter, RouteInputs, compile_route, content_hit, statistics
from .sampling import Sampling, sample
from .signals import Signals
from .token_classes import ALLOW_LINES, BAN_LINES, BAN_NOTHING, FIRST_OPENER, TokenClasses

BASE, ALIGNED, NOBODY = 0, 1, 2
"""Sources and owners; nobody owns the word before the first token."""

WORD_MASS = 1e-3
"""Least probability that a side must give to word-starting tokens to take over."""


class PolicyParams(NamedTuple):
    """Settings of ``r`` rows, fixed while they run.

    Attributes:
        ban: ``(r,)`` which row of `TokenClasses.bans` holds for base.
        content: ``(r,)`` content bits that go to aligned.
        content_from_aligned: ``(r,)`` bool, the content rule reads aligned's top-1 token.
        statistic: ``(r,)`` which statistic the logit rule compares.
        limit: ``(r,)`` base speaks where the statistic is below it.
        only_base: ``(r,)`` bool, the degenerate router ``base``.
        first_aligned: ``(r,)`` bool, aligned gives the first token.
        boundary: ``(r,)`` bool, sides switch only where a word starts.
        sampling: The settings of each side, ``(2, r)`` each.
        filters: Whether any row uses top-k, top-p or min-p.
        alternatives: The largest number of alternatives that any row asks for.
        gamma: ``(r,)``.
        custom: Routers of the users' own, each with the rows ``(k,)`` it routes.
    """

    ban: Tensor
    content: Tensor
    content_from_aligned: Tensor
    statistic: Tensor
    limit: Tensor
    only_base: Tensor
    first_aligned: Tensor
    boundary: Tensor
    sampling: Sampling
    filters: bool
    alternatives: int
    gamma: Tensor
    custom: tuple[tuple[GuardedRouter, Tensor], ...]

    @classmethod
    def build(
        cls,
        params: list[SamplingParams],
        guards: list[GuardedRouter | None],
        device: torch.device | str = "cpu",
    ) -> PolicyParams:
        """Compile the rows' parameters; a guard stands where a row has a router of its own."""
        gammas = [p.effective_gamma for p in params]
        routes = [compile_route(p.spec, gamma) for p, gamma in zip(params, gammas, strict=True)]
        sides = [[p.side("base") for p in params], [p.side("aligned") for p in params]]

        def tensor(values: list[object], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        def setting(name: str, dtype: torch.dtype) -> Tensor:
            return tensor([[getattr(row, name) for row in side] for side in sides], dtype)

        return cls(
            ban=tensor(
                [_ban(p, route.only_base) for p, route in zip(params, routes, strict=True)],
                torch.long,
            ),
            content=tensor([route.content for route in routes], torch.long),
            content_from_aligned=tensor([p.signal_model == "aligned" for p in params], torch.bool),
            statistic=tensor([route.statistic for route in routes], torch.long),
            limit=tensor([route.limit for route in routes], torch.float64),
            only_base=tensor([route.only_base for route in routes], torch.bool),
            first_aligned=tensor([p.first == "aligned" for p in params], torch.bool),
            boundary=tensor([p.boundary for p in params], torch.bool),
            sampling=Sampling(
                setting("temperature", torch.float64),
                setting("top_k", torch.long),
                setting("top_p", torch.float64),
                setting("min_p", torch.float64),
            ),
            filters=any(s.top_k or s.min_p or s.top_p != 1 for side in sides for s in side),
            alternatives=max(p.alternatives for p in params),
            gamma=tensor(list(gammas), torch.float64),
            custom=_grouped(guards, device),
        )

    def take(self, places: Sequence[int]) -> PolicyParams:
        """Return the settings of some rows, none of which has a router of its own."""
        chosen = torch.tensor(places, device=self.ban.device)
        each = {name: getattr(self, name)[chosen] for name in _PER_ROW}
        sampling = Sampling(*(pair[:, chosen] for pair in self.sampling))
        return self._replace(**each, sampling=sampling, custom=())


_PER_ROW = (
    *("ban", "content", "content_from_aligned", "statistic", "limit"),
    *("only_base", "first_aligned", "boundary", "gamma"),
)


def _ban(params: SamplingParams, only_base: bool) -> int:
    if only_base:
        return BAN_NOTHING
    return BAN_LINES if params.line_breaks == "aligned" else ALLOW_LINES


def _grouped(
    guards: list[GuardedRouter | None], device: torch.device | str
) -> tuple[tuple[GuardedRouter, Tensor], ...]:
    groups: dict[GuardedRouter, list[int]] = {}
    for row, guard in enumerate(guards):
        if guard is not None:
            groups.setdefault(guard, []).append(row)
    return tuple((guard, torch.tensor(rows, device=device)) for guard, rows in groups.items())


class State(NamedTuple):
    """What changes from token to token, ``(r,)`` each but the last.

    Attributes:
        owner: Source of the previous token, or `NOBODY`.
        position: Tokens decoded so far.
        u_token: Uniform for the token.
        u_route: Uniform for the router.
        decoded: The ids decoded so far, row by row, for routers of the users' own.
    """

    owner: Tensor
    position: Tensor
    u_token: Tensor
    u_route: Tensor
    decoded: Sequence[Sequence[int]] = ()


class StepOutput(NamedTuple):
    """What a step decided, ``(r,)`` each.

    ``token`` is -1 where nothing that a grammar allows has any probability. ``sound`` is false
    where a side's logits are not finite, so that nothing about the row holds. Alternatives are ids
    and probabilities, ``(2, r, k)`` each.
    """

    token: Tensor
    source: Tensor
    p_base: Tensor
    p_aligned: Tensor
    p_max: Tensor
    entropy: Tensor
    sound: Tensor
    alternatives: tuple[Tensor, Tensor] | None


class Emittable(NamedTuple):
    """What each side may emit, ``(r, v)`` each; what it may not is minus infinity or true.

    Attributes:
        base: Base's logits.
        aligned: Aligned's logits.
        barred: Tokens that are not base's to emit.
        base_unreserved: Base's logits with the reserved characters: it may want to close a string.
        structure: ``(r,)`` bool, the token is structure, or aligned's top-1 token opens it.
        running: ``(r,)`` bool, a word may be running that its owner has to finish.
    """

    base: Tensor
    aligned: Tensor
    barred: Tensor
    base_unreserved: Tensor
    structure: Tensor
    running: Tensor


def step(
    base: Tensor,
    aligned: Tensor,
    rows: PolicyParams,
    state: State,
    classes: TokenClasses,
    limits: GrammarMasks | None = None,
) -> StepOutput:
    """Decide one token per row.

    Args:
        base: Raw logits of the base model, ``(r, any)``.
        aligned: Raw logits of the aligned model, ``(r, any)``, on the same device.
        rows: The rows' settings.
        state: The rows' state.
        classes: The vocabulary's classes.
        limits: What the grammars of constrained rows say, if there are any.
    """
    base, aligned = classes.fit_base(base), classes.fit_aligned(aligned)
    signals = Signals.read(base)
    emits = _emits(base, aligned, rows, classes, limits)

    # 1. Who is asked for the token: structure and content first, then certainty.
    routed = _route(base, aligned, signals, emits, rows, state, classes)
    # 2. A word is finished by its owner.
    source, logits = _hold_word(routed, emits, rows, state, classes)
    # 3. The token, through the sampling settings of its source.
    settings = Sampling(
        *(torch.where(source == BASE, pair[BASE], pair[ALIGNED]) for pair in rows.sampling)
    )
    token = sample(logits, state.u_token, settings, filters=rows.filters)

    log_z = aligned.logsumexp(-1)
    possible = logits.gather(-1, token[:, None])[:, 0] > -torch.inf
    return StepOutput(
        token.where(possible, -1),
        source,
        _probability(base, signals.log_z, token),
        _probability(aligned, log_z, token),
        signals.p_max,
        signals.entropy,
        signals.log_z.isfinite() & log_z.isfinite(),
        _alternatives((base, aligned), (signals.log_z, log_z), rows.alternatives),
    )


def _emits(
    base: Tensor,
    aligned: Tensor,
    rows: PolicyParams,
    classes: TokenClasses,
    limits: GrammarMasks | None,
) -> Emittable:
    barred = classes.bans[rows.ban]
    structure, running = torch.zeros_like(rows.only_base), torch.ones_like(rows.only_base)
    if limits is None:
        emittable = base.masked_fill(barred, -torch.inf)
        return Emittable(emittable, aligned, barred, emittable, structure, running)
    refused = torch.zeros_like(barred)
    refused[limits.members] = limits.refused
    # The degenerate router `base` writes the structure too.
    routed = ~rows.only_base[limits.members]
    structure[limits.members] = (limits.structure | _opens(aligned, classes, limits)) & routed
    running[limits.members] = ~(limits.structure | limits.begins)
    reserved = torch.zeros_like(barred)
    reserved[limits.members] = classes.reserved[limits.reserved] & routed[:, None]
    base_unreserved = base.masked_fill(barred | refused, -torch.inf)
    return Emittable(
        base_unreserved.masked_fill(reserved, -torch.inf),
        aligned.masked_fill(refused, -torch.inf),
        barred | refused | reserved,
        base_unreserved,
        structure,
        running,
    )


def _opens(aligned: Tensor, classes: TokenClasses, limits: GrammarMasks) -> Tensor:
    """Say where aligned would open a call, ``(k,)``: whether to call is no matter of taste."""
    top = aligned[limits.members].argmax(-1, keepdim=True)
    holds_opener = classes.reserved[limits.reserved].gather(-1, top)[:, 0]
    return holds_opener & (limits.reserved >= FIRST_OPENER)


def _route(
    base: Tensor,
    aligned: Tensor,
    signals: Signals,
    emits: Emittable,
    rows: PolicyParams,
    state: State,
    classes: TokenClasses,
) -> Tensor:
    to_base = (
        statistics(signals, state.u_route).gather(-1, rows.statistic[:, None])[:, 0] < rows.limit
    )
    for guard, members in rows.custom:
        inputs = RouteInputs(
            base[members],
            aligned[members],
            signals.p_max[members],
            signals.entropy[members],
            signals.top[members],
            rows.gamma[members],
            state.u_route[members],
            state.position[members],
            state.owner[members],
            [state.decoded[row] for row in members.tolist()],
        )
        to_base[members] = guard.route(inputs)
    content_top = torch.where(rows.content_from_aligned, aligned.argmax(-1), signals.top)
    to_aligned = content_hit(content_top, rows.content, classes)
    to_aligned |= emits.barred.gather(-1, signals.top[:, None])[:, 0]
    to_aligned |= rows.first_aligned & (state.owner == NOBODY)
    to_aligned |= emits.structure
    return torch.where(to_base & ~(to_aligned & ~rows.only_base), BASE, ALIGNED)


def _hold_word(
    routed: Tensor, emits: Emittable, rows: PolicyParams, state: State, classes: TokenClasses
) -> tuple[Tensor, Tensor]:
    """Return each row's source and the logits it draws from."""
    emittable, aligned = emits.base, emits.aligned
    # A base that may emit nothing at all cannot finish its word; nor does a word reach over the
    # borders of a value.
    mute = (state.owner == BASE) & (emittable.amax(-1) == -torch.inf)
    bound = rows.boundary & (state.owner != NOBODY) & ~mute & emits.running
    owner_top = torch.where(
        state.owner == BASE, emits.base_unreserved.argmax(-1), aligned.argmax(-1)
    )
    source = torch.where(bound & ~classes.starts_word[owner_top], state.owner, routed)
    logits = torch.where((source == BASE)[:, None], emittable, aligned)

    crossing = bound & (source != state.owner)
    mass = (logits.softmax(-1) * classes.starts_word).sum(-1)
    refused = crossing & ~(mass >= WORD_MASS)  # no mass at all is not a number
    source = torch.where(refused, state.owner, source)
    logits = torch.where((source == BASE)[:, None], emittable, aligned)
    restricted = (crossing & ~refused)[:, None] & ~classes.starts_word
    return source, logits.masked_fill(restricted, -torch.inf)


def _probability(logits: Tensor, log_z: Tensor, token: Tensor) -> Tensor:
    return (logits.gather(-1, token[:, None])[:, 0] - log_z).exp()


def _alternatives(
    sides: tuple[Tensor, Tensor], log_z: tuple[Tensor, Tensor], count: int
) -> tuple[Tensor, Tensor] | None:
    if not count:
        return None
    tops = [logits.topk(min(count, logits.shape[-1]), -1) for logits in sides]
    probabilities = [(top.values - z[:, None]).exp() for top, z in zip(tops, log_z, strict=True)]
    return torch.stack([top.indices for top in tops]), torch.stack(probabilities)
