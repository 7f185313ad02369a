"""The text of one tool call, as it comes: where it ends, its name and its arguments."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .json_text import JsonScanner, parse_json, repeated_key

ARGUMENT_KEYS = ("arguments", "parameters")


class CallScanner:
    """Finds the end of a call's JSON, and its name and arguments on the way.

    Args:
        close: The tag that closes a call; it ends one whose JSON is broken.
        divider: What stands between a bare name and the arguments, in formats that have it.

    Attributes:
        raw: The characters so far.
        name: The tool's name, once known.
        arguments: The characters of the arguments so far, once they begin.
        ended: Whether the call is over.
        broken: Whether something came that cannot be JSON.
    """

    def __init__(self, close: str, divider: str = "") -> None:
        self.raw: list[str] = []
        self.name: str | None = None
        self.arguments: list[str] | None = None
        self.ended = self.broken = False
        self._close, self._divider = close, divider
        self._json = JsonScanner()
        # How many of the open brackets were not written: a bare name's arguments are read as if
        # an object stood around them.
        self._unwritten = 0
        self._streaming = False
        # Of the outer object: the key of the value being read, and where this key or value begins.
        self._key: Any = None
        self._start = 0

    def push(self, char: str) -> None:
        """Take the next character."""
        if self._divider and (self.raw or char != "{"):
            self.read_name(char)
            return
        self._divider = ""
        if self._json.in_string:
            self._json.push(char)
        elif not self.broken:
            self.read_structure(char)
        self.raw.append(char)
        if self.broken and char == self._close[-1:]:
            self.ended = "".join(self.raw[-len(self._close) :]) == self._close
        if self._streaming and self.arguments is not None:
            self.arguments.append(char)
            self._streaming = len(self._json.brackets) > 1

    def read_name(self, char: str) -> None:
        """Take a character of a bare name, or of the divider behind it."""
        self.raw.append(char)
        length = len(self._divider)
        if char == self._divider[-1] and "".join(self.raw[-length:]) == self._divider:
            # Some templates put an id of the model's own between the two.
            self.name = "".join(self.raw[:-length]).partition("[CALL_ID]")[0].strip()
            self._divider, self._key, self._start = "", ARGUMENT_KEYS[0], len(self.raw)
            self._json, self._unwritten = JsonScanner("{"), 1

    def read_structure(self, char: str) -> None:
        """Take a character outside strings."""
        depth = len(self._json.brackets)
        outside = depth == self._unwritten and not char.isspace() and char != "{"
        if char == self._close[:1] or outside:
            self._streaming, self.broken = False, True
            if not outside:
                self.settle()
            return
        self._json.push(char)
        if char in "{[" and depth == 0:
            self._start = 1
        elif char == "{" and depth == 1 and self._key in ARGUMENT_KEYS:
            self._streaming = self.arguments is None
            self.arguments = self.arguments or []
        elif char in "}]" and depth == self._unwritten + 1:
            self.ended = True
            self.settle()
        elif char in ",:" and depth == 1:
            if char == ",":
                self.settle()
            self._key = None if char == "," else parse_json("".join(self.raw[self._start :]))
            self._start = len(self.raw) + 1

    def settle(self) -> None:
        """Take the name or the arguments from a value of which no more will come."""
        text = "".join(self.raw[self._start :]).strip()
        value = parse_json(text)
        if self._key == "name" and self.name is None and isinstance(value, str):
            self.name = encodable(value)
        elif self._key in ARGUMENT_KEYS and self.arguments is None:
            # Some models write the arguments as a string that holds JSON.
            self.arguments = list(encodable(value) if isinstance(value, str) else text)

    def result(self, names: Collection[str]) -> tuple[str, str, str | None]:
        """Return the name, the arguments and what is wrong with the call."""
        raw = "".join(self.raw).removesuffix(self._close).strip()
        value = "".join(self.raw[self._start :]) if self._unwritten else raw
        whole = isinstance(parse_json(value), dict)
        arguments = "".join(("{}" if whole else "") if self.arguments is None else self.arguments)
        error = None
        if not (self.ended or self.broken):
            error = "The text ends within the call."
        elif not whole:
            error = "The call is not valid JSON."
        elif self.name is None:
            error = "The call names no tool."
        elif self.name not in names:
            error = f"There is no tool {self.name!r}. Offered: {', '.join(sorted(names))}."
        elif not isinstance(parse_json(arguments), dict):
            error = "The arguments are not a JSON object."
        elif (key := repeated_key(arguments)) is not None:
            error = f"The arguments hold {key!r} twice."
        return ("", raw, error) if self.name is None else (self.name, arguments, error)


def encodable(text: str) -> str:
    """Escape lone surrogates, which UTF-8 cannot hold, in a way that JSON reads too."""
    return text.encode("utf-8", "backslashreplace").decode()
