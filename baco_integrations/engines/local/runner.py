"""Runners: a model with the rows it is decoding, which reads tokens and gives logits.

Rows occupy slots ``0 .. r - 1``. A runner never decides anything; it turns what a row has seen into
the logits of what comes next.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ...core.errors import ParameterError
from ...models.products import use_fast_products
from ..base import EngineSettings
from ..base import Graphs as GraphMode
from .cuda_graphs import Graphs, padded
from .kv_cache import KVCache

VIEW = 256
"""Fewest positions that a forward of fixed shape sees."""


class SavedPrefix(NamedTuple):
    """What a model has read of a slot, kept beside the slots, and how many bytes that takes."""

    content: Any
    bytes: int


class Runner(Protocol):
    """What the engine asks of one model."""

    def prefill(
        self, start: int, tokens: Sequence[Sequence[int]], positions: Sequence[int]
    ) -> None:
        """Read some tokens in each of the slots ``start ..``, from a position on."""

    def forward(self, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> Tensor:
        """Read ``q`` tokens in each of the slots ``0 ..``, from a position on.

        Returns:
            The logits behind each token, ``(r, q, v)``.
        """

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy what has been read of the first `length` tokens from one slot to another."""

    def save(self, slot: int, length: int) -> SavedPrefix:
        """Return a copy of what has been read of a slot's first `length` tokens."""

    def load(self, saved: SavedPrefix, slot: int, length: int) -> None:
        """Put the first `length` tokens of a saved prefix into a slot."""

    def reset(self) -> None:
        """Empty all slots, and free their memory."""


class ForwardBoth(Protocol):
    """A forward that gives the logits of both models at once."""

    def __call__(
        self, tokens: Sequence[tuple[int, int]], positions: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Read a token each in base and aligned of all rows, at (base, aligned) positions.

        Returns:
            The logits of base and of aligned, ``(r, v)`` each.
        """


class PairRunner(NamedTuple):
    """The two models of a pair.

    Attributes:
        base: Base's runner.
        aligned: Aligned's runner.
        device: Where the logits meet.
        forward_both: Both models' forward, where one forward gives the logits of both.
    """

    base: Runner
    aligned: Runner
    device: torch.device | str = "cpu"
    forward_both: ForwardBoth | None = None


class ModelRunner:
    """A Hugging Face causal language model with the keys and values of its rows.

    Args:
        model: Any decoder-only model whose attention takes a 4-D mask (``sdpa`` or ``eager``).
        device: Where the logits are wanted; the model's own device if left out.
        max_rows: Most rows that will run at once.
        max_length: Most positions that a row will take.
        graphs: Whether `forward` keeps to few shapes and replays them as CUDA graphs: ``auto`` on a
            CUDA device, ``on`` everywhere, ``off`` nowhere.

    Attributes:
        fixed: Whether it does.
        cache: The keys and values of all slots.

    Raises:
        ParameterError: `graphs` is ``on`` for a model that is spread over several devices.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device | str | None = None,
        *,
        max_rows: int = 32,
        max_length: int = 8192,
        graphs: GraphMode = "off",
    ) -> None:
        config = model.config.get_text_config()
        use_fast_products(model)
        self.model = model
        self.device = torch.device(device) if device is not None else model.device
        self.graphs = Graphs(model.device)
        self.fixed = has_fixed_shapes(model, graphs)
        limits = max_rows, max_length
        self.cache = KVCache(config.num_hidden_layers, limits, self.graphs.clear)
        self._input_device = model.get_input_embeddings().weight.device
        self._window = getattr(config, "sliding_window", None)
        self._layer_types = set(getattr(config, "layer_types", None) or ())
        self._additive = config._attn_implementation == "eager"
        self._cache_argument = cache_argument(model)
        # A token that only the other side has is fed as this side's last: it is a control token.
        self._last_token = model.get_input_embeddings().weight.shape[0] - 1

    @torch.inference_mode()
    def prefill(
        self, start: int, tokens: Sequence[Sequence[int]], positions: Sequence[int]
    ) -> None:
        """Read some tokens in each of the slots ``start ..``, from a position on.

        Shorter rows are padded behind their tokens, which nothing ever attends to.
        """
        longest = max(map(len, tokens))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens])
        self.run(self.slot_range(start, len(tokens)), ids, list(positions))

    @torch.inference_mode()
    def forward(self, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> Tensor:
        """Read ``q`` tokens in each of the slots ``0 ..``, from a position on.

        Returns:
            The logits behind each token, ``(r, q, v)``.
        """
        return self.logits(self.slot_range(0, len(tokens)), torch.tensor(tokens), list(positions))

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy what has been read of the first `length` tokens from one slot to another."""
        self.cache.reserve(max(source, target) + 1, length)
        self.cache.copy(source, target, length)

    @torch.inference_mode()
    def save(self, slot: int, length: int) -> SavedPrefix:
        """Return a copy of what has been read of a slot's first `length` tokens."""
        kept = self.cache.save(slot, length)
        return SavedPrefix(kept, sum(tensor.nbytes for tensor in kept))

    @torch.inference_mode()
    def load(self, saved: SavedPrefix, slot: int, length: int) -> None:
        """Put the first `length` tokens of a saved prefix into a slot."""
        self.cache.load(saved.content, slot, length)

    def reset(self) -> None:
        """Empty all slots, and free their memory."""
        self.graphs.clear()
        self.cache.clear()

    def slot_range(self, start: int, count: int) -> range:
        """Return where in the cache so many slots are."""
        return range(start, start + count)

    def logits(self, slots: range, ids: Tensor, first: list[int]) -> Tensor:
        """Read ids ``(r, q)`` in slots of the cache; return all logits ``(r, q, v)``."""
        if not self.fixed:
            return self.run(slots, ids, first, ids.shape[1]).to(self.device)
        # A copy, because the next replay writes to the same place.
        return self.replay(slots, ids, first).to(self.device, copy=True)

    def run(self, slots: range, ids: Tensor, first: list[int], keep: int = 1) -> Tensor:
        """Read ids ``(r, q)`` in slots of the cache; return the last logits ``(r, keep, v)``."""
        ids = ids.clamp(max=self._last_token).to(self._input_device)
        positions = positions_of(first, ids).to(self._input_device)
        self.cache.set_write_positions(slots, first, positions)
        return self.call_model(ids, positions, keep)

    def replay(self, slots: range, ids: Tensor, first: list[int]) -> Tensor:
        """Read ids ``(r, q)`` in slots of the cache, in a forward of one of few shapes.

        The rows are padded to a power of two, the columns to one more than that, the positions that
        are seen to a power of two. What pads a batch is a token at position 0, which sees what its
        row's slot holds there; that may be in use, so its own keys go where nobody looks.
        """
        rows, width = ids.shape
        most_rows, most_seen = self.cache.limits
        all_rows = padded(rows, most_rows // slots.step)
        columns = 1 + padded(width - 1, 2 * width) if width > 1 else 1
        view = padded(max(max(first) + width, VIEW), most_seen)
        slots = range(slots.start, slots.start + slots.step * all_rows, slots.step)
        self.cache.reserve(slots[-1] + 1, view)
        values = torch.zeros((3, all_rows, columns), dtype=torch.long)
        values[2] = self.cache.length
        positions = positions_of(first, ids)
        values[:, :rows, :width] = torch.stack(
            [ids.clamp(max=self._last_token), positions, positions]
        )
        return self.graphs(self.run_graph, values, slots, view)[:rows, :width]

    def run_graph(self, values: Tensor, slots: range, view: int) -> Tensor:
        """Read ids at positions, written to places of the cache: ``(3, r, q)``, all that varies."""
        ids, positions, places = values.unbind()
        self.cache.set_write_places(slots, places, view)
        return self.call_model(ids, positions, ids.shape[1])

    def call_model(self, ids: Tensor, positions: Tensor, keep: int) -> Tensor:
        """Run the model's forward; the cache knows where it writes."""
        output = self.model(
            input_ids=ids,
            attention_mask=self.attention_mask(positions),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=keep,
            **{self._cache_argument: self.cache},
        )
        return output.logits  # type: ignore[no-any-return]

    def attention_mask(self, positions: Tensor) -> Tensor | dict[str, Tensor]:
        """Return who attends to whom, ``(r, 1, q, view)``, by layer type if there are several."""
        key = torch.arange(self.cache.view, device=positions.device)
        query = positions[:, None, :, None]
        full = key <= query
        if self._window is None or self._layer_types == {"full_attention"}:
            return self.mask_as_asked(full)
        sliding = self.mask_as_asked(full & (key > query - self._window))
        if not self._layer_types:
            return sliding
        return {"full_attention": self.mask_as_asked(full), "sliding_attention": sliding}

    def mask_as_asked(self, mask: Tensor) -> Tensor:
        """Return a bool mask as the model's attention takes it: eager attention adds it."""
        if not self._additive:
            return mask
        dtype = self.model.dtype
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def positions_of(first: list[int], ids: Tensor) -> Tensor:
    """Return the positions ``(r, q)`` of tokens that follow each row's first one."""
    return torch.tensor(first)[:, None] + torch.arange(ids.shape[1])


def cache_argument(model: Any) -> str:
    """Name the argument that takes the cache: transformers has renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def has_fixed_shapes(model: Any, graphs: GraphMode) -> bool:
    """Tell whether a model's forwards are to have fixed shapes."""
    if graphs == "off" or (graphs == "auto" and model.device.type != "cuda"):
        return False
    devices = sorted({str(weight.device) for weight in model.parameters()})
    if len(devices) > 1 and graphs == "on":
        raise ParameterError(
            "graphs",
            f"'auto' or 'off' for a model that is spread over {' and '.join(devices)}",
            graphs,
            "A CUDA graph belongs to one device.",
        )
    return len(devices) == 1


def run_pair(
    base: Any, aligned: Any, context: tuple[int, int], settings: EngineSettings
) -> PairRunner:
    """Return the runners of two models, whose logits meet where the aligned model is.

    Args:
        base: The base model.
        aligned: The aligned model.
        context: Their context windows, in tokens.
        settings: How the engine is opened.
    """
    first, second = (
        ModelRunner(
            model,
            aligned.device,
            max_rows=settings.max_rows,
            max_length=window,
            graphs=settings.graphs,
        )
        for model, window in zip((base, aligned), context, strict=True)
    )
    return PairRunner(first, second, second.device)
