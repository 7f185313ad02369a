"""One step for a batch of rows: both sides' logits in, one token per row out.

This is the only place where a token is decided. It is a pure function, vectorised over rows: no
row reads another's numbers, and the only chance in it is the uniforms that come in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .grammar_masks import GrammarMasks
from .params import PolicyParams, State
from .routers import RouteInputs, passes
from .sampling import Sampled, Sampling, sample
from .signals import Signals
from .token_classes import FIRST_OPENER, TokenClasses

WORD_MASS = 1e-3
"""Least probability that a side must give to word-starting tokens to take over."""


class Sides(NamedTuple):
    """Both sides' logits, and what is read from each.

    Without grammars, what aligned may emit are its raw logits, and what base wants to emit is what
    it may emit: then ``n`` is 3. Else it is 5: base's wishes come third.

    Attributes:
        logits: ``(n, r, v)`` what base and aligned may emit, minus infinity for all else; last,
            the raw logits of aligned and of base.
        probabilities: ``(n, r, v)`` their softmax.
        peaks: ``(n, r)`` the highest logit of each,
        tops: and its token, the lowest id winning ties.
    """

    logits: Tensor
    probabilities: Tensor
    peaks: Tensor
    tops: Tensor


class Structure(NamedTuple):
    """What grammars say of each row, ``(r,)`` bool.

    Attributes:
        barred: Base's raw top-1 token is not base's to emit.
        aligned: The token is structure, or aligned's top-1 token opens it.
        running: A word may be running that its owner has to finish.
    """

    barred: Tensor
    aligned: Tensor
    running: Tensor


class Decision(NamedTuple):
    """Who gives each row's token, and what it may be.

    Attributes:
        source: ``(r,)`` `BASE` or `ALIGNED`.
        logits: ``(r, v)`` the source's logits; what it may not emit is minus infinity.
        raw: ``(2, r, v)`` raw logits of aligned and of base over the shared ids,
        probabilities: and their probabilities.
        signals: What was read from base's.
    """

    source: Tensor
    logits: Tensor
    raw: Tensor
    probabilities: Tensor
    signals: Signals


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
    log_z: Tensor | None = None,
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
        log_z: Logarithms of the normalisers of the whole distributions of aligned and base,
            ``(2, r)``, likewise.
    """
    base, aligned = classes.fit_base(base), classes.fit_aligned(aligned)
    structure = None
    if masks is None:
        each = [base + classes.penalties[params.ban], aligned, base]
    else:
        each, structure = constrain(base, aligned, params, classes, masks)
    sides = read(each)
    raw, probabilities = sides.logits[-2:], sides.probabilities[-2:]
    if log_z is not None:
        probabilities = (raw - log_z[..., None]).exp()
    if signals is None:
        signals = Signals.read(probabilities[1], sides.tops[-1])
    # 1. Whose top-1 tokens are looked at, and for what.
    rows = params.sides, state.owner[None]
    if structure is not None:
        # Wishes are the third, raw logits the last.
        rows = params.sides + 2, (2 - state.owner)[None]
    flags = classes.flags[params.flags, sides.tops.gather(0, torch.cat(rows))]
    # 2. Who is asked for the token: certainty, content, bans and structure.
    routed = route(sides, signals, flags[:2], structure, params, state)
    # 3. A word is finished by its owner.
    source, logits = hold_word(routed, sides, flags[2], structure, params, state.owner, classes)
    return Decision(source, logits, raw, probabilities, signals)


def draw(decision: Decision, params: PolicyParams, uniform: Tensor) -> Sampled:
    """Draw each row's token with its source's sampling settings and a uniform ``(r,)``."""
    settings = params.settings_of(decision.source)
    settings = Sampling(*(each.to(decision.logits.dtype) for each in settings))
    return sample(decision.logits, uniform, settings, params.filters, params.alternatives)


def report(decision: Decision, params: PolicyParams, drawn: Sampled) -> StepOutput:
    """Return what is known about each row's token."""
    each = drawn.token.expand(2, -1)[..., None]
    p_aligned, p_base = decision.probabilities.gather(-1, each)[..., 0].unbind(0)
    return StepOutput(
        drawn.token.masked_fill(drawn.probability.isnan(), -1),
        decision.source,
        p_base,
        p_aligned,
        drawn.probability,
        decision.signals.p_max,
        decision.signals.entropy,
        # Logits that are not finite somewhere have no probabilities at all.
        p_base + p_aligned >= 0,
        most_probable(decision, drawn.likeliest),
    )


def read(each: list[Tensor]) -> Sides:
    """Return what is read from some logits, ``(r, v)`` each."""
    logits = torch.stack(each)
    peaks, tops = logits.max(-1)
    return Sides(logits, logits.softmax(-1), peaks, tops)


def constrain(
    base: Tensor,
    aligned: Tensor,
    params: PolicyParams,
    classes: TokenClasses,
    masks: GrammarMasks,
) -> tuple[list[Tensor], Structure]:
    """Apply bans and grammars to the logits of both sides; return the five of `Sides`."""
    # Whether to open a call is aligned's to say.
    top = aligned[masks.members].argmax(-1, keepdim=True)
    opens = classes.reserved[masks.reserved].gather(-1, top)[:, 0]
    opens &= masks.reserved >= FIRST_OPENER
    # The degenerate router `base` writes the structure too.
    routed = ~params.only_base[masks.members]
    structure, running = torch.zeros_like(params.only_base), torch.ones_like(params.only_base)
    structure[masks.members] = (masks.structure | opens) & routed
    running[masks.members] = ~(masks.structure | masks.begins)
    barred = classes.bans[params.ban]
    refused, reserved = torch.zeros_like(barred), torch.zeros_like(barred)
    refused[masks.members] = masks.refused
    reserved[masks.members] = classes.reserved[masks.reserved] & routed[:, None]
    wishes = base.masked_fill(barred | refused, -torch.inf)
    each = [
        wishes.masked_fill(reserved, -torch.inf),
        aligned.masked_fill(refused, -torch.inf),
        # It may want to close a string.
        wishes,
        aligned,
        base,
    ]
    refused_top = (refused | reserved).gather(-1, base.argmax(-1, keepdim=True))[:, 0]
    return each, Structure(refused_top & ~params.only_base, structure, running)


def route(
    sides: Sides,
    signals: Signals,
    flags: Tensor,
    structure: Structure | None,
    params: PolicyParams,
    state: State,
) -> Tensor:
    """Return which side each row's router asks, ``(r,)``, before words are looked at.

    Args:
        sides: What both sides say.
        signals: What is read from base.
        flags: ``(2, r)`` bool, content rule and ban send the token to aligned.
        structure: What grammars say, if there are any.
        params: The rows' settings.
        state: The rows' state.
    """
    u_route = state.u_route.to(signals.p_max.dtype)
    to_aligned = [
        *passes(signals, u_route, params.limits),
        flags,
        (state.owner == params.first)[None],
    ]
    for router, rows in params.custom:
        inputs = RouteInputs(
            sides.logits[-1, rows],
            sides.logits[-2, rows],
            signals.p_max[rows],
            signals.entropy[rows],
            signals.top[rows],
            params.gamma[rows],
            state.u_route[rows],
            state.position[rows],
            state.owner[rows],
            [state.decoded[row] for row in rows.tolist()],
        )
        asked = torch.zeros_like(params.only_base)
        asked[rows] = ~router.route(inputs)
        to_aligned.append(asked[None])
    if structure is not None:
        to_aligned.append(torch.stack((structure.aligned, structure.barred)))
    return torch.cat(to_aligned).any(0).long()


def hold_word(
    routed: Tensor,
    sides: Sides,
    starts: Tensor,
    structure: Structure | None,
    params: PolicyParams,
    owner: Tensor,
    classes: TokenClasses,
) -> tuple[Tensor, Tensor]:
    """Let the owner of a running word finish it.

    Args:
        routed: ``(r,)`` which side the router asks.
        sides: What both sides say.
        starts: ``(r,)`` bool, the owner's top-1 token starts a word.
        structure: What grammars say, if there are any.
        params: The rows' settings.
        owner: ``(r,)`` who gave the previous token.
        classes: The vocabulary's classes.

    Returns:
        The source ``(r,)`` and the logits that its token is drawn from, ``(r, v)``.
    """
    # A base that may emit nothing at all cannot finish its word; nor does a word reach over the
    # borders of a value.
    free = (sides.peaks[:3] <= params.bound).gather(0, owner[None])[0]
    if structure is not None:
        free = free | ~structure.running
    mass = (sides.probabilities[:2] * classes.starts_word).sum(-1)
    # No mass at all is not a number.
    has_words = (mass >= WORD_MASS).gather(0, routed[None])[0]
    source = torch.where(free | (starts & has_words), routed, owner)
    crossing = (source ^ owner).masked_fill(free, 0)
    rows = torch.arange(len(source), device=source.device)
    logits = sides.logits[source, rows]
    return source, logits.add_(classes.penalties[crossing])


def most_probable(
    decision: Decision, sampled: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor] | None:
    """Return ids and probabilities of the most probable tokens, ``(3, r, k)`` each.

    Args:
        decision: What was decided.
        sampled: Ids and probabilities ``(r, k)`` of what was sampled from; None if not asked for.
    """
    if sampled is None:
        return None
    ids, chances = sampled
    top = decision.raw.flip(0).topk(ids.shape[-1], -1).indices
    raw = decision.probabilities.flip(0).gather(-1, top)
    return torch.cat((top, ids[None])), torch.cat((raw, chances[None]))
