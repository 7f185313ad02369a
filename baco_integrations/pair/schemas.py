"""JSON schemas as the grammar engine takes them, and what it says of those it refuses.

Invariant: no part of a schema that the engine can express is left out, and what it takes for a
mistake stays one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from llguidance import LLMatcher

_LOG = logging.getLogger(__name__)

_OPTIONS = {
    # As json.dumps writes it: one way to space means no tokens are lost on white space.
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # Keywords and formats that the engine does not know are left out, and alternatives that exclude
    # one another become plain ones. Mistakes are refused as ever.
    "lenient": True,
}
# What it says of a part that may well be right.
_INEXPRESSIBLE = ("not supported", "not disjoint", "Unable to determine", "only supported when")

_PARTS = {"allOf", "anyOf", "oneOf", "$ref", "if", "then", "else", "dependentSchemas"}
_MAPS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_TEXT = ("pattern", "format", "minLength", "maxLength")
_COUNTS = ("minProperties", "maxProperties")
_LITERALS = ("enum", "const", "default", "examples")


def json_rule(schema: Mapping[str, Any]) -> str:
    """Write the rule of JSON that follows a schema, in Lark's syntax."""
    closed = strict(schema)
    return f"%json {json.dumps({'x-guidance': _OPTIONS, **closed})}"


def strict(schema: Any, close: bool = True) -> Any:
    """Return a schema whose objects have no properties but those they name.

    Models left free to invent properties do so without end. An object that says something about
    ``additionalProperties``, or names no property at all, stays as it is, and so does one whose
    properties come from several parts: each part alone would refuse the others'. What the engine
    knows but cannot express is left out.
    """
    if isinstance(schema, list):
        return [strict(each, close) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if _PARTS & schema.keys() and ("properties" in schema or "allOf" in schema):
        close = False
    closed = {key: _inner(key, value, close) for key, value in schema.items()}
    if close and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return _expressible(closed)


def _inner(key: str, value: Any, close: bool) -> Any:
    if key in _MAPS and isinstance(value, dict):
        return {name: strict(each, close) for name, each in value.items()}
    return value if key in _LITERALS else strict(value, close)


def _expressible(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the engine cannot express although it knows the keyword."""
    if "pattern" in schema and _is_inexpressible(_only(_TEXT, schema)):
        schema = _without(("pattern",), schema)
    if "patternProperties" in schema and _is_inexpressible(_names(schema)):
        # Which names are additional cannot be told without the patterns.
        schema = {**schema, "patternProperties": {}, "additionalProperties": True}
    counts = _only(_COUNTS, schema)
    # Where it is lenient, it counts optional properties wrongly.
    if counts and _is_inexpressible(
        {**counts, **_only(("required",), schema), **_names(schema)}, lenient=False
    ):
        schema = _without(_COUNTS, schema)
    return schema


def _only(keys: Iterable[str], schema: dict[str, Any]) -> dict[str, Any]:
    return {key: schema[key] for key in keys if key in schema}


def _without(keys: Collection[str], schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


def _names(schema: dict[str, Any]) -> dict[str, Any]:
    maps = _only(("properties", "patternProperties"), schema)
    return {key: dict.fromkeys(each, True) for key, each in maps.items() if isinstance(each, dict)}


def _is_inexpressible(schema: dict[str, Any], lenient: bool = True) -> bool:
    return _engine_cannot(json.dumps({"x-guidance": {"lenient": lenient}, **schema}))


@lru_cache(maxsize=1024)
def _engine_cannot(schema: str) -> bool:
    said = complaint(f"%json {schema}")
    cannot = any(words in said for words in _INEXPRESSIBLE)
    if cannot:
        _LOG.info("A part of a schema is not enforced while decoding: %s", said)
    return cannot


class Fault(NamedTuple):
    """The innermost part of a schema that the engine refuses.

    Attributes:
        place: Where it lies, such as ``properties.name``; empty for the whole schema.
        part: The part.
        said: What the engine says.
    """

    place: str
    part: Any
    said: str


def fault_of(schema: Any, definitions: dict[str, Any] | None = None) -> Fault | None:
    """Find what the engine refuses of a schema, None if it takes all of it."""
    if definitions is None:
        definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    if isinstance(schema, dict):
        said = complaint(json_rule({**definitions, **schema}))
    else:
        said = complaint(f"%json {json.dumps(schema)}")
    if not said:
        return None
    for place, part in _parts(schema):
        inner = fault_of(part, definitions)
        if inner is not None and inner.said == said:
            return inner._replace(place=f"{place}.{inner.place}".rstrip("."))
    return Fault("", schema, said)


def _parts(schema: Any) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key in _MAPS and isinstance(value, dict):
            yield from ((f"{key}.{name}", part) for name, part in value.items())
        elif key not in _LITERALS:
            parts = value if isinstance(value, list) else [value]
            yield from ((key, part) for part in parts if isinstance(part, dict))


def complaint(rule: str) -> str:
    """Return why the engine refuses a rule in Lark's syntax, empty if it takes it."""
    grammar = LLMatcher.grammar_from_lark(f"%llguidance {{}}\nstart: {rule}")
    return reason(LLMatcher.validate_grammar(grammar))


def reason(message: str) -> str:
    """Return what one of the engine's messages says is wrong, without where it looked."""
    lines = message.strip().splitlines() or [""]
    line = next((line for line in lines if line.startswith("error: ")), lines[0])
    return re.sub(r"^(error: |at \d+\(\d+\): )(failed to compile JSON schema: )?", "", line)
