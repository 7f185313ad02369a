"""Parts of messages that all frameworks' adapters write in the same way."""

from __future__ import annotations

from typing import Any

from ..core.errors import PromptError


def call_data(call_id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    """Return a tool call as an OpenAI-style dict of ``type``, ``id`` and ``function``."""
    function = {"name": name, "arguments": arguments}
    return {"type": "function", "id": call_id, "function": function}


def not_text(place: str, kind: object) -> PromptError:
    """Return the error of a part of a message that is no text.

    Args:
        place: Where it stands, such as ``messages[0].content``.
        kind: What it is.
    """
    remedy = "The models of a pair read text only: leave it out, or describe it in words."
    return PromptError(place, "text", f"a block of type {kind}", remedy)
