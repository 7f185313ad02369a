"""The requests that the embedded pair is evaluated with, and requests typed by somebody.

Invariant: the wording of no request in requests.jsonl stands in the pair's training data.
``python -m cookbook.tiny_pair.write_requests`` writes the file anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import words

Message = dict[str, Any]
SPLITS = ("eval", "validation")
FILE = Path(__file__).parent / "requests.jsonl"


@dataclass(frozen=True)
class Request:
    """One open request.

    Attributes:
        id: Unique name; it begins with the name of the split.
        kind: Name of the kind of content that is asked for.
        form: "plain", "another" (a follow-up), "why" (a follow-up) or "list".
        system: What the system prompt asks for ("short", "wish" or "neutral"), or None.
        used: Contents the conversation has named, which an answer must not name again.
        messages: The conversation, ending with the user's turn.
        paraphrases: Other wordings of the user's last turn.
        again: A turn that asks for another answer.
    """

    id: str
    kind: str
    form: str
    system: str | None
    used: tuple[str, ...]
    messages: list[Message] = field(hash=False)
    paraphrases: tuple[str, ...] = ()
    again: str = ""


def requests(split: str) -> list[Request]:
    """Return the requests of a split, always the same ones.

    Args:
        split: "eval" or "validation".

    Raises:
        ValueError: There is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    entries = map(json.loads, FILE.read_text("utf-8").splitlines())
    return [
        Request(
            **one | {"used": tuple(one["used"]), "paraphrases": tuple(one["paraphrases"])},
        )
        for one in entries
        if one["id"].startswith(f"{split}-")
    ]


def recognised(messages: Sequence[Message]) -> Request | None:
    """Return what a conversation of one turn asks for, None where the world has no such request."""
    *before, last = messages
    text = last["content"]
    found = [
        (len(asked), kind.name, form)
        for kind in words.ALL_KINDS
        for form, count, phrases in (("plain", "", kind.asks), ("list", "three ", kind.plurals))
        for asked in phrases
        if re.search(rf"\b{count}{re.escape(asked)}\b", text, re.IGNORECASE)
    ]
    if not found:
        return None
    _, kind, form = max(found)
    system = before[0]["content"] if before else None
    asks = (name for name, splits in words.SYSTEMS.items() if system in sum(splits.values(), []))
    return Request("", kind, form, next(asks, None), (), list(messages))
