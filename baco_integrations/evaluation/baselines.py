"""Rivals: ways of asking for varied answers, and the log-linear ensemble of base and aligned.

Every way of asking takes a model, prompts, settings with the number of answers ``n``, and a seed,
and returns each prompt's answers or its error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from ..core.errors import ParameterError
from ..core.params import SamplingParams
from .judge import JudgeRouter
from .models import Model, PairModel, Results, joined, open_decoder
from .prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.routing import Source
    from ..decoder.decoder import Decoder
    from ..engines.base import Mix
    from ..models.base import Pair

Ask = Callable[[Model, Sequence[Prompt], SamplingParams, int], Results]

BE_VARIED = (
    "Many people ask the same. Give an answer that is right but that few others would give, and "
    "do not fall back on the first thing that comes to mind."
)
"""The system prompt of the method of that name."""

TEMPLATES = (
    "{prompt}",
    "Here is something I would like to ask: {prompt}",
    "{prompt} Take a moment, then answer.",
    "Could you help me with this? {prompt}",
    "A question from a friend: {prompt}",
    "I am curious what you say to this. {prompt}",
    "Please answer the following. {prompt}",
    "{prompt} Thank you!",
    "One more for today: {prompt}",
    "Let me ask you this. {prompt}",
)
"""Wordings for prompts that come without paraphrases."""


def seed_for(*parts: object) -> int:
    """Return a seed that the parts decide: prompts do not share their noise, methods do."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 11


def once(model: Model, prompts: Sequence[Prompt], params: SamplingParams, seed: int) -> Results:
    """Ask for all answers at once, independently of one another."""
    return model.answer(
        [prompt.messages for prompt in prompts],
        [params.replace(seed=seed_for(seed, prompt.id)) for prompt in prompts],
    )


def in_context(
    model: Model, prompts: Sequence[Prompt], params: SamplingParams, seed: int
) -> Results:
    """Ask for one answer after the other, each with the earlier ones in sight."""
    results: Results = [[] for _ in prompts]
    conversations = [prompt.messages for prompt in prompts]
    for turn in range(params.n):
        running = [place for place, got in enumerate(results) if isinstance(got, list)]
        if not running:
            break
        new = model.answer(
            [conversations[place] for place in running],
            [params.replace(n=1, seed=seed_for(seed, prompts[p].id, turn)) for p in running],
        )
        for place, got in zip(running, new, strict=True):
            earlier = results[place]
            if isinstance(got, Exception) or isinstance(earlier, Exception):
                results[place] = got
                continue
            earlier += got
            conversations[place] += [
                {"role": "assistant", "content": got[0].text},
                {"role": "user", "content": prompts[place].again},
            ]
    return results


def paraphrased(
    model: Model, prompts: Sequence[Prompt], params: SamplingParams, seed: int
) -> Results:
    """Ask in as many wordings as there are answers, starting over where there are fewer."""
    conversations, each = [], []
    for prompt in prompts:
        wordings = [prompt.text, *prompt.paraphrases]
        if not prompt.paraphrases:
            wordings = [template.format(prompt=prompt.text) for template in TEMPLATES]
        for place in range(params.n):
            conversations.append(prompt.worded(wordings[place % len(wordings)]))
            each.append(params.replace(n=1, seed=seed_for(seed, prompt.id, place)))
    answers = model.answer(conversations, each)
    return [joined(answers[at : at + params.n]) for at in range(0, len(answers), params.n)]


def told_to_vary(
    model: Model, prompts: Sequence[Prompt], params: SamplingParams, seed: int
) -> Results:
    """Ask under a system prompt that wants unusual answers, behind the prompt's own if any."""
    told = []
    for prompt in prompts:
        own = [turn["content"] for turn in prompt.before[:1] if turn["role"] == "system"]
        system = {"role": "system", "content": "\n\n".join([*own, BE_VARIED])}
        told.append(replace(prompt, before=(system, *prompt.before[len(own) :])))
    return once(model, told, params, seed)


def judged(judge: Any) -> Ask:
    """Return the way of asking in which a judge routes; see `Judge`."""

    def ask(model: Model, prompts: Sequence[Prompt], params: SamplingParams, seed: int) -> Results:
        pair = _pair(model)
        routers = [JudgeRouter(judge, pair, prompt.text) for prompt in prompts]
        return model.answer(
            [prompt.messages for prompt in prompts],
            [
                params.replace(router=router, seed=seed_for(seed, prompt.id))
                for prompt, router in zip(prompts, routers, strict=True)
            ],
        )

    return ask


def _pair(model: Model) -> Any:
    if not isinstance(model, PairModel):
        raise ParameterError("model", "a pair", model, "This method reads both models' logits.")
    return model.pair


# -- the ensemble ----------------------------------------------------------------------------------


def ensemble(weight: float) -> Ask:
    """Return the way of asking in which both models' distributions are multiplied.

    ``p ~ base**weight * aligned**(1 - weight)`` over the text tokens; what is not text, above all
    the end of the turn, keeps the probability that aligned gives it. So weight 0 is the aligned
    model exactly, and weight 1 is base's text with aligned's ends. Temperature acts on the product.
    """

    def ask(model: Model, prompts: Sequence[Prompt], params: SamplingParams, seed: int) -> Results:
        mixed = EnsembleModel(_pair(model), model.rows, weight)
        try:
            results = once(mixed, prompts, params, seed)
        finally:
            mixed.close()
        # Every token is of both: no shares, no switches.
        return [
            got
            if isinstance(got, Exception)
            else [each._replace(base=None, switches=None, runs=None) for each in got]
            for got in results
        ]

    return ask


class EnsembleModel(PairModel):
    """The ensemble of a pair as what methods ask; it is decoded with router ``aligned``.

    Args:
        pair: The pair.
        rows: Most samples that are decoded at once.
        weight: Base's weight, from 0 to 1.
    """

    def __init__(self, pair: Pair, rows: int, weight: float) -> None:
        super().__init__(pair, rows)
        self._weight = weight

    def open(self, only: Source | None) -> Decoder:
        """Open a decoder in which the mixture speaks for aligned."""
        return open_decoder(self.pair, self.rows, mix=ensemble_mix(self.pair, self._weight))


def ensemble_mix(pair: Pair, weight: float) -> Mix:
    """Return what replaces aligned's logits by the mixture of both; see `ensemble`."""
    from ..policy.token_classes import ALLOW_LINES

    classes = pair.token_space.classes("cpu")
    text = ~classes.bans[ALLOW_LINES, : classes.aligned_size]

    def mix(base: Tensor, aligned: Tensor) -> Tensor:
        nonlocal text
        text = text.to(aligned.device)  # at the first call only
        base, aligned = classes.fit_base(base), classes.fit_aligned(aligned)
        size = len(text)
        return mixture(base[:, :size], aligned[:, :size], text, weight)

    return mix


def mixture(base: Tensor, aligned: Tensor, text: Tensor, weight: float) -> Tensor:
    """Mix logits ``(..., v)`` log-linearly over the text tokens ``(v,)``; the rest is aligned's."""
    import torch

    if weight == 0:
        return aligned
    # Minus infinity times zero is not a number.
    mixed = base if weight == 1 else weight * base + (1 - weight) * aligned
    mixed = mixed.masked_fill(~text, -torch.inf).log_softmax(-1)
    own = aligned.log_softmax(-1)
    room = own.masked_fill(~text, -torch.inf).logsumexp(-1, keepdim=True)
    # Where aligned has no use for text there is nothing to share out.
    mixed = (mixed + room).masked_fill(room == -torch.inf, -torch.inf)
    return torch.where(text, mixed, own)
