"""One step for a batch of rows: both sides' logits in, one token per row out.

This is the only place where a token is decided. It is a pure function, vectorised over rows: no
row reads another's numbers, and the only chance in it is the uniforms that come in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .grammar_masks import GrammarMasks
from .params import ALIGNED, BASE, NOBODY, PolicyParams, State
from .routers import RouteInputs, statistics
from .sampling import Sampled, Sampling, sample
from .signals import Signals
from .token_classes import FIRST_OPENER, TokenClasses

WORD_MASS = 1e-3
"""Least probability that a side must give to word-starting tokens to take over."""


class Emittable(NamedTuple):
    """What each side may emit, ``(r, v)`` each; what it may not is minus infinity or true.

    Attributes:
        base: Base's logits.
        aligned: Aligned's logits.
        barred: Tokens that are not base's to emit.
        base_with_reserved: Base's logits before reserved characters are barred: it may want to
            close a string.
        structure: ``(r,)`` bool, the token is structure, or aligned's top-1 token opens it.
        running: ``(r,)`` bool, a word may be running that its owner has to finish.
    """

    base: Tensor
    aligned: Tensor
    barred: Tensor
    base_with_reserved: Tensor
    structure: Tensor
    running: Tensor


class Decision(NamedTuple):
    """Who gives each row's token, and what it may be.

    Attributes:
        source: ``(r,)`` `BASE` or `ALIGNED`.
        logits: ``(r, v)`` the source's logits; what it may not emit is minus infinity.
        base: ``(r, v)`` base's raw logits over the shared ids.
        aligned: ``(r, v)`` aligned's.
        signals: What was read from base's.
        aligned_log_z: ``(r,)`` logarithm of aligned's normaliser.
    """

    source: Tensor
    logits: Tensor
    base: Tensor
    aligned: Tensor
    signals: Signals
    aligned_log_z: Tensor


class StepOutput(NamedTuple):
    """What a step decided, ``(r,)`` each.

    ``token`` is -1 where nothing that a grammar allows has any probability. ``sound`` is false
    where a side's logits are not finite, so that nothing about the row holds. Alternatives are ids
    and probabilities, ``(3, r, k)`` each: of base, of aligned, and of what was sampled from.
    """

    token: Tensor
    source: Tensor
    p_base: Tensor
    p_aligned: Tensor
    p_sampled: Tensor
    p_max: Tensor
    entropy: Tensor
    sound: Tensor
    alternatives: tuple[Tensor, Tensor] | None


def step(
    base: Tensor,
    aligned: Tensor,
    params: PolicyParams,
    state: State,
    classes: TokenClasses,
    masks: GrammarMasks | None = None,
) -> StepOutput:
    """Decide one token per row: `decide`, `draw` and `report`; arguments are those of `decide`."""
    decision = decide(base, aligned, params, state, classes, masks)
    return report(decision, params, draw(decision, params, state.u_token))


def decide(
    base: Tensor,
    aligned: Tensor,
    params: PolicyParams,
    state: State,
    classes: TokenClasses,
    masks: GrammarMasks | None = None,
    *,
    signals: Signals | None = None,
    aligned_log_z: Tensor | None = None,
) -> Decision:
    """Decide who gives each row's token, and from which logits.

    Args:
        base: Raw logits of the base model, ``(r, any)``.
        aligned: Raw logits of the aligned model, ``(r, any)``, on the same device.
        params: The rows' settings.
        state: The rows' state.
        classes: The vocabulary's classes.
        masks: What the grammars of constrained rows allow, if there are any.
        signals: What is known of base's whole distribution, where `base` is only a part of it.
        aligned_log_z: The normaliser of aligned's whole distribution, likewise.
    """
    base, aligned = classes.fit_base(base), classes.fit_aligned(aligned)
    signals = Signals.read(base) if signals is None else signals
    log_z = aligned.logsumexp(-1) if aligned_log_z is None else aligned_log_z
    emittable = emittable_tokens(base, aligned, params, classes, masks)
    # 1. Who is asked for the token: structure and content first, then certainty.
    routed = route(base, aligned, signals, emittable, params, state, classes)
    # 2. A word is finished by its owner.
    source, logits = hold_word(routed, emittable, params, state, classes)
    return Decision(source, logits, base, aligned, signals, log_z)


def draw(decision: Decision, params: PolicyParams, uniform: Tensor) -> Sampled:
    """Draw each row's token with its source's sampling settings and a uniform ``(r,)``."""
    from_base = decision.source == BASE
    own = (torch.where(from_base, pair[BASE], pair[ALIGNED]) for pair in params.sampling)
    return sample(
        decision.logits,
        uniform,
        Sampling(*own),
        filters=params.filters,
        alternatives=params.alternatives,
    )


def report(decision: Decision, params: PolicyParams, drawn: Sampled) -> StepOutput:
    """Return what is known about each row's token."""
    token = drawn.token
    base, aligned, signals = decision.base, decision.aligned, decision.signals
    log_z = decision.aligned_log_z
    possible = decision.logits.gather(-1, token[:, None])[:, 0] > -torch.inf
    return StepOutput(
        token.where(possible, -1),
        decision.source,
        probability(base, signals.log_z, token),
        probability(aligned, log_z, token),
        drawn.probability,
        signals.p_max,
        signals.entropy,
        signals.log_z.isfinite() & log_z.isfinite(),
        most_probable((base, aligned), (signals.log_z, log_z), drawn.likeliest),
    )


def emittable_tokens(
    base: Tensor,
    aligned: Tensor,
    params: PolicyParams,
    classes: TokenClasses,
    masks: GrammarMasks | None,
) -> Emittable:
    """Apply bans and grammars to the logits of both sides, ``(r, v)`` each."""
    barred = classes.bans[params.ban]
    structure, running = torch.zeros_like(params.only_base), torch.ones_like(params.only_base)
    if masks is None:
        allowed = base.masked_fill(barred, -torch.inf)
        return Emittable(allowed, aligned, barred, allowed, structure, running)
    # Whether to open a call is aligned's to say.
    top = aligned[masks.members].argmax(-1, keepdim=True)
    opens = classes.reserved[masks.reserved].gather(-1, top)[:, 0]
    opens &= masks.reserved >= FIRST_OPENER
    # The degenerate router `base` writes the structure too.
    routed = ~params.only_base[masks.members]
    structure[masks.members] = (masks.structure | opens) & routed
    running[masks.members] = ~(masks.structure | masks.begins)
    refused, reserved = torch.zeros_like(barred), torch.zeros_like(barred)
    refused[masks.members] = masks.refused
    reserved[masks.members] = classes.reserved[masks.reserved] & routed[:, None]
    with_reserved = base.masked_fill(barred | refused, -torch.inf)
    return Emittable(
        with_reserved.masked_fill(reserved, -torch.inf),
        aligned.masked_fill(refused, -torch.inf),
        barred | refused | reserved,
        with_reserved,
        structure,
        running,
    )


def route(
    base: Tensor,
    aligned: Tensor,
    signals: Signals,
    emittable: Emittable,
    params: PolicyParams,
    state: State,
    classes: TokenClasses,
) -> Tensor:
    """Return which side each row's router asks, ``(r,)``, before words are looked at."""
    compared = statistics(signals, state.u_route).gather(-1, params.statistic[:, None])[:, 0]
    to_base = compared < params.limit
    for router, rows in params.custom:
        inputs = RouteInputs(
            base[rows],
            aligned[rows],
            signals.p_max[rows],
            signals.entropy[rows],
            signals.top[rows],
            params.gamma[rows],
            state.u_route[rows],
            state.position[rows],
            state.owner[rows],
            [state.decoded[row] for row in rows.tolist()],
        )
        to_base[rows] = router.route(inputs)
    content_top = torch.where(params.content_from_aligned, aligned.argmax(-1), signals.top)
    to_aligned = (classes.content[content_top] & params.content) != 0
    to_aligned |= emittable.barred.gather(-1, signals.top[:, None])[:, 0]
    to_aligned |= params.first_aligned & (state.owner == NOBODY)
    to_aligned |= emittable.structure
    return torch.where(to_base & ~(to_aligned & ~params.only_base), BASE, ALIGNED)


def hold_word(
    routed: Tensor, emittable: Emittable, params: PolicyParams, state: State, classes: TokenClasses
) -> tuple[Tensor, Tensor]:
    """Let the owner of a running word finish it.

    Args:
        routed: ``(r,)`` which side the router asks.
        emittable: What each side may emit.
        params: The rows' settings.
        state: The rows' state.
        classes: The vocabulary's classes.

    Returns:
        The source ``(r,)`` and the logits that its token is drawn from, ``(r, v)``.
    """
    # A base that may emit nothing at all cannot finish its word; nor does a word reach over the
    # borders of a value.
    mute = (state.owner == BASE) & (emittable.base.amax(-1) == -torch.inf)
    bound = params.boundary & (state.owner != NOBODY) & ~mute & emittable.running
    tops = emittable.base_with_reserved.argmax(-1), emittable.aligned.argmax(-1)
    owner_top = torch.where(state.owner == BASE, *tops)
    source = torch.where(bound & ~classes.starts_word[owner_top], state.owner, routed)
    logits = torch.where((source == BASE)[:, None], emittable.base, emittable.aligned)

    crossing = bound & (source != state.owner)
    mass = (logits.softmax(-1) * classes.starts_word).sum(-1)
    refused = crossing & ~(mass >= WORD_MASS)  # no mass at all is not a number
    source = torch.where(refused, state.owner, source)
    logits = torch.where((source == BASE)[:, None], emittable.base, emittable.aligned)
    restricted = (crossing & ~refused)[:, None] & ~classes.starts_word
    return source, logits.masked_fill(restricted, -torch.inf)


def probability(logits: Tensor, log_z: Tensor, token: Tensor) -> Tensor:
    """Return the probability ``(r,)`` of a token each, given logits and their normaliser."""
    return (logits.gather(-1, token[:, None])[:, 0] - log_z).exp()


def most_probable(
    sides: tuple[Tensor, Tensor],
    log_z: tuple[Tensor, Tensor],
    sampled: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor] | None:
    """Return ids and probabilities of the most probable tokens, ``(3, r, k)`` each.

    Args:
        sides: Logits of base and aligned, ``(r, v)`` each.
        log_z: Their normalisers, ``(r,)`` each.
        sampled: Ids and probabilities ``(r, k)`` of what was sampled from; None if not asked for.
    """
    if sampled is None:
        return None
    tops = [logits.topk(sampled[0].shape[-1], -1) for logits in sides]
    raw = [(top.values - z[:, None]).exp() for top, z in zip(tops, log_z, strict=True)]
    ids = torch.stack([*(top.indices for top in tops), sampled[0]])
    return ids, torch.stack([*raw, sampled[1]])
