"""Decoding on another machine: what adapters ask of a decoder, asked of a server.

Everything that goes over the network runs on one event loop in a thread of its own, whichever
thread or event loop asks; streams are those of `decoder.stream`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..core.errors import MissingExtraError

if TYPE_CHECKING:
    from .decoder import RemoteDecoder
    from .endpoints.black_box import BlackBoxPair, ChatEndpoint
    from .endpoints.endpoint import Endpoint
    from .endpoints.pair import RemotePair

__all__ = ["BlackBoxPair", "ChatEndpoint", "Endpoint", "RemoteDecoder", "RemotePair"]

_HOMES = {
    "BlackBoxPair": ".endpoints.black_box",
    "ChatEndpoint": ".endpoints.black_box",
    "Endpoint": ".endpoints.endpoint",
    "RemoteDecoder": ".decoder",
    "RemotePair": ".endpoints.pair",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    except ModuleNotFoundError as error:
        if error.name == "httpx":
            raise MissingExtraError("A model on another machine (base_url)", "client") from error
        raise
