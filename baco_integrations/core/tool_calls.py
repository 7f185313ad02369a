"""Tool calls: how families of models write them, and reading them out of text as it comes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

ARGUMENT_KEYS = ("arguments", "parameters")
_PYTHON_TAG = "<|python_tag|>"


class CallPiece(NamedTuple):
    """A piece of a tool call, as streamed.

    Attributes:
        index: Which call of the answer this belongs to, from 0.
        id: The call's id, in its first piece only.
        name: The tool's name, in the first piece only.
        arguments: The next piece of the JSON text of the arguments.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    id: str | None
    name: str | None
    arguments: str


class ToolCall(NamedTuple):
    """A tool call, valid or not.

    Attributes:
        id: The call's id.
        name: The tool's name; empty if it was not readable.
        arguments: The JSON text of an object. In a call that is not valid, as much of it as came,
            or the text of the whole call if the name was not readable.
        error: Why the call is not valid; None if it is.
    """

    id: str
    name: str
    arguments: str
    error: str | None

    @property
    def parsed(self) -> dict[str, Any]:
        """The arguments of a valid call."""
        arguments: dict[str, Any] = json.loads(self.arguments, strict=False)
        return arguments


@dataclass(frozen=True)
class CallFormat:
    """How a family of models writes tool calls.

    Attributes:
        name: The format's name.
        begin: What stands before the first call of an answer.
        before: What stands before each call.
        after: What stands behind each call.
        separator: What stands between two calls; None where an answer should hold one call only.
        end: What stands behind the last call.
        arguments: The key of the arguments.
        divider: What stands between the name and the arguments where a call is no JSON object.
    """

    name: str
    begin: str
    before: str
    after: str
    separator: str | None
    end: str
    arguments: str = "arguments"
    divider: str = ""

    @property
    def opener(self) -> str:
        """The tag that opens calls within an answer; empty if calls are the whole answer."""
        return (self.begin + self.before).strip().removesuffix("[").rstrip()

    @property
    def tail(self) -> str:
        """What stands behind a call's arguments."""
        return "" if self.divider else "}"

    def head(self, name: str) -> str:
        """Return what stands before a call's arguments."""
        if self.divider:
            return name + self.divider
        return f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{self.arguments}": '

    def write(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Write calls, each a name with its arguments.

        Several calls in a format for one are written on lines of their own, so that a history with
        such an answer can be written too.
        """
        texts = (
            self.head(name) + json.dumps(arguments, ensure_ascii=False) + self.tail
            for name, arguments in calls
        )
        separator = "\n" if self.separator is None else self.separator
        written = separator.join(self.before + _encodable(text) + self.after for text in texts)
        return self.begin + written + self.end


FORMATS: dict[str, CallFormat] = {
    form.name: form
    for form in (
        CallFormat("hermes", "", "<tool_call>\n", "\n</tool_call>", "\n", ""),
        CallFormat("llama3", "", "", "", None, "", "parameters"),
        CallFormat("mistral", "[TOOL_CALLS][", "", "", ", ", "]"),
        CallFormat("mistral-args", "", "[TOOL_CALLS]", "", "", "", divider="[ARGS]"),
        CallFormat("json", "", "", "", None, ""),
    )
}
"""Every format by its name."""


class CallReader:
    """Splits the text of an answer into what is said and the calls, as it comes.

    The joined results do not depend on how the text is cut. Where calls are the whole answer, an
    answer that begins like JSON is held back until its tool is known; without an offered tool's
    name, and without a name and arguments, it is text. White space around calls is dropped.

    Args:
        form: How the model writes calls.
        names: The tools offered.
        new_id: Gives the id of a call by its index.
    """

    def __init__(
        self, form: CallFormat, names: Collection[str], new_id: Callable[[int], str]
    ) -> None:
        self._names = names
        self._new_id = new_id
        self._opener = form.opener
        self._close, self._divider = form.after.strip(), form.divider
        self._leads = (self._opener,) if self._opener else (_PYTHON_TAG, "```", "json", "[")
        self._closers_of = {"[": "]", "```": "```", self._opener: self._close}
        self._done: list[ToolCall] = []
        self._call: _Call | None = None
        self._ids: list[str] = []
        self._sent = 0
        # Outside calls: white space and whole marks that may belong to a call, the mark begun,
        # and the marks that close what stands open.
        self._held: list[str] = []
        self._mark = ""
        self._closers: list[str] = []
        self._opened = False
        self._behind = False
        self._plain = False
        self._said: list[str] = []
        self._pieces: list[CallPiece] = []

    @property
    def calls(self) -> list[ToolCall]:
        """The calls begun so far, the last as if the text ended here."""
        if self._call is None or len(self._ids) == len(self._done):
            return list(self._done)
        return [*self._done, ToolCall(self._ids[-1], *self._call.result(self._names))]

    def push(
        self, text: str, *, last: bool = False, cut: bool = False
    ) -> tuple[str, tuple[CallPiece, ...]]:
        """Take the next text and return what it releases: what is said, and pieces of calls.

        Args:
            text: The text.
            last: Whether no more will come: then everything held back is released.
            cut: Whether more would have come: then half a tag or a comma is no text.
        """
        self._said, self._pieces = [], []
        for char in text:
            self._read(char)
        if last:
            self._stop(cut)
        elif self._call and self._call.name is not None and self._call.arguments is not None:
            self._send(self._call.name, "".join(self._call.arguments[self._sent :]))
        return "".join(self._said), tuple(self._pieces)

    def _read(self, char: str) -> None:
        if self._plain:
            self._said.append(char)
        elif self._call is not None:
            self._call.push(char)
            if self._call.ended:
                self._finish(self._call)
        elif char.isspace() and not self._mark:
            self._held.append(char)
        else:
            self._match(char)

    def _match(self, char: str) -> None:
        """Read a character outside calls that is part of a mark or of what is said."""
        marks = self._marks()
        mark = self._mark + char
        begun = any(known.startswith(mark) for known in marks)
        if mark == "{" and begun or self._opened and not begun:
            self._begin()
            self._read(char)
        elif mark in marks:
            self._take(mark)
        elif begun:
            self._mark = mark
        elif self._mark:
            # No tag holds its first character twice, so only this character can begin another.
            self._release(self._mark)
            self._read(char)
        else:
            self._release(char)

    def _marks(self) -> tuple[str, ...]:
        """Return the marks that may come here."""
        if self._opened:
            return "[", "{"
        inside = self._closers or not self._opener
        return *self._closers, *self._leads, *("{,;" if inside else "")

    def _take(self, mark: str) -> None:
        self._mark = ""
        if mark in self._closers:
            self._closers.remove(mark)
            self._held.clear()
        else:
            self._held.append(mark)
            self._opened |= mark == self._opener

    def _begin(self) -> None:
        closers = [self._closers_of.get(mark) for mark in self._held]
        self._closers += [closer for closer in closers if closer]
        self._opened = False
        self._call = _Call(self._close, self._divider)

    def _finish(self, call: _Call, cut: bool = False) -> None:
        """End a call, or give its text back if it is none."""
        self._call = None
        named = call.name in self._names or None not in (call.name, call.arguments)
        if not (self._opener or named or cut and self._behind):
            self._release("".join(call.raw))
            return
        name, arguments, error = call.result(self._names)
        self._send(name, arguments[self._sent :])
        self._done.append(ToolCall(self._ids[-1], name, arguments, error))
        self._sent = 0
        self._held.clear()
        self._behind = True
        if call.broken:
            self._closers.clear()

    def _send(self, name: str, text: str) -> None:
        index = len(self._done)
        if len(self._ids) == index:
            self._ids.append(self._new_id(index))
            self._pieces.append(CallPiece(index, self._ids[-1], name, text))
        elif text:
            self._pieces.append(CallPiece(index, None, None, text))
        self._sent += len(text)

    def _release(self, text: str) -> None:
        """Give out what is held and a text behind it, which are no part of a call."""
        text = "".join(self._held) + text
        self._said.append(text.lstrip() if self._behind else text)
        self._held.clear()
        self._mark = ""
        self._closers.clear()
        self._behind = False
        self._plain = not self._opener

    def _stop(self, cut: bool) -> None:
        if self._opened:
            self._begin()
        if self._call is not None:
            self._call.settle()
            self._finish(self._call, cut)
        held = "".join([*self._held, self._mark]).strip()
        tag = held and (self._opener.startswith(held) or _PYTHON_TAG.startswith(held))
        if cut and (tag or self._behind or self._closers):
            self._held.clear()
            self._mark = ""
        self._release(self._mark)


class _Call:
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
        self.ended = False
        self.broken = False
        self._close, self._divider = close, divider
        # How many brackets are open, and how many of them were not written: a bare name's
        # arguments are read as if an object stood around them.
        self._depth = self._unwritten = 0
        self._quoted = False
        self._escaped = False
        self._streaming = False
        # Of the outer object: the key of the value being read, and where this key or value begins.
        self._key: Any = None
        self._start = 0

    def push(self, char: str) -> None:
        """Take the next character."""
        if self._divider and (self.raw or char != "{"):
            self._head(char)
            return
        self._divider = ""
        if self._quoted:
            self._quoted = self._escaped or char != '"'
            self._escaped = char == "\\" and not self._escaped
        elif not self.broken:
            self._structure(char)
        self.raw.append(char)
        if self.broken and char == self._close[-1:]:
            self.ended = "".join(self.raw[-len(self._close) :]) == self._close
        if self._streaming and self.arguments is not None:
            self.arguments.append(char)
            self._streaming = self._depth > 1

    def settle(self) -> None:
        """Take the name or the arguments from a value of which no more will come."""
        text = "".join(self.raw[self._start :]).strip()
        value = _loads(text)
        if self._key == "name" and self.name is None and isinstance(value, str):
            self.name = _encodable(value)
        elif self._key in ARGUMENT_KEYS and self.arguments is None:
            # Some models write the arguments as a string that holds JSON.
            self.arguments = list(_encodable(value) if isinstance(value, str) else text)

    def result(self, names: Collection[str]) -> tuple[str, str, str | None]:
        """Return the name, the arguments and what is wrong with the call."""
        raw = "".join(self.raw).removesuffix(self._close).strip()
        value = "".join(self.raw[self._start :]) if self._unwritten else raw
        whole = isinstance(_loads(value), dict)
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
        elif not isinstance(_loads(arguments), dict):
            error = "The arguments are not a JSON object."
        elif (key := repeated_key(arguments)) is not None:
            error = f"The arguments hold {key!r} twice."
        return ("", raw, error) if self.name is None else (self.name, arguments, error)

    def _head(self, char: str) -> None:
        """Take a character of a bare name, or of the divider behind it."""
        self.raw.append(char)
        length = len(self._divider)
        if char == self._divider[-1] and "".join(self.raw[-length:]) == self._divider:
            # Some templates put an id of the model's own between the two.
            self.name = "".join(self.raw[:-length]).partition("[CALL_ID]")[0].strip()
            self._divider, self._key, self._start = "", ARGUMENT_KEYS[0], len(self.raw)
            self._depth = self._unwritten = 1

    def _structure(self, char: str) -> None:
        """Take a character outside strings."""
        outside = self._depth == self._unwritten and not char.isspace() and char != "{"
        if char == self._close[:1] or outside:
            self._streaming = False
            self.broken = True
            if not outside:
                self.settle()
        elif char == '"':
            self._quoted = True
        elif char in "{[":
            self._depth += 1
            if self._depth == 1:
                self._start = 1
            elif char == "{" and self._depth == 2 and self._key in ARGUMENT_KEYS:
                self._streaming = self.arguments is None
                self.arguments = self.arguments or []
        elif char in "}]":
            self._depth -= 1
            self.ended = self._depth == self._unwritten
            if self.ended:
                self.settle()
        elif self._depth == 1 and char == ",":
            self.settle()
            self._key = None
            self._start = len(self.raw) + 1
        elif self._depth == 1 and char == ":":
            self._key = _loads("".join(self.raw[self._start :]))
            self._start = len(self.raw) + 1


def _loads(text: str) -> Any:
    """Return what a JSON text holds, or None if it is none."""
    try:
        # Models write line breaks into strings as they are.
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def repeated_key(text: str) -> str | None:
    """Return a key that an object in a JSON text has twice, None if there is none.

    Whoever reads such a text would lose a value.
    """
    repeated: list[str] = []

    def keep(pairs: list[tuple[str, Any]]) -> None:
        counts = Counter(key for key, _ in pairs)
        repeated.extend(key for key, count in counts.items() if count > 1)

    with suppress(ValueError, RecursionError):
        json.loads(text, strict=False, object_pairs_hook=keep)
    return repeated[0] if repeated else None


def _encodable(text: str) -> str:
    """Escape lone surrogates, which UTF-8 cannot hold, in a way that JSON reads too."""
    return text.encode("utf-8", "backslashreplace").decode()
