"""JSON as text that comes piece by piece."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from copy import copy
from typing import Any


class JsonScanner:
    """Follows JSON text character by character; what is not JSON is read as if it were.

    Attributes:
        brackets: The opening brackets that are not closed yet, outermost first.
        in_string: Whether the next character belongs to a string.
        is_value: Whether the string that is read, or comes next, is a value rather than a key.
    """

    def __init__(self, brackets: str = "") -> None:
        self.brackets = list(brackets)
        self.in_string = False
        self.is_value = True
        self._escaped = False

    def copy(self) -> JsonScanner:
        """Return a scanner at the same position that goes on by itself."""
        other = copy(self)
        other.brackets = self.brackets.copy()
        return other

    def push(self, char: str) -> None:
        """Take the next character."""
        if self.in_string:
            self.in_string = self._escaped or char != '"'
            self._escaped = char == "\\" and not self._escaped
        elif char == '"':
            self.in_string = True
        elif char in "{[":
            self.brackets.append(char)
            self.is_value = char == "["
        elif char in "}]":
            del self.brackets[-1:]
        elif char in ":,":
            self.is_value = char == ":" or self.brackets[-1:] == ["["]


def parse_json(text: str) -> Any:
    """Return what a JSON text holds, None if it is not JSON; strings may hold line breaks."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def repeated_key(text: str) -> str | None:
    """Return a key that an object in a JSON text has twice, None if there is none.

    Reading such a text as a dict would lose a value.
    """
    repeated: list[str] = []

    def keep(pairs: list[tuple[str, Any]]) -> None:
        counts = Counter(key for key, _ in pairs)
        repeated.extend(key for key, count in counts.items() if count > 1)

    with suppress(ValueError, RecursionError):
        json.loads(text, strict=False, object_pairs_hook=keep)
    return repeated[0] if repeated else None
