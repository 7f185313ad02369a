"""Attention over pages: each row reads its own pages, and rows of like length read theirs together.

What the cache hands to a model's attention are all pages of a layer, with the groups that the rows
of this forward fall into. The attention function below gathers the keys and values of one group
after another, so that a short row never pays for a long one. It is registered with transformers,
which calls it from each family's own model code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from ...policy.transfer import upload

PAGE = 16
"""Tokens of a page."""

GROUP_COST = 32
"""Another group takes as long as so many pages that are read for nothing."""

MOST_GATHERED = {"cpu": 256}
"""Most pages of several rows that are gathered at once: on a CPU what its caches hold."""

MOST_GATHERED_ELSEWHERE = 8192
"""The same on all other devices: it bounds the memory that gathering takes."""

PREFIX = "baco_"
"""What the names of the attention functions below begin with."""

UNPACKED = ("softcap", "position_bias")
"""Options that need transformers' own function."""


class Group(NamedTuple):
    """Rows of like length.

    Attributes:
        rows: Their numbers; None where they are all rows of the batch.
        table: ``(rows, pages)``, the pages of each.
        first: The first page of a single row whose pages lie side by side.
    """

    rows: Tensor | None
    table: Tensor
    first: int | None = None

    def gather(self, stored: Tensor) -> Tensor:
        """Return the rows' keys or values ``(r, kv_heads, view, head_dim)``."""
        rows, pages = self.table.shape
        if self.first is not None:
            return stored[None, :, self.first * PAGE : (self.first + pages) * PAGE]
        heads, _, size = stored.shape
        numbers = self.table.flatten().to(stored.device)
        found = stored.view(heads, -1, PAGE, size).index_select(1, numbers)
        return found.view(heads, rows, -1, size).transpose(0, 1)


def length_groups(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Put rows of like length together.

    Args:
        lengths: Each row's pages.
        most: Most pages in a group of several rows, padded to the longest.

    Returns:
        The rows' numbers by group, longest rows first.
    """
    groups: list[list[int]] = []
    waste = longest = total = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        waste, total = waste + longest - lengths[row], total + lengths[row]
        if not groups or waste > GROUP_COST + total / 4 or waste + total > most:
            groups.append([])
            waste, total, longest = 0, lengths[row], lengths[row]
        groups[-1].append(row)
    return groups


def groups_of(rows: Sequence[Sequence[int]], lengths: Sequence[int], table: Tensor) -> list[Group]:
    """Return the groups of a batch.

    Args:
        rows: Each row's pages.
        lengths: How many of them it reads.
        table: The same ``(r, pages)`` where the model is, padded.
    """
    most = MOST_GATHERED.get(table.device.type, MOST_GATHERED_ELSEWHERE)
    members = length_groups(lengths, most)
    groups = []
    for numbers in members:
        index = upload(numbers, table.device) if len(members) > 1 else None
        longest, first = lengths[numbers[0]], None
        if len(numbers) == 1:
            pages = rows[numbers[0]][:longest]
            first = pages[0] if [*pages] == [*range(pages[0], pages[0] + longest)] else None
        part = table if index is None else table[index]
        groups.append(Group(index, part[:, :longest], first))
    return groups


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    plain: Callable[..., Any],
    masked: Callable[..., Any],
    **options: Any,
) -> tuple[Tensor, Any]:
    """Attend to the pages of each group of rows; to whatever else as transformers does.

    Args:
        module: The attention module.
        query: ``(r, heads, q, head_dim)``.
        key: Keys ``(r, kv_heads, view, head_dim)``, or all pages with the ``groups`` of the batch.
        value: Values, likewise.
        attention_mask: ``(r, 1, q, view)``.
        plain: The attention without a mask of our own.
        masked: The attention with one.
        **options: What else a family gives: scaling, soft caps and so on.

    Returns:
        ``(r, q, heads, head_dim)``, and weights that nobody asks for.
    """
    groups: Sequence[Group] = getattr(key, "groups", ())
    if not groups:
        attention = plain if attention_mask is None else masked
        return attention(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
    if len(groups) == 1:
        keys, values = groups[0].gather(key), groups[0].gather(value)
        return masked(module, query, keys, values, attention_mask, **options)  # type: ignore[no-any-return]
    rows, heads, width, _ = query.shape
    output = query.new_empty((rows, width, heads, value.shape[-1]))
    for group in groups:
        assert group.rows is not None
        members = group.rows.to(query.device)
        keys, values = group.gather(key), group.gather(value)
        mask = attention_mask[members, ..., : keys.shape[2]]
        output[members] = masked(module, query[members], keys, values, mask, **options)[0]
    return output, None


def attend_packed(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend with all queries that share a head of keys side by side, so that none is copied."""
    if attention_mask.shape[1] > 1 or any(options.get(name) is not None for name in UNPACKED):
        options["scaling"] = scaling
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows, heads, width, size = query.shape
    shared = heads // key.shape[1]
    if width > 1:
        attention_mask = attention_mask.repeat(1, 1, shared, 1)
    if attention_mask.is_floating_point():
        attention_mask = attention_mask.to(query.dtype)
    packed = query.reshape(rows, key.shape[1], shared * width, size)
    output = scaled_dot_product_attention(packed, key, value, attention_mask, scale=scaling)
    return output.reshape(rows, heads, width, -1).transpose(1, 2), None


def attend_eagerly(module: Any, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """Attend as the model's own code does, with its soft caps and sinks."""
    own = sys.modules[type(module).__module__].eager_attention_forward
    return own(module, *args, **options)  # type: ignore[no-any-return]


AttentionInterface.register(
    f"{PREFIX}sdpa", partial(attend, plain=sdpa_attention_forward, masked=attend_packed)
)
AttentionInterface.register(
    f"{PREFIX}eager", partial(attend, plain=attend_eagerly, masked=attend_eagerly)
)
AttentionMaskInterface.register(f"{PREFIX}sdpa", sdpa_mask)
AttentionMaskInterface.register(f"{PREFIX}eager", eager_mask)


def use_paged_attention(model: Any) -> bool:
    """Let a model attend to pages; return whether its code can."""
    name = model.config.get_text_config()._attn_implementation
    if not name.startswith(PREFIX):
        if not model._can_set_attn_implementation():
            return False
        model.set_attn_implementation(PREFIX + name)
    return True
