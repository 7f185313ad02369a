"""Pairs in this process whose sides are served, too, and the remote pair of those servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from baco_integrations import ModelPair
from baco_integrations.models.options import SIDES
from baco_integrations.remote import RemotePair
from baco_integrations.tiny import WEIGHTS
from tests.remote.endpoints.completion_server import CompletionServer, listening, server_of


@dataclass
class ServedSides:
    """A pair, the servers of its sides, and the pair of these."""

    local: ModelPair
    remote: RemotePair
    servers: tuple[CompletionServer, CompletionServer]

    @property
    def calls(self) -> list[int]:
        """How often each server was asked."""
        return [len(server.asked) for server in self.servers]


@cache
def files_of(pair: ModelPair) -> dict[str, str]:
    """Folders with what there is of a pair's sides but the weights."""
    if pair.name == "tiny":
        return {side: str(WEIGHTS / side) for side in SIDES}
    folder = Path(mkdtemp())
    for side in SIDES:
        model = getattr(pair, side)
        model.config.save_pretrained(folder / side)
        model.generation_config.save_pretrained(folder / side)
        getattr(pair, f"{side}_tokenizer").save_pretrained(folder / side)
    return {side: str(folder / side) for side in SIDES}


@contextmanager
def served_sides(
    pair: ModelPair, *, logprobs: int = 10_000, options: dict[str, Any] | None = None, **more: Any
) -> Iterator[ServedSides]:
    """Serve both sides of a pair; `more` are settings of the servers."""
    base, aligned = (server_of(pair, side, **more) for side in SIDES)
    files, asked = files_of(pair), {"logprobs": logprobs, "max_retries": 0, **(options or {})}
    with listening(base) as one, listening(aligned) as other:
        remote = RemotePair.connect(
            {"url": one, "files": files["base"], **asked},
            {"url": other, "files": files["aligned"], **asked},
        )
        base.asked.clear()
        aligned.asked.clear()
        yield ServedSides(pair, remote, (base, aligned))
