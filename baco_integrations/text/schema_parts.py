"""The parts that a JSON schema consists of, and what it refers to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any
from urllib.parse import unquote

DEFINITIONS = ("$defs", "definitions")
MAPS = ("properties", *DEFINITIONS, "patternProperties", "dependentSchemas")
"""Keywords whose value holds schemas by names."""
LITERALS = ("enum", "const", "default", "examples")
"""Keywords whose value is no schema, whatever it looks like."""


def parts_of(schema: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the schemas written in a schema, each behind the keys that lead to it."""
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key in MAPS and isinstance(value, dict):
            yield from (((key, name), part) for name, part in value.items())
        elif isinstance(value, list) and key not in LITERALS:
            yield from (((key, i), part) for i, part in enumerate(value) if isinstance(part, dict))
        elif isinstance(value, dict) and key not in LITERALS:
            yield (key,), value


def walk(
    start: Iterable[Any], inner: Callable[[dict[str, Any]], Iterable[Any]]
) -> dict[int, dict[str, Any]]:
    """Return all schemas that can be reached, in a dict by their ``id()``.

    Args:
        start: The schemas to begin with, which are among the result.
        inner: Returns the schemas that can be reached from one in one step.
    """
    reached: dict[int, dict[str, Any]] = {}
    left = [*start]
    while left:
        schema = left.pop()
        if isinstance(schema, dict) and id(schema) not in reached:
            reached[id(schema)] = schema
            left += inner(schema)
    return reached


def written_in(root: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a schema and all that are written in it, at any depth."""
    return [*walk([root], lambda schema: (part for _, part in parts_of(schema))).values()]


def leads_to(
    schema: dict[str, Any], root: dict[str, Any], keys: Collection[str] | None = None
) -> Iterator[Any]:
    """Yield the schemas that a value of a schema follows too, those it refers to included.

    Args:
        schema: The schema.
        root: The whole schema that it is written in.
        keys: The keywords to follow beside ``$ref``; all but definitions if left out.
    """
    for place, part in parts_of(schema):
        if place[0] not in DEFINITIONS and (keys is None or place[0] in keys):
            yield part
    if (pointer := pointer_of(schema)) is not None:
        yield target(pointer, root)
    elif "$ref" in schema:  # by an identifier or an anchor, which any definition may have
        yield from (part for place, part in parts_of(root) if place[0] in DEFINITIONS)


def pointer_of(schema: dict[str, Any]) -> str | None:
    """Return the JSON pointer in a schema's reference, None where it has none."""
    reference = schema.get("$ref")
    pointer = unquote(reference.partition("#")[2]) if isinstance(reference, str) else ""
    return pointer if pointer.startswith("/") or reference == "#" else None


def target(pointer: str, root: dict[str, Any]) -> Any:
    """Return what a JSON pointer points to, None where that is nothing."""
    found: Any = root
    for name in pointer.split("/")[1:]:
        if isinstance(found, list):
            index = int(name) if name.isdecimal() and len(name) < 9 else len(found)
            found = found[index] if index < len(found) else None
        elif isinstance(found, dict):
            found = found.get(name.replace("~1", "/").replace("~0", "~"))
        else:
            return None
    return found
