"""The decoder that everything shares: conversations in, text with provenance out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decoder import Decoder

__all__ = ["Decoder"]


def __getattr__(name: str) -> Any:
    if name == "Decoder":  # torch is loaded when it is first used
        from .decoder import Decoder

        return Decoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
