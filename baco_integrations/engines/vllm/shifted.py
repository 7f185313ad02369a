"""Different prompts for the two sides of one request.

vLLM schedules one sequence for each request, as long as the longer of its prompts. The side with
the shorter prompt runs behind the other, so many positions as it has fewer tokens: it reads tokens
of its own, at positions of its own, and keeps its keys where those positions are in the request's
blocks. Only what attention is told of the batch differs, by side. The tokens that this side does
not have are told as requests of their own over vLLM's empty block, whose outputs nobody reads.

Such blocks do not hold what their tokens say for this side, so `admission` lets nobody share them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from vllm.v1.attention.backend import subclass_attention_backend

from .admission import Row
from .rows import OPEN


class Shift(NamedTuple):
    """What one side reads instead, for the first ``t`` tokens of the batch.

    Attributes:
        own: ``(t,)`` bool, tokens of this side's own prompt.
        ids: ``(t,)`` those tokens.
        positions: ``(t,)`` the positions of all.
        slots: Where all keys go, as vLLM numbers them; -1 is nowhere.
    """

    own: Tensor
    ids: Tensor
    positions: Tensor
    slots: Tensor


class Span(NamedTuple):
    """The tokens that one row has in the batch.

    Attributes:
        start: Which of the batch's tokens is its first.
        tokens: How many there are.
        first: The position of its first token in the sequence that vLLM schedules.
        prompt: The prompt that only this side has; empty if both read the same.
        offset: How far the side is behind.
    """

    start: int
    tokens: int
    first: int
    prompt: tuple[int, ...]
    offset: int

    @property
    def idle(self) -> int:
        """How many of its tokens this side does not have."""
        return max(0, min(self.offset - self.first, self.tokens))


def spans_of(common: Any, rows: Sequence[Row], side: int) -> list[Span]:
    """Return the span of each row in a batch, for one side."""
    starts = common.query_start_loc_cpu.tolist()
    lengths = common.seq_lens_cpu_upper_bound.tolist()
    spans = []
    for place, row in enumerate(rows):
        tokens = starts[place + 1] - starts[place]
        prompt, offset = (row.prompt, row.offset) if row.side == side else ((), 0)
        spans.append(Span(starts[place], tokens, lengths[place] - tokens, prompt, offset))
    return spans


def shift_of(common: Any, spans: Sequence[Span], block_size: int) -> Shift:
    """Return what one side reads in a batch.

    Args:
        common: What vLLM tells attention of the batch.
        spans: Its rows.
        block_size: How many keys a block holds.
    """
    total = spans[-1].start + spans[-1].tokens
    own, ids = np.zeros(total, dtype=np.bool_), np.zeros(total, dtype=np.int64)
    positions, places = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=np.int64)
    for place, span in enumerate(spans):
        where = slice(span.start, span.start + span.tokens)
        positions[where] = np.arange(span.tokens) + span.first - span.offset
        places[where] = place
        if span.prompt:
            prompt = np.asarray(span.prompt)
            inside = (positions[where] >= 0) & (positions[where] < len(prompt))
            own[where] = inside
            ids[where][inside] = prompt[positions[where][inside]]
    device = common.block_table_tensor.device
    here = torch.from_numpy(positions).to(device)
    at = here.clamp(min=0)
    blocks = common.block_table_tensor[torch.from_numpy(places).to(device), at // block_size]
    slots = common.slot_mapping.clone()
    found = blocks.long() * block_size + at % block_size
    slots[:total] = torch.where(here >= 0, found, -1).to(slots.dtype)
    return Shift(torch.from_numpy(own).to(device), torch.from_numpy(ids).to(device), at, slots)


def shifted_batch(common: Any, spans: Sequence[Span], shift: Shift) -> Any:
    """Return what attention is told of the batch on the side that is behind."""
    starts, lengths, places = [0], [], []
    for place, span in enumerate(spans):
        if span.idle:
            starts.append(starts[-1] + span.idle)
            lengths.append(span.idle)
            places.append(-1)
        if span.tokens > span.idle:
            starts.append(span.start + span.tokens)
            lengths.append(span.first + span.tokens - span.offset)
            places.append(place)
    device = common.seq_lens.device
    taken = torch.tensor(places, device=device)
    table = common.block_table_tensor[taken.clamp(min=0)].masked_fill(taken[:, None] < 0, 0)
    begins = torch.tensor(starts, dtype=common.query_start_loc_cpu.dtype)
    known = torch.tensor(lengths, dtype=common.seq_lens.dtype)
    return dataclasses.replace(
        common,
        num_reqs=len(places),
        query_start_loc=begins.to(device),
        query_start_loc_cpu=begins,
        seq_lens=known.to(device),
        seq_lens_cpu_upper_bound=known,
        block_table_tensor=table,
        slot_mapping=shift.slots,
        positions=shift.positions,
        is_prefilling=None,
    )


def shifted_backend(backend: Any, side: int) -> Any:
    """Return an attention backend that tells one side what it has to read.

    Args:
        backend: The backend of the side's layers.
        side: `BASE` or `ALIGNED`.
    """

    class ShiftedBuilder(backend.get_builder_cls()):  # type: ignore[misc]
        supports_update_block_table = False

        def build(self, common_prefix_len: int, common: Any, fast_build: bool = False) -> Any:
            rows = OPEN.get(id(self.vllm_config))
            asked = rows.asked() if rows is not None else []
            if rows is not None and any(row.side == side for row in asked):
                spans = spans_of(common, asked, side)
                rows.shifts[side] = shift_of(common, spans, self.kv_cache_spec.block_size)
                common = shifted_batch(common, spans, rows.shifts[side])
                common_prefix_len = 0
            return super().build(common_prefix_len, common, fast_build)

    return subclass_attention_backend(f"Baco{side}", backend, ShiftedBuilder)
