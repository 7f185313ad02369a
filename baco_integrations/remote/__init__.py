"""Decoding on another machine: what adapters ask of a decoder, asked of a server.

Everything that goes over the network runs on one event loop in a thread of its own, whichever
thread or event loop asks; streams are those of `decoder.stream`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import MissingExtraError

if TYPE_CHECKING:
    from .decoder import RemoteDecoder

__all__ = ["RemoteDecoder"]


def __getattr__(name: str) -> Any:
    if name != "RemoteDecoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .decoder import RemoteDecoder
    except ModuleNotFoundError as error:
        if error.name == "httpx":
            raise MissingExtraError("A model on another machine (base_url)", "client") from error
        raise
    return RemoteDecoder
