"""A side: one model with the rows it is decoding, fed token by token.

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
from .cuda_graphs import Graphs, Mode, padded
from .kv_cache import KVCache
from .products import use_fast_products

VIEW = 256
"""Fewest positions that a forward of fixed shape sees."""


class Saved(NamedTuple):
    """What a slot has seen, kept beside the slots, and how many bytes that takes."""

    content: Any
    bytes: int


class Side(Protocol):
    """What the engine asks of a model."""

    def read(self, start: int, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> None:
        """Feed some tokens to each of the slots ``start ..``, from a position on."""

    def advance(self, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> Tensor:
        """Feed ``q`` tokens to each of the slots ``0 ..``, from a position on.

        Returns:
            The logits behind each token, ``(r, q, v)``.
        """

    def copy(self, source: int, target: int, length: int) -> None:
        """Let one slot have seen the first `length` tokens of another."""

    def save(self, slot: int, length: int) -> Saved:
        """Keep what a slot has seen of its first `length` tokens."""

    def load(self, saved: Saved, slot: int, length: int) -> None:
        """Let a slot have seen the first `length` of the tokens that were kept."""

    def reset(self) -> None:
        """Forget everything, and free its memory."""


class ModelRunner:
    """A Hugging Face causal language model as a side.

    Args:
        model: Any decoder-only model whose attention takes a 4-D mask (``sdpa`` or ``eager``).
        device: Where the logits are wanted; the model's own device if left out.
        max_rows: Most rows that will run at once.
        max_length: Most positions that a row will take.
        graphs: Whether `advance` keeps to few shapes and replays them as CUDA graphs: ``auto`` on a
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
        graphs: Mode = "off",
    ) -> None:
        config = model.config.get_text_config()
        use_fast_products(model)
        self.model = model
        self.device = torch.device(device) if device is not None else model.device
        self.graphs = Graphs(model.device)
        self.fixed = _fixed(model, graphs)
        limits = max_rows, max_length
        self.cache = KVCache(config.num_hidden_layers, limits, self.graphs.clear)
        self._input_device = model.get_input_embeddings().weight.device
        self._window = getattr(config, "sliding_window", None)
        self._layer_types = set(getattr(config, "layer_types", None) or ())
        self._additive = config._attn_implementation == "eager"
        self._cache_argument = _cache_argument(model)
        # A token that only the other side has is fed as this side's last: it is a control token.
        self._last_token = model.get_input_embeddings().weight.shape[0] - 1

    @torch.inference_mode()
    def read(self, start: int, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> None:
        """Feed some tokens to each of the slots ``start ..``, from a position on.

        Shorter rows are padded behind their tokens, which nothing ever attends to.
        """
        longest = max(map(len, tokens))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens])
        self._forward(self._slots(start, len(tokens)), ids, list(positions))

    @torch.inference_mode()
    def advance(self, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> Tensor:
        """Feed ``q`` tokens to each of the slots ``0 ..``, from a position on.

        Returns:
            The logits behind each token, ``(r, q, v)``.
        """
        return self._logits(self._slots(0, len(tokens)), torch.tensor(tokens), list(positions))

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Let one slot have seen the first `length` tokens of another."""
        self.cache.reserve(max(source, target) + 1, length)
        self.cache.copy(source, target, length)

    @torch.inference_mode()
    def save(self, slot: int, length: int) -> Saved:
        """Keep what a slot has seen of its first `length` tokens."""
        kept = self.cache.save(slot, length)
        return Saved(kept, sum(tensor.nbytes for tensor in kept))

    @torch.inference_mode()
    def load(self, saved: Saved, slot: int, length: int) -> None:
        """Let a slot have seen the first `length` of the tokens that were kept."""
        self.cache.load(saved.content, slot, length)

    def reset(self) -> None:
        """Forget everything, and free its memory."""
        self.graphs.clear()
        self.cache.clear()

    def _slots(self, start: int, count: int) -> range:
        """Return where in the cache so many slots are."""
        return range(start, start + count)

    def _logits(self, slots: range, ids: Tensor, first: list[int]) -> Tensor:
        """Feed ids ``(r, q)`` to slots of the cache; return all logits ``(r, q, v)``."""
        if not self.fixed:
            return self._forward(slots, ids, first, ids.shape[1]).to(self.device)
        # A copy, because the next replay writes to the same place.
        return self._replay(slots, ids, first).to(self.device, copy=True)

    def _forward(self, slots: range, ids: Tensor, first: list[int], keep: int = 1) -> Tensor:
        """Feed ids ``(r, q)`` to slots of the cache; return the last logits ``(r, keep, v)``."""
        ids = ids.clamp(max=self._last_token).to(self._input_device)
        positions = _positions(first, ids).to(self._input_device)
        self.cache.set_write_positions(slots, first, positions)
        return self._run(ids, positions, keep)

    def _replay(self, slots: range, ids: Tensor, first: list[int]) -> Tensor:
        """Feed ids ``(r, q)`` to slots of the cache, in a forward of one of few shapes.

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
        positions = _positions(first, ids)
        values[:, :rows, :width] = torch.stack(
            [ids.clamp(max=self._last_token), positions, positions]
        )
        return self.graphs(self._run_at, values, slots, view)[:rows, :width]

    def _run_at(self, values: Tensor, slots: range, view: int) -> Tensor:
        """Feed ids, positions and where these are kept, ``(3, r, q)``: all that varies."""
        ids, positions, places = values.unbind()
        self.cache.set_write_places(slots, places, view)
        return self._run(ids, positions, ids.shape[1])

    def _run(self, ids: Tensor, positions: Tensor, keep: int) -> Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=self._mask(positions),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=keep,
            **{self._cache_argument: self.cache},
        )
        return output.logits  # type: ignore[no-any-return]

    def _mask(self, positions: Tensor) -> Tensor | dict[str, Tensor]:
        """Return who attends to whom, ``(r, 1, q, view)``, by layer type if there are several."""
        key = torch.arange(self.cache.view, device=positions.device)
        query = positions[:, None, :, None]
        seen = key <= query
        if self._window is None or self._layer_types == {"full_attention"}:
            return self._in_form(seen)
        near = seen & (key > query - self._window)
        if not self._layer_types:
            return self._in_form(near)
        return {"full_attention": self._in_form(seen), "sliding_attention": self._in_form(near)}

    def _in_form(self, mask: Tensor) -> Tensor:
        if not self._additive:
            return mask
        dtype = self.model.dtype
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _positions(first: list[int], ids: Tensor) -> Tensor:
    """Return the positions ``(r, q)`` of tokens that follow each row's first one."""
    return torch.tensor(first)[:, None] + torch.arange(ids.shape[1])


def _cache_argument(model: Any) -> str:
    """Name the argument that takes the cache: transformers has renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _fixed(model: Any, graphs: Mode) -> bool:
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
