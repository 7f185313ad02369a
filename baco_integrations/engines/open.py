"""Opens the engine that decodes a pair: the one place that knows all engines."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING

from ..core.errors import ParameterError
from ..models.base import Pair
from .base import Engine, EngineSettings, Mix

if TYPE_CHECKING:
    from ..core.routing import Source

ENGINES = {
    "local": "baco_integrations.engines.local.engine:open_local",
    "remote": "baco_integrations.remote.endpoints.engine:RemotePairEngine",
    "black-box": "baco_integrations.remote.endpoints.black_box:BlackBoxEngine",
    "scripted": "baco_integrations.engines.scripted:ScriptedEngine",
    "vllm": "baco_integrations.engines.vllm.engine:open_vllm",
}
"""What opens each engine, by the name that its pairs give as ``engine``."""


def open_engine(
    pair: Pair, settings: EngineSettings, *, only: Source | None = None, mix: Mix | None = None
) -> Engine:
    """Open the engine that decodes a pair.

    Args:
        pair: The pair.
        settings: How the engine is opened.
        only: Run one side only, for who measures that model alone; the other one's logits are all
            alike.
        mix: Replace aligned's logits, for who measures other ways to combine two models.

    Raises:
        ParameterError: No engine has the name that the pair gives.
    """
    if pair.engine not in ENGINES:
        raise ParameterError(
            "pair",
            f"a pair whose engine is one of {', '.join(ENGINES)}",
            pair.engine,
            "Give the decoder an engine of your own as engine=...",
        )
    engine: Engine = resolve_name(ENGINES[pair.engine])(pair, settings, only=only, mix=mix)
    return engine
