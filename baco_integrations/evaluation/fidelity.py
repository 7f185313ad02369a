"""How near an adapter's model is to the one that it stands for.

Everything is read off the exact pair's own continuations of some prompts, each position given
all that stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..core.params import SamplingParams
from ..models.loading import (
    fetch_weights,
    load_bytes,
    load_config,
    load_model,
    load_tokenizer,
    locate,
)
from ..models.memory import measure_bytes, require_memory, target_devices
from ..models.options import LoadOptions, Side
from ..models.pair import ModelPair
from ..models.quantization import quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.outputs import Completion
    from ..models.lora.pair import AdapterPair

PROMPTS = (
    "Name a place to visit.",
    "Suggest a gift for a friend who has everything.",
    "What could I cook with lentils and a lemon?",
    "Give me an idea for a short story.",
    "Suggest a hobby for the winter.",
    "Name three animals that live in the sea.",
    "Explain in two sentences why the sky is blue.",
    "Write a first line for a novel.",
    "How do I keep bread fresh?",
    "Think of a name for a small bakery.",
    "What is a good question to ask a new colleague?",
    "Describe a market in the morning.",
    "Suggest a game for a long train journey.",
    "Write a haiku about rain.",
    "What should I pack for a week in the mountains?",
    "Give a reason to learn another language.",
    "Invent a holiday and say how it is kept.",
    "List three uses for an old newspaper.",
    "What makes a garden quiet?",
    "Tell me something surprising about bees.",
)
"""What the models are asked unless prompts are given."""


@dataclass(frozen=True)
class Fidelity:
    """How near the approximated side comes.

    Attributes:
        side: The side that is approximated.
        tokens: Number of positions that were compared.
        kl: Mean Kullback-Leibler divergence from the exact distribution to the approximate one,
            in nats per token.
        top1: Share of positions at which both have the same most probable token.
        routes: Share of positions at which the default router has the same side give the token.
        error: Frobenius norm of what the adapter leaves out, relative to that of the whole
            difference; None for an adapter that was trained.
        adapter_bytes: What the adapter adds to the model's memory.
        model_bytes: What the model takes without it.
    """

    side: str
    tokens: int
    kl: float
    top1: float
    routes: float
    error: float | None
    adapter_bytes: int
    model_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data for JSON."""
        return asdict(self)


def fidelity(
    base: str | Path,
    aligned: str | Path,
    adapter: str | Path,
    *,
    exact: Side = "aligned",
    prompts: Sequence[str] = PROMPTS,
    max_tokens: int = 64,
    seed: int = 0,
    **options: Any,
) -> Fidelity:
    """Compare an adapter's model with the one that it stands for; both models are loaded.

    Args:
        base: The base model's folder or id.
        aligned: The aligned model's.
        adapter: The adapter's.
        exact: The side whose model the adapter goes with.
        prompts: What the exact pair is asked; it answers with the default settings.
        max_tokens: Most tokens of an answer.
        seed: Seed of the answers.
        options: Settings of `LoadOptions`.

    Raises:
        PairError: The models or the adapter cannot be loaded, or do not fit each other.
    """
    from ..decoder.decoder import Decoder

    params = SamplingParams(max_tokens=max_tokens, seed=seed)
    models = {"base": base, "aligned": aligned}
    near = ModelPair.from_adapter(models[exact], adapter, exact=exact, **options)
    side: Side = "base" if exact == "aligned" else "aligned"
    far = _with_its_own(near, side, models[side], LoadOptions(**options))
    with Decoder(far, lookahead="off") as decoder:
        answers = decoder.generate_batch(prompts, params)
    found = [
        _compare(far, near, side, prompt, answer, params)
        for prompt, (answer,) in zip(prompts, answers, strict=True)
    ]
    tokens = sum(count for count, *_ in found)
    kl, top1, routes = (sum(row[place] for row in found) / tokens for place in (1, 2, 3))
    model_bytes = measure_bytes(getattr(far, side))
    more = near.memory_bytes() - model_bytes
    return Fidelity(side, tokens, kl, top1, routes, near.error, more, model_bytes)


def _with_its_own(
    near: AdapterPair, side: Side, model: str | Path, options: LoadOptions
) -> ModelPair:
    """Return the exact pair: one side of an adapter's pair, and the other's own model."""
    source, options = locate(model, side, options), options.of(side)
    config, tokenizer = load_config(source, options), load_tokenizer(source, options)
    devices = target_devices(options.placement)
    require_memory(load_bytes(source, config, options), devices, source.name)
    fetch_weights(source, options)
    own = load_model(source, config, options, quantizer(source, config, options))
    models = {"base": near.base, "aligned": near.aligned} | {side: own}
    tokenizers = {"base": near.base_tokenizer, "aligned": near.aligned_tokenizer}
    tokenizers |= {side: tokenizer}
    return ModelPair(
        *models.values(),
        *tokenizers.values(),
        base_prompt=options.base_prompt,
        template_kwargs=options.template_kwargs,
    )


def _compare(
    far: ModelPair,
    near: AdapterPair,
    side: str,
    prompt: str,
    answer: Completion,
    params: SamplingParams,
) -> tuple[int, float, float, float]:
    """Return how many positions an answer has, and sums over them."""
    import torch

    from ..decoder.decoder import token_classes_of
    from ..policy.step import NOBODY, PolicyParams, State, step

    ids = [token.token_id for token in answer.steps]
    prompts = {
        "base": far.render_base(prompt, tokenize=True),
        "aligned": far.render_aligned(prompt, tokenize=True),
    }
    exact = {name: _logits(getattr(far, name), told, ids) for name, told in prompts.items()}
    nearly = exact | {side: _logits(getattr(near, side), prompts[side], ids)}
    real = far.base_size if side == "base" else far.aligned_size
    p, q = (logits[side][:, :real].double().log_softmax(-1) for logits in (exact, nearly))
    owners = [NOBODY, *(("base", "aligned").index(token.source) for token in answer.steps[:-1])]
    count = len(ids)
    half = torch.full((count,), 0.5, dtype=torch.float64)
    state = State(torch.tensor(owners), torch.arange(count), half, half)
    classes, rows = (
        token_classes_of(far, "cpu"),
        PolicyParams.build([params] * count, [None] * count),
    )
    one, other = (
        step(logits["base"], logits["aligned"], rows, state, classes).source
        for logits in (exact, nearly)
    )
    return (
        count,
        float((p.exp() * (p - q)).sum()),
        float((p.argmax(-1) == q.argmax(-1)).sum()),
        float((one == other).sum()),
    )


def _logits(model: Any, prompt: Any, ids: list[int]) -> Tensor:
    """Return the logits before each token of an answer, ``(t, v)``, on the CPU."""
    import torch

    with torch.inference_mode():
        fed = torch.tensor([[*prompt, *ids[:-1]]], device=model.device)
        logits = model(fed, use_cache=False, logits_to_keep=len(ids)).logits[0]
    return cast("Tensor", logits.float().cpu())
