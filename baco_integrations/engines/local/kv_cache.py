"""The paged cache: the keys and values of one model's rows, in pages of a few tokens.

A row is the list of its pages. What a page holds beyond its row's position is never attended to. So
rows stand at different positions in one forward, and rolling back is moving a position back.

Rows share pages: one that begins like another takes its pages over, and whoever writes to a page
that others read gets a copy of it first. A page that nobody reads is free.

Nothing reads page 0: where a batch is padded, that is where the padding writes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from ...models.memory import readable
from ...policy.transfer import upload
from .paged_attention import PAGE, Group

GROWTH = 1.125
"""How much larger than needed the memory of all pages is made, and how much smaller it gets."""


class KVCacheFullError(torch.OutOfMemoryError):
    """There is no room for another page."""


class _PagedLayer(CacheLayerMixin):
    """One layer's keys and values, ``(kv_heads, pages * PAGE, head_dim)`` each."""

    is_sliding = False

    def __init__(self, cache: KVCache) -> None:
        self.stored: list[Tensor] = []  # keys and values, once the first forward shows their shape
        super().__init__()  # type: ignore[no-untyped-call]
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.stored = [
            states.new_zeros((states.shape[1], self.cache.pages * PAGE, states.shape[3]))
            for states in (key_states, value_states)
        ]
        self.is_initialized = True

    def resize(self, pages: int, kept: Tensor | slice) -> None:
        """Move some pages to the front of other tensors of so many pages."""
        for place, old in enumerate(self.stored):
            heads, _, size = old.shape
            self.stored[place] = new = old.new_zeros((heads, pages * PAGE, size))
            part = old.view(heads, -1, PAGE, size)[:, kept].flatten(1, 2)
            new[:, : part.shape[1]] = part

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values ``(r, kv_heads, q, head_dim)``; return all there is to see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        places = self.cache.places.to(key_states.device)
        for stored, states in zip(self.stored, (key_states, value_states), strict=True):
            stored.index_copy_(1, places, states.transpose(0, 1).flatten(1, 2))
        keys, values = self.stored
        if not self.cache.paged:
            (group,) = self.cache.groups
            return group.gather(keys), group.gather(values)
        keys = keys.view(keys.shape)
        keys.groups = self.cache.groups  # type: ignore[attr-defined]
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.view, 0

    def get_seq_length(self) -> int:
        return self.cache.view

    def get_max_length(self) -> int:
        return -1


class KVCache(Cache):
    """Keys and values of all rows of one model.

    Before each forward, `reserve` makes room for it, and `set_reading` says what it writes and
    sees.

    Args:
        layers: Number of the model's layers.
        page_bytes: Bytes of a page in all layers.
        most_pages: Most pages to hold, with page 0.
        moving: Called before keys and values move to other tensors; without it they may move at
            any time.
        paged: Whether the model's attention reads pages; else the pages of all rows are gathered.

    Attributes:
        pages: How many pages there is room for.
        rows: All rows, by their identity.
    """

    def __init__(
        self,
        layers: int,
        page_bytes: int,
        most_pages: int,
        moving: Callable[[], None] | None = None,
        paged: bool = True,
    ) -> None:
        self.page_bytes, self.most_pages = page_bytes, max(most_pages, 2)
        self._moving, self.paged = moving, paged
        self.places: Tensor
        self.groups: list[Group] = []
        self.view = 0
        self.paged_layers = [_PagedLayer(self) for _ in range(layers)]
        self.clear()
        super().__init__(layers=[*self.paged_layers])

    @property
    def bytes(self) -> int:
        """Bytes of all keys and values there is room for."""
        return sum(stored.nbytes for layer in self.paged_layers for stored in layer.stored)

    def clear(self) -> None:
        """Forget all rows, and free their memory."""
        self.pages = 1
        self.rows: dict[int, list[int]] = {}
        self._readers, self._free = [1], list[int]()
        for layer in self.paged_layers:
            layer.stored, layer.is_initialized = [], False

    def share(self, row: Sequence[int], length: int) -> list[int]:
        """Return a row that begins with the first `length` tokens of another, without a copy."""
        shared = list(row[: -(-length // PAGE)])
        for page in shared:
            self._readers[page] += 1
        self.rows[id(shared)] = shared
        return shared

    def release(self, row: list[int]) -> None:
        """Let go of a row; free the memory of many pages that nobody reads any longer."""
        self.rows.pop(id(row), None)  # one that was never made is empty
        for page in row:
            self._readers[page] -= 1
            if not self._readers[page]:
                heapq.heappush(self._free, page)
        used = self.pages - len(self._free)
        if self._moving is None and used * GROWTH**2 + PAGE < self.pages:
            self._compact()

    def reserve(
        self, rows: Sequence[list[int]], starts: Sequence[int], counts: Sequence[int]
    ) -> list[int]:
        """Give rows pages of their own for so many tokens each, from a position on.

        Returns:
            How many pages each row then has up to there.

        Raises:
            KVCacheFullError: There is no room for so many pages.
        """
        spans = [
            range(start // PAGE, -(-(start + count) // PAGE))
            for start, count in zip(starts, counts, strict=True)
        ]
        needed = sum(
            place >= len(row) or self._readers[row[place]] > 1
            for row, places in zip(rows, spans, strict=True)
            for place in places
        )
        if needed > len(self._free):
            self._grow(self.pages + needed - len(self._free))
        for row, places in zip(rows, spans, strict=True):
            for place in places:
                if place == len(row):
                    row.append(self._take())
                elif self._readers[row[place]] > 1:
                    page, old = self._take(), row[place]
                    for layer in self.paged_layers:
                        for stored in layer.stored:
                            pages = stored.view(len(stored), -1, PAGE, stored.shape[2])
                            pages[:, page] = pages[:, old]
                    self._readers[old] -= 1
                    row[place] = page
        return [places.stop for places in spans]

    def set_reading(self, places: Tensor, groups: list[Group], view: int) -> None:
        """Say what the next forward writes and sees.

        Args:
            places: ``(r, q)``, where keys and values go: the page times `PAGE`, and on.
            groups: What each row sees.
            view: Most positions that a row sees.
        """
        self.places, self.groups, self.view = places.flatten(), groups, view

    def _take(self) -> int:
        page = heapq.heappop(self._free)
        self._readers[page] = 1
        return page

    def _grow(self, pages: int) -> None:
        if pages > self.most_pages:
            held, most = ((count * self.page_bytes) for count in (pages, self.most_pages))
            raise KVCacheFullError(
                f"keys and values of all rows need {readable(held)} of {readable(most)}"
            )
        growth = GROWTH if self._moving is None else 2
        pages = min(max(pages, int(self.pages * growth) + PAGE), self.most_pages)
        if self._moving is not None:
            self._moving()
        for layer in self.paged_layers:
            layer.resize(pages, slice(None))
        # Only now: were there no memory for a layer, the next request would try again.
        self._free += range(self.pages, pages)
        heapq.heapify(self._free)
        self._readers += [0] * (pages - self.pages)
        self.pages = pages

    def _compact(self) -> None:
        """Move all pages that are read to smaller tensors."""
        used = [page for page, readers in enumerate(self._readers) if readers]
        for layer in self.paged_layers:
            for stored in layer.stored[:1]:
                layer.resize(len(used), upload(used, stored.device))
        moved = {page: place for place, page in enumerate(used)}
        for row in self.rows.values():
            row[:] = [moved[page] for page in row]
        self._readers = [self._readers[page] for page in used]
        self._free, self.pages = [], len(used)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def page_bytes_of(model: Any) -> int:
    """Return the bytes of a page of a model's keys and values, by its configuration."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    heads = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize * PAGE)
