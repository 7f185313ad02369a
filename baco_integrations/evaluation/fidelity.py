"""How near an adapter's model is to the one that it stands for.

Everything is read off the exact pair's own continuations of some prompts, each position given
all that stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.outputs import Completion
from ..core.params import SamplingParams
from ..decoder.decoder import Decoder
from ..models.checkpoint import Checkpoint, load_tokenizer
from ..models.hub import fetch_weights, locate
from ..models.lora.load import other_side
from ..models.memory import measure_bytes, require_memory, target_devices
from ..models.options import SIDES, LoadOptions, Side
from ..models.pair import ModelPair
from ..policy.params import NOBODY, PolicyParams, State
from ..policy.step import step

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
    params = SamplingParams(max_tokens=max_tokens, seed=seed)
    folders = {"base": base, "aligned": aligned}
    approximate = ModelPair.from_adapter(folders[exact], adapter, exact=exact, **options)
    side = other_side(exact)
    pair = with_own_model(approximate, side, folders[side], LoadOptions(**options))
    with Decoder(pair, lookahead="off") as decoder:
        answers = decoder.generate_batch(prompts, params)
    rows = [
        compare_answer(pair, approximate, side, prompt, answer, params)
        for prompt, (answer,) in zip(prompts, answers, strict=True)
    ]
    tokens, kl, top1, routes = map(sum, zip(*rows, strict=True))
    shares = kl / tokens, top1 / tokens, routes / tokens
    model_bytes = measure_bytes(getattr(pair, side))
    more = approximate.memory_bytes() - model_bytes
    return Fidelity(side, int(tokens), *shares, approximate.error, more, model_bytes)


def with_own_model(
    pair: ModelPair, side: Side, model: str | Path, options: LoadOptions
) -> ModelPair:
    """Return a pair whose given side is a model of its own, loaded without an adapter."""
    checkpoint = Checkpoint(locate(model, side, options), options.of(side))
    files, devices = checkpoint.files, target_devices(checkpoint.options.placement)
    tokenizer = load_tokenizer(files, options)
    require_memory(checkpoint.load_bytes(), devices, files.name)
    fetch_weights(files, options)
    loaded = checkpoint.load(checkpoint.quantizer())
    is_base = side == "base"
    return ModelPair(
        loaded if is_base else pair.base,
        pair.aligned if is_base else loaded,
        tokenizer if is_base else pair.base_tokenizer,
        pair.aligned_tokenizer if is_base else tokenizer,
        base_prompt=options.base_prompt,
        template_kwargs=options.template_kwargs,
    )


def compare_answer(
    exact: ModelPair,
    approximate: ModelPair,
    side: Side,
    prompt: str,
    answer: Completion,
    params: SamplingParams,
) -> tuple[float, float, float, float]:
    """Compare two pairs, of which one side differs, at each position of an answer.

    Returns:
        The number of positions, and over them the sum of divergences, the number with the same
        most probable token, and the number with the same source.
    """
    ids = [token.token_id for token in answer.steps]
    prompts = {
        "base": exact.render_base(prompt, tokenize=True),
        "aligned": exact.render_aligned(prompt, tokenize=True),
    }
    logits = {name: answer_logits(getattr(exact, name), fed, ids) for name, fed in prompts.items()}
    near = logits | {side: answer_logits(getattr(approximate, side), prompts[side], ids)}
    real = exact.base_size if side == "base" else exact.aligned_size
    p, q = (each[side][:, :real].double().log_softmax(-1) for each in (logits, near))
    owners = [NOBODY, *(SIDES.index(token.source) for token in answer.steps[:-1])]
    count = len(ids)
    half = torch.full((count,), 0.5, dtype=torch.float64)
    state = State(torch.tensor(owners), torch.arange(count), half, half)
    rows = PolicyParams.stack([PolicyParams.build(params)] * count)
    classes = exact.token_space.classes("cpu")
    one, other = (
        step(each["base"], each["aligned"], rows, state, classes).source for each in (logits, near)
    )
    return (
        count,
        float((p.exp() * (p - q)).sum()),
        float((p.argmax(-1) == q.argmax(-1)).sum()),
        float((one == other).sum()),
    )


@torch.inference_mode()
def answer_logits(model: Any, prompt: Any, ids: list[int]) -> Tensor:
    """Return the logits before each token of an answer, ``(t, v)``, on the CPU."""
    fed = torch.tensor([[*prompt, *ids[:-1]]], device=model.device)
    logits: Tensor = model(fed, use_cache=False, logits_to_keep=len(ids)).logits[0]
    return logits.float().cpu()
