"""Callers' data as plain JSON: what is let in can be written as JSON in UTF-8, and has an end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import ParameterError, PromptError

DEEPEST = 100
"""How many lists and dicts may stand within one another."""
_NAMED = 8
"""How many levels of a place an error names."""
_BITS = 2**13


def plain(
    value: object, place: str, error: type[ParameterError] = PromptError, levels: int = DEEPEST
) -> Any:
    """Copy JSON data; what is of a subclass of JSON's types comes back as that type.

    Args:
        value: The data.
        place: Where it comes from, for the message.
        error: The kind of error.
        levels: How many lists and dicts may stand within one another.

    Raises:
        ParameterError: It holds something else, half a character, or itself.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > _BITS:
            raise error(place, "numbers that JSON can hold", type(value), "Leave it out.")
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(require_whole(value, place, error))
    if not isinstance(value, Mapping | list | tuple):
        raise error(place, "JSON data: text, numbers, lists, dicts", value, "Leave it out.")
    if not levels:
        allowed = f"at most {DEEPEST} lists and dicts deep"
        remedy = "Leave out what is deeper, or holds itself."
        raise error(place, allowed, type(value), remedy)

    def inner(key: object, part: object) -> Any:
        named = levels > DEEPEST - _NAMED
        return plain(part, f"{place}[{key!r}]" if named else place, error, levels - 1)

    if not isinstance(value, Mapping):
        return [inner(index, part) for index, part in enumerate(value)]
    copied = {}
    for key, part in value.items():
        if not isinstance(key, str):
            raise error(place, "a dict whose keys are text", key, "JSON knows no other keys.")
        copied[str.__str__(require_whole(key, place, error))] = inner(key, part)
    return copied


def require_whole(text: str, place: str, error: type[ParameterError] = PromptError) -> str:
    """Return a text if UTF-8 can hold it.

    Args:
        text: The text.
        place: Where it comes from, for the message.
        error: The kind of error.

    Raises:
        ParameterError: It holds a lone surrogate, which is half a character.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise error(
            place,
            "whole characters (no lone surrogates, which are halves of one)",
            text[max(fault.start - 20, 0) : fault.end + 20],
            f"At {fault.start} it holds one: cut texts between characters, or replace it: "
            "text.encode('utf-8', 'replace').decode().",
        ) from None
    return text
