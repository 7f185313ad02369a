"""An OpenAI-compatible server of pairs, and the playground.

``baco serve`` runs it; `create_app` makes the same application for a server of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import MissingExtraError

if TYPE_CHECKING:
    from .app import create_app
    from .pairs import ServedPairs
    from .run import serve
    from .settings import ServerSettings

__all__ = ["ServedPairs", "ServerSettings", "create_app", "serve"]

_HOMES = {
    "ServedPairs": ".pairs",
    "ServerSettings": ".settings",
    "create_app": ".app",
    "serve": ".run",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("fastapi", "prometheus_client", "uvicorn"):
            raise MissingExtraError("The server", "server") from error
        raise
