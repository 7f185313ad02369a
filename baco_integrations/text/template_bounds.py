"""Bounds of time and size for chat templates, which may do anything."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any

SECONDS = 5.0
"""Longest time of one rendering."""
CHARACTERS = 2**25
"""Most characters of a text that a template makes, each item of a list counted as some."""
ITEM = 64
"""So many characters each item of a list counts as."""
_PADDING = {"batch", "center", "ljust", "rjust", "round", "slice", "to_bytes", "zfill"}
_FORMATTING = {"%", "format", "format_map"}
_SCALING = {"expandtabs", "indent", "tojson", "translate", "wordwrap"}
SMALL = {"count", "d", "default", "first", "last", "length", "string"}
"""Filters whose results are never larger than what they are given."""
GROWING = _PADDING | _FORMATTING | _SCALING | {"*", "**", "join", "replace", "sum"}
"""Operators, filters and methods whose results may be, and are weighed before they are there."""
_WIDTH = re.compile(r"\d{5}|\*|\{[^{}]*\{")
"""What in a format takes long: wide fields, and widths that come with what is formatted."""

_until: ContextVar[float] = ContextVar("_until", default=math.inf)


class TemplateLimitError(Exception):
    """A rendering that takes too long, or makes too much; the words follow "the template"."""


@contextmanager
def rendering_until(deadline: float) -> Iterator[None]:
    """Let templates that are rendered here give up at a time, by `time.monotonic`."""
    token = _until.set(min(deadline, _until.get()))
    try:
        yield
    finally:
        _until.reset(token)


def in_time() -> AbstractContextManager[None]:
    """Let a rendering take `SECONDS` at most."""
    return rendering_until(monotonic() + SECONDS)


def require_time(_: object = None) -> None:
    """Raise `TemplateLimitError` if the time is over."""
    if monotonic() > _until.get():
        raise TemplateLimitError("takes too long")


def require_room(size: int) -> None:
    """Raise `TemplateLimitError` if so many characters are too many."""
    if size > CHARACTERS:
        raise TemplateLimitError(f"makes a text of more than {CHARACTERS} characters")


def join(pieces: Any) -> str:
    """Join texts that are not too long together."""
    size, kept = 0, []
    for piece in pieces:
        size += len(piece)
        require_room(size)
        kept.append(piece)
    return "".join(kept)


def size_of(value: Any) -> int:
    """Return the characters of a text or of all that stands in a list; what is there twice counts.

    Raises:
        TemplateLimitError: They are too many.
    """
    total, left = 0, [value]
    while left:
        part = left.pop()
        if isinstance(part, str | bytes):
            total += len(part)
        elif isinstance(part, list | tuple | dict):
            total += ITEM * len(part)
            left.extend(part)
            left.extend(part.values() if isinstance(part, dict) else ())
        require_room(total)
    return total


def sized(value: Any) -> Any:
    """Return a value that is not too large."""
    require_room(value.bit_length() * 2**9 if isinstance(value, int) else size_of(value))
    return value


def weigh(name: str, subject: Any, args: Sequence[Any]) -> None:
    """Estimate how large a result will be, before there is one.

    Args:
        name: The operator, or the name of the filter or method.
        subject: What stands on its left.
        args: What stands on its right.
    """
    numbers = [abs(each) for each in args if isinstance(each, int)]
    if name == "**":
        size = 2**9 * sum(numbers) * (subject.bit_length() if isinstance(subject, int) else 0)
    elif name == "*":
        count = subject if isinstance(subject, int) else sum(numbers)
        size = count * max(size_of(subject), size_of(args[0]))
    elif name in _FORMATTING:
        text = repr(subject) if isinstance(subject, str | bytes) else ""
        fields = CHARACTERS if _WIDTH.search(text) else text.count("%") + text.count("{")
        widest = max(map(int, re.findall(r"\d{1,4}", text)), default=0)
        size = fields * (1 + widest + size_of(args))
    elif name == "replace":
        old, new = (*map(str, args), "", "")[:2]
        size = (len(str(subject)) // max(len(old), 1) + 1) * len(new)
    elif name == "join":
        size = size_of(args[0]) + size_of(subject) * len(args[0])
    elif name == "sum":  # of lists, each of which is copied for each that follows
        size = len(subject) ** 2 if any(isinstance(each, list | tuple) for each in args) else 0
    elif name in _PADDING:
        size = ITEM * sum(numbers)
    else:
        size = (sum(numbers) + sum(map(size_of, args))) * size_of(subject)
    require_room(size)


def listed(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return values with iterators, whose size is not known, turned into lists."""
    return tuple(list(each) if isinstance(each, Iterator) else each for each in values)
