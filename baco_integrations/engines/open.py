"""Opens the engine that decodes a pair: the one place that knows all engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..models.base import Pair
from .base import Engine, EngineSettings, Mix

if TYPE_CHECKING:
    from ..core.routing import Source


def open_local(pair: Any, settings: EngineSettings, **how: Any) -> Engine:
    """Open the engine of two models that are loaded in this process."""
    from .local.engine import LocalEngine
    from .local.runner import run_pair
    from .local.shared_weights import run_shared_weights

    run = run_shared_weights if pair.lora else run_pair
    runner = run(pair.base, pair.aligned, pair.context, settings)
    return LocalEngine(runner, pair.token_space, pair.context, settings, **how)


def open_scripted(pair: Any, settings: EngineSettings, **how: Any) -> Engine:
    """Open the engine of a pair whose distributions are written down."""
    from .scripted import ScriptedEngine

    return ScriptedEngine(pair, pair.token_space, settings, **how)


ENGINES: dict[str, Callable[..., Engine]] = {
    "local": open_local,
    "scripted": open_scripted,
}
"""What opens each kind of engine, by the name that a pair gives as ``engine``."""


def open_engine(
    pair: Pair,
    settings: EngineSettings,
    *,
    only: Source | None = None,
    mix: Mix | None = None,
) -> Engine:
    """Open the engine that decodes a pair.

    Args:
        pair: The pair.
        settings: How the engine is opened.
        only: Run one side only, for who measures that model alone; see `LocalEngine`.
        mix: Replace aligned's logits, for who measures other ways to combine two models.
    """
    return ENGINES[pair.engine](pair, settings, only=only, mix=mix)
