"""Whether a pair fits on some GPUs, and how fast it can be at most: on paper, from shapes alone.

Decoding is bound by reading: each step reads the weights of both models and the keys and values of
all rows, and how fast a GPU reads its memory is known. What a step computes, launches and sends
between GPUs is left out, so speeds are upper bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..core.errors import NotEnoughMemoryError, ParameterError
from .architecture import MAX_WINDOW
from .checkpoint import Checkpoint
from .memory import WIDTHS, count_parameters, readable

USABLE = 0.9
"""Share of a GPU's memory for weights and caches; the rest is for activations and the runtime."""

READING = 0.9
"""Share of the bandwidth on the data sheet that reading weights attains."""


class Gpu(NamedTuple):
    """A kind of GPU.

    Attributes:
        memory: Bytes.
        bandwidth: Bytes that it reads in a second, as its data sheet says; 0 if unknown.
    """

    memory: int
    bandwidth: float = 0.0


GPUS = {
    name: Gpu(gibibytes * 2**30, terabytes * 1e12)
    for name, gibibytes, terabytes in (
        ("L4", 22, 0.3),
        ("A10G", 22, 0.6),
        ("L40S", 44, 0.864),
        ("A100-40G", 39, 1.555),
        ("A100-80G", 79, 2.039),
        ("H100", 79, 3.35),
        ("H200", 139, 4.8),
        ("B200", 178, 8.0),
    )
}
"""Kinds of GPUs by name: the memory that a process finds free on them, and their bandwidth."""


class Shape(NamedTuple):
    """What of a model decides what it takes.

    Attributes:
        weights: Bytes of its weights.
        layers: Number of layers.
        heads: Attention heads of a layer.
        cache_heads: Heads of a layer's keys and values.
        head_dim: Numbers in a head.
        window: Its context window, in tokens.
        width: Bytes of a number in the cache.
    """

    weights: int
    layers: int
    heads: int
    cache_heads: int
    head_dim: int
    window: int
    width: float = 2.0

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Shape:
        """Read a model's shape from its configuration."""
        text: Any = checkpoint.config.get_text_config()
        dtype, heads = checkpoint.options.dtype_of(checkpoint.config), text.num_attention_heads
        return cls(
            weights=count_parameters(checkpoint.empty_model()).bytes(dtype),
            layers=text.num_hidden_layers,
            heads=heads,
            cache_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            window=getattr(text, "max_position_embeddings", None) or MAX_WINDOW,
            width=WIDTHS.get(dtype, 4.0),
        )

    def cache_bytes(self, tensor: int) -> float:
        """Return the bytes of a token's keys and values on each of `tensor` GPUs."""
        heads = max(self.cache_heads / tensor, 1)  # what cannot be split is on all of them
        return 2 * self.layers * heads * self.head_dim * self.width


@dataclass(frozen=True)
class Plan:
    """A pair on some GPUs.

    Attributes:
        sides: The shapes of base and aligned.
        gpu: The kind of GPU.
        tensor: GPUs of one replica, each of which has a part of both models.
        replicas: How often the pair is there.
        rows: Answers that are decoded at once, in each replica.
        context: Tokens of each: prompt and answer.
    """

    sides: Sequence[Shape]
    gpu: Gpu
    tensor: int
    replicas: int
    rows: int
    context: int

    @property
    def weights(self) -> float:
        """Bytes of weights on each GPU."""
        return sum(side.weights for side in self.sides) / self.tensor

    @property
    def cache(self) -> float:
        """Bytes of a token's keys and values on each GPU, of both models."""
        return sum(side.cache_bytes(self.tensor) for side in self.sides)

    @property
    def room(self) -> int:
        """How many tokens' keys and values a replica has room for, beside the weights."""
        return max(int((self.gpu.memory * USABLE - self.weights) / self.cache), 0)

    @property
    def fits(self) -> bool:
        """Whether all rows fit at their full length."""
        return self.rows * self.context <= self.room

    def require(self) -> None:
        """Raise a `NotEnoughMemoryError` that tells the numbers, if it does not fit."""
        if self.fits:
            return
        cache = self.rows * self.context * self.cache
        alone = self.room // self.context
        raise NotEnoughMemoryError(
            f"Each of {self.tensor} x {self.replicas} GPUs would need {readable(self.weights)} for "
            f"weights and {readable(cache)} for the keys and values of {self.rows} rows of "
            f"{self.context:,} tokens, but of its {readable(self.gpu.memory)} only "
            f"{readable(self.gpu.memory * USABLE)} are for these. "
            + (f"There is room for {alone} rows. " if alone else "")
            + "Use more GPUs for each replica, fewer rows, a shorter context or another dtype."
        )

    def speed(self, rows: int) -> float:
        """Return how many tokens all replicas can give in a second at most.

        Args:
            rows: Answers that each replica decodes at once, each half as long as the context.
        """
        read = self.weights + rows * self.context / 2 * self.cache
        return self.replicas * rows * self.gpu.bandwidth * READING / read


def smallest_plan(
    sides: Sequence[Shape], gpu: Gpu, gpus: int, replicas: int | None, rows: int, context: int
) -> Plan:
    """Return the plan with the fewest GPUs for each replica that fits, and all GPUs in use.

    Args:
        sides: The shapes of base and aligned.
        gpu: The kind of GPU.
        gpus: How many there are.
        replicas: How many replicas there are to be; as many as fit if None.
        rows: Answers that each replica decodes at once.
        context: Tokens of each.

    Raises:
        NotEnoughMemoryError: None fits.
        ParameterError: The GPUs cannot be shared out so.
    """
    splits = [tensor for tensor in divisors(gpus) if replicas in (None, gpus // tensor)]
    splits = [tensor for tensor in splits if all(side.heads % tensor == 0 for side in sides)]
    if not splits:
        heads = " and ".join(str(side.heads) for side in sides)
        raise ParameterError(
            "replicas",
            f"such that {gpus} GPUs make replicas of one size, which divides {heads} heads",
            replicas,
            "Change gpus, or leave replicas out.",
        )
    plans = [Plan(sides, gpu, tensor, gpus // tensor, rows, context) for tensor in splits]
    chosen = next((plan for plan in plans if plan.fits), plans[-1])
    chosen.require()
    return chosen


def divisors(number: int) -> Iterable[int]:
    """Return all divisors of a number, the smallest first."""
    return [each for each in range(1, number + 1) if number % each == 0]
