"""Batches whose rows draw differently, though they share a seed.

Invariant: the first row of a batch that has a seed draws with the seed itself, as a single call
would; each later one draws with a seed of its own, which the seed and the row's place decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from langchain_core.runnables.configurable import (
    RunnableConfigurableAlternatives,
    RunnableConfigurableFields,
)

_PLACE = "__baco_place"  # core leaves what begins with two underscores out of traces


def seed_at(seed: int, place: int) -> int:
    """Return the seed of a batch's row: the seed itself at place 0, else one that is derived."""
    if not place:
        return seed
    return int.from_bytes(blake2b(f"{seed}:{place}".encode(), digest_size=8).digest(), "big") >> 11


def place_of(config: RunnableConfig | None) -> int:
    """Return a call's place among the rows of its batch that share its seed."""
    place: int = ((config or {}).get("configurable") or {}).get(_PLACE, 0)
    return place


class NumberedBatches:
    """Batches that tell each row its place; a wrapper's places stay as they are further inside."""

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Answer several inputs in one batch."""
        found: list[Any] = super().batch(inputs, self._placed(config, len(inputs)), **kwargs)  # type: ignore[misc]
        return found

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Answer several inputs in one batch, without blocking the event loop."""
        configs = self._placed(config, len(inputs))
        found: list[Any] = await super().abatch(inputs, configs, **kwargs)  # type: ignore[misc]
        return found

    def batch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """Answer several inputs in one batch, each as soon as it is finished."""
        configs = self._placed(config, len(inputs))
        found: Iterator[tuple[int, Any]] = super().batch_as_completed(inputs, configs, **kwargs)  # type: ignore[misc]
        return found

    def abatch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """Answer several inputs in one batch, each as soon as it is finished."""
        configs = self._placed(config, len(inputs))
        found: AsyncIterator[tuple[int, Any]] = super().abatch_as_completed(  # type: ignore[misc]
            inputs, configs, **kwargs
        )
        return found

    def _placed(self, config: Any, count: int) -> list[RunnableConfig]:
        """Return a config for each row that tells its place among those with the same seed."""
        places: Counter[object] = Counter()
        placed: list[RunnableConfig] = []
        for each in get_config_list(config, count):
            chosen = each.get("configurable") or {}
            seed = self._chosen_seed(chosen)
            placed.append({**each, "configurable": {_PLACE: places[seed], **chosen}})
            places[seed] += 1
        return placed

    def _chosen_seed(self, chosen: Mapping[str, Any]) -> object:
        """Return the seed that a row's config chooses, if that is a choice."""
        return None


class NumberedFields(NumberedBatches, RunnableConfigurableFields):  # type: ignore[type-arg]
    """A model some of whose fields come with the config."""

    def _chosen_seed(self, chosen: Mapping[str, Any]) -> object:
        # As text, since what is no seed may have no hash.
        return str(chosen.get(self.fields["seed"].id)) if "seed" in self.fields else None

    @classmethod
    def lc_id(cls) -> list[str]:
        """Return core's own class, which serialized objects name."""
        return RunnableConfigurableFields.lc_id()


class NumberedAlternatives(NumberedBatches, RunnableConfigurableAlternatives):  # type: ignore[type-arg]
    """Models of which the config chooses one."""

    @classmethod
    def lc_id(cls) -> list[str]:
        """Return core's own class, which serialized objects name."""
        return RunnableConfigurableAlternatives.lc_id()
