"""Tool calls: how families of models write them, and reading them out of text as it comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .call_scanner import CallScanner, encodable

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
        written = separator.join(self.before + encodable(text) + self.after for text in texts)
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
    """Splits the text of an answer into plain text and tool calls, as it comes.

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
        self._call: CallScanner | None = None
        self._ids: list[str] = []
        self._sent = 0
        # Outside calls: white space and whole marks that may belong to a call, the mark begun,
        # and the marks that close what stands open; whether the opener was the last to come,
        # whether a call was, and whether the answer is text without calls.
        self._held: list[str] = []
        self._mark = ""
        self._closers: list[str] = []
        self._opened = self._behind = self._plain = False
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
        """Take the next text; return the plain text and the pieces of calls that it completes.

        Args:
            text: The text.
            last: Whether no more will come: then everything held back is released.
            cut: Whether more would have come: then half a tag or a comma is no text.
        """
        self._said, self._pieces = [], []
        for char in text:
            self.read(char)
        if last:
            self.stop(cut)
        elif self._call and self._call.name is not None and self._call.arguments is not None:
            self.send(self._call.name, "".join(self._call.arguments[self._sent :]))
        return "".join(self._said), tuple(self._pieces)

    def read(self, char: str) -> None:
        """Take the next character of the answer: of text, of a mark around calls, or of a call."""
        if self._plain:
            self._said.append(char)
        elif self._call is not None:
            self._call.push(char)
            if self._call.ended:
                self.finish(self._call)
        elif char.isspace() and not self._mark:
            self._held.append(char)
        else:
            self.match(char)

    def match(self, char: str) -> None:
        """Take a character outside calls: part of a mark (a tag, a bracket or the like) or text."""
        inside = self._closers or not self._opener
        marks = (*self._closers, *self._leads, *("{,;" if inside else ""))
        marks = ("[", "{") if self._opened else marks
        mark = self._mark + char
        begun = any(known.startswith(mark) for known in marks)
        if mark == "{" and begun or self._opened and not begun:
            self.begin()
            self.read(char)
        elif mark in marks:
            self._mark = ""
            if mark in self._closers:
                self._closers.remove(mark)
                self._held.clear()
            else:
                self._held.append(mark)
                self._opened |= mark == self._opener
        elif begun:
            self._mark = mark
        elif self._mark:
            # No tag holds its first character twice, so only this character can begin another.
            self.release(self._mark)
            self.read(char)
        else:
            self.release(char)

    def begin(self) -> None:
        """Begin a call, and note which marks must close those in front of it."""
        closers = [self._closers_of.get(mark) for mark in self._held]
        self._closers += [closer for closer in closers if closer]
        self._opened = False
        self._call = CallScanner(self._close, self._divider)

    def finish(self, call: CallScanner, cut: bool = False) -> None:
        """End a call, or give its text back if it is none."""
        self._call = None
        named = call.name in self._names or None not in (call.name, call.arguments)
        if not (self._opener or named or cut and self._behind):
            self.release("".join(call.raw))
            return
        name, arguments, error = call.result(self._names)
        self.send(name, arguments[self._sent :])
        self._done.append(ToolCall(self._ids[-1], name, arguments, error))
        self._sent = 0
        self._held.clear()
        self._behind = True
        if call.broken:
            self._closers.clear()

    def send(self, name: str, text: str) -> None:
        """Give out the next piece of the running call's arguments, the first with id and name."""
        index = len(self._done)
        if len(self._ids) == index:
            self._ids.append(self._new_id(index))
            self._pieces.append(CallPiece(index, self._ids[-1], name, text))
        elif text:
            self._pieces.append(CallPiece(index, None, None, text))
        self._sent += len(text)

    def release(self, text: str) -> None:
        """Output what is held back, and then `text`, as text of the answer."""
        text = "".join(self._held) + text
        self._said.append(text.lstrip() if self._behind else text)
        self._held.clear()
        self._mark = ""
        self._closers.clear()
        self._behind = False
        self._plain = not self._opener

    def stop(self, cut: bool) -> None:
        """End the text: settle the running call, and release or drop what is held."""
        if self._opened:
            self.begin()
        if self._call is not None:
            self._call.settle()
            self.finish(self._call, cut)
        held = "".join([*self._held, self._mark]).strip()
        tag = held and (self._opener.startswith(held) or _PYTHON_TAG.startswith(held))
        if cut and (tag or self._behind or self._closers):
            self._held.clear()
            self._mark = ""
        self.release(self._mark)
