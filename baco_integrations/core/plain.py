"""Callers' data as plain JSON: what is let in can be written as JSON in UTF-8, and has an end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import ParameterError, PromptError

DEEPEST = 100
"""How many lists and dicts may stand within one another."""
_BITS = 2**13


def plain(value: object, place: str, error: type[ParameterError] = PromptError) -> Any:
    """Copy JSON data; what is of a subclass of JSON's types comes back as that type.

    Args:
        value: The data.
        place: Where it comes from, for the message.
        error: The kind of error.

    Raises:
        ParameterError: It holds something else, half a character, or itself.
    """
    try:
        return _copy(value, DEEPEST)
    except _NotPlainError as refused:
        where = place + "".join(reversed(refused.path[-8:]))
        raise error(where, refused.allowed, refused.received, refused.remedy) from None


def require_whole(text: str, place: str, error: type[ParameterError] = PromptError) -> str:
    """Return a text if UTF-8 can hold it.

    Raises:
        ParameterError: It holds a lone surrogate, which is half a character.
    """
    try:
        _require_whole(text)
    except _NotPlainError as refused:
        raise error(place, refused.allowed, refused.received, refused.remedy) from None
    return text


class _NotPlainError(Exception):
    """What is wrong with a value; the path to it grows as callers pass it on."""

    def __init__(self, allowed: str, received: object, remedy: str) -> None:
        self.allowed, self.received, self.remedy = allowed, received, remedy
        self.path: list[str] = []


def _copy(value: object, levels: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > _BITS:
            raise _NotPlainError("numbers that JSON can hold", type(value), "Leave it out.")
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        _require_whole(value)
        return str.__str__(value)
    if not isinstance(value, Mapping | list | tuple):
        raise _NotPlainError("JSON data: text, numbers, lists, dicts", value, "Leave it out.")
    if not levels:
        allowed = f"at most {DEEPEST} lists and dicts deep"
        raise _NotPlainError(allowed, type(value), "Leave out what is deeper, or holds itself.")
    if isinstance(value, Mapping):
        return {_key(key): _part(key, each, levels) for key, each in value.items()}
    return [_part(index, each, levels) for index, each in enumerate(value)]


def _part(key: object, value: object, levels: int) -> Any:
    try:
        return _copy(value, levels - 1)
    except _NotPlainError as refused:
        refused.path.append(f"[{key!r}]")
        raise


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise _NotPlainError("a dict whose keys are text", key, "JSON knows no other keys.")
    _require_whole(key)
    return str.__str__(key)


def _require_whole(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _NotPlainError(
            "whole characters (no lone surrogates, which are halves of one)",
            text[max(error.start - 20, 0) : error.end + 20],
            f"At {error.start} it holds one: cut texts between characters, or replace it: "
            "text.encode('utf-8', 'replace').decode().",
        ) from None
