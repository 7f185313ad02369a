"""Batches whose rows draw differently, though they share a seed.

Invariant: the first row of a batch that has a seed draws with the seed itself, as a single call
would; each later one draws with a seed of its own, which the seed and the row's place decide.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list

T = TypeVar("T")

_PLACE = "__baco_place"  # core leaves what begins with two underscores out of traces


def seed_at(seed: int, place: int) -> int:
    """Return the seed of a batch's row: the seed itself at place 0, else one that is derived."""
    if not place:
        return seed
    return int.from_bytes(blake2b(f"{seed}:{place}".encode(), digest_size=8).digest(), "big") >> 11


def place_of(config: RunnableConfig | None) -> int:
    """Return a call's place among the rows of its batch that share its seed; 0 outside of one."""
    place: int = ((config or {}).get("configurable") or {}).get(_PLACE, 0)
    return place


async def gathered(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for coroutines that run at once; an error of one, or cancelling, stops the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class NumberedBatches:
    """A mixin whose batches write each row's place among the rows with its seed into its config.

    A place that an outer wrapper has written already is kept.
    """

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> Any:
        """Answer several inputs in one batch."""
        return super().batch(inputs, self.numbered(config, len(inputs)), **kwargs)  # type: ignore[misc]

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> Any:
        """Answer several inputs in one batch, without blocking the event loop."""
        return await super().abatch(inputs, self.numbered(config, len(inputs)), **kwargs)  # type: ignore[misc]

    def batch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> Any:
        """Answer several inputs in one batch, each as soon as it is finished."""
        return super().batch_as_completed(inputs, self.numbered(config, len(inputs)), **kwargs)  # type: ignore[misc]

    def abatch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> Any:
        """Answer several inputs in one batch, each as soon as it is finished."""
        return super().abatch_as_completed(inputs, self.numbered(config, len(inputs)), **kwargs)  # type: ignore[misc]

    def numbered(self, config: Any, count: int) -> list[RunnableConfig]:
        """Return a config for each row, with its place among those that have the same seed."""
        places: Counter[object] = Counter()
        rows: list[RunnableConfig] = []
        for each in get_config_list(config, count):
            chosen = each.get("configurable") or {}
            seed = self.chosen_seed(chosen)
            rows.append({**each, "configurable": {_PLACE: places[seed], **chosen}})
            places[seed] += 1
        return rows

    def chosen_seed(self, chosen: Mapping[str, Any]) -> object:
        """Return the seed that a row's config sets; None where it sets none."""
        return None
