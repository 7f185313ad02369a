"""The slot cache: the keys and values of every running row, side by side in one tensor per layer.

What a slot holds beyond its row's position is never attended to. So rows stand at different
positions in one forward, rolling back is moving a position back, padding needs no care, and copying
a prompt to another row is one copy per layer.

Behind its last position each slot has one more that is never read: where a batch is padded with
rows and columns whose slots may be in use, that is where they write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class _SlotLayer(CacheLayerMixin):
    """One layer's keys and values, ``(slots, kv_heads, length + 1, head_dim)`` each."""

    is_sliding = False

    def __init__(self, cache: KVCache) -> None:
        self.stored: list[Tensor] = []  # keys and values, once the first forward shows their shape
        super().__init__()  # type: ignore[no-untyped-call]
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        slots, length = self.cache.slots, self.cache.length
        self.stored = [_room(states, slots, length) for states in (key_states, value_states)]
        self.is_initialized = True

    def grow(self, slots: int, length: int) -> None:
        """Move to larger tensors, unless these are large enough."""
        for place, old in enumerate(self.stored):
            if old.shape[0] < slots or old.shape[2] <= length:
                new = _room(old, slots, length)
                new[: old.shape[0], :, : old.shape[2]] = old
                self.stored[place] = new

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values ``(r, kv_heads, q, head_dim)``; return all there is to see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.stored
        return self._write(keys, key_states), self._write(values, value_states)

    def _write(self, stored: Tensor, states: Tensor) -> Tensor:
        cache = self.cache
        if cache.first is not None:
            stored[cache.slice, :, cache.first : cache.first + states.shape[2]] = states
        else:
            slots, positions = (index.to(stored.device) for index in cache.index)
            stored[slots, :, positions] = states.transpose(1, 2)
        return stored[cache.slice, :, : cache.view]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.view, 0

    def get_seq_length(self) -> int:
        return self.cache.view

    def get_max_length(self) -> int:
        return -1


def _room(states: Tensor, slots: int, length: int) -> Tensor:
    """Return zeros for so many slots and one position more, otherwise like `states`."""
    return states.new_zeros((slots, states.shape[1], length + 1, states.shape[3]))


class KVCache(Cache):
    """Keys and values of all rows of one model.

    Before each forward, `set_write_positions` or `set_write_places` says where it writes.

    Args:
        layers: Number of the model's layers.
        limits: Most rows and positions that it is worth having room for.
        moving: Called before keys and values move to other tensors.

    Attributes:
        slots: How many rows there is room for.
        length: How many positions each row has room for.
    """

    def __init__(
        self, layers: int, limits: tuple[int, int], moving: Callable[[], None] = lambda: None
    ) -> None:
        self.limits = limits
        self._moving = moving
        self.slots, self.length, self.view = 0, 0, 0
        self.slice = slice(0)
        # The common first position, where there is one: a slice is written faster than an index.
        self.first: int | None = 0
        self.index: tuple[Tensor, Tensor]
        self.slot_layers = [_SlotLayer(self) for _ in range(layers)]
        super().__init__(layers=[*self.slot_layers])

    @property
    def bytes(self) -> int:
        """Bytes of all keys and values there is room for."""
        return sum(stored.nbytes for layer in self.slot_layers for stored in layer.stored)

    def set_write_positions(self, slots: range, first: list[int], positions: Tensor) -> None:
        """Say what the next forward writes.

        Args:
            slots: The rows' slots.
            first: The first position of each row.
            positions: ``(r, q)``, the same with all that follow.
        """
        self.slice = slice(slots.start, slots.stop, slots.step)
        self.first = first[0] if len(set(first)) == 1 else None
        self.index = (torch.tensor(slots, device=positions.device)[:, None], positions)
        self.view = max(first) + positions.shape[1]
        self.reserve(slots[-1] + 1, self.view)

    def set_write_places(self, slots: range, places: Tensor, view: int) -> None:
        """Say what the next forward writes, by a tensor alone; there must be room for it.

        Args:
            slots: The rows' slots.
            places: ``(r, q)``, the positions in them; `length` is one that is never read.
            view: How many positions are seen.
        """
        self.slice, self.first = slice(slots.start, slots.stop, slots.step), None
        rows = torch.arange(slots.start, slots.stop, slots.step, device=places.device)
        self.index, self.view = (rows[:, None], places), view

    def reserve(self, slots: int, length: int) -> None:
        """Make room, doubling what is too small so that growth is rare."""
        if slots <= self.slots and length <= self.length:
            return
        slots = _grown(self.slots, slots, self.limits[0])
        length = _grown(self.length, length, self.limits[1])
        self._moving()
        for layer in self.slot_layers:
            layer.grow(slots, length)
        # Only now: were there no memory for a layer, the next request would try again.
        self.slots, self.length = slots, length

    def clear(self) -> None:
        """Forget everything, and free its memory."""
        self.slots, self.length = 0, 0
        for layer in self.slot_layers:
            layer.stored, layer.is_initialized = [], False

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot to another."""
        for layer in self.slot_layers:
            for stored in layer.stored:
                stored[target, :, :length] = stored[source, :, :length]

    def save(self, slot: int, length: int) -> list[Tensor]:
        """Return copies of the first `length` positions of a slot."""
        return [
            stored[slot, :, :length].clone()
            for layer in self.slot_layers
            for stored in layer.stored
        ]

    def load(self, saved: list[Tensor], slot: int, length: int) -> None:
        """Put the first `length` positions of what was saved into a slot."""
        self.reserve(slot + 1, length)
        places = (stored for layer in self.slot_layers for stored in layer.stored)
        for stored, kept in zip(places, saved, strict=True):
            stored[slot, :, :length] = kept[:, :length]


def _grown(size: int, needed: int, limit: int) -> int:
    return size if needed <= size else max(needed, min(2 * size, limit))
