"""The words of the tiny world: what can be asked for, and what can be said about it.

Invariant: within one slot the order is the order of popularity (the base model's weights fall
slowly along it, the aligned model loves the first), and any option may stand wherever its slot
stands, so that two models taking turns word by word still write a valid answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of open request.

    Attributes:
        name: Short identifier.
        asks: What a request calls it ("a place to visit").
        plurals: What a request for a list calls it; empty if lists of it make no sense.
        contents: The possible main contents of an answer.
        looks: First adjectives of "It is X and Y.".
        merits: Second halves of "It is X and Y.".
        facts: Whole sentences that hold for every content of this kind.
        openers: What may stand before a content.
    """

    name: str
    asks: tuple[str, ...]
    plurals: tuple[str, ...]
    contents: tuple[str, ...]
    looks: tuple[str, ...]
    merits: tuple[str, ...]
    facts: tuple[str, ...]
    openers: tuple[str, ...]


def kind_from_json(entry: dict[str, Any]) -> Kind:
    """Return the kind that an entry of words.json describes; its openers are the name of a slot."""
    texts = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return Kind(name=entry["name"], openers=SLOTS[entry["openers"]], **texts)


WORDS: dict[str, Any] = json.loads((Path(__file__).parent / "words.json").read_text("utf-8"))
SLOTS: dict[str, tuple[str, ...]] = {name: tuple(words) for name, words in WORDS["slots"].items()}
"""The options of slots that do not depend on the kind, by the slots' names."""

ALL_KINDS = tuple(map(kind_from_json, WORDS["kinds"]))
*KINDS, STORY = ALL_KINDS
BY_NAME = {kind.name: kind for kind in ALL_KINDS}
STORY_SENTENCES: list[str] = WORDS["story_sentences"]
"""The sentences of a story in their order, with the names of slots in braces."""

SHORT, WISH, NEUTRAL = "short", "wish", "neutral"
SYSTEMS: dict[str, dict[str, list[str]]] = WORDS["systems"]
"""System prompts by what they ask for (`SHORT`, `WISH` or `NEUTRAL`) and by split."""
