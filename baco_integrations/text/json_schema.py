"""JSON schemas as the grammar engine takes them, and what it says of those it refuses.

Invariant: of what a schema says by itself, no part that the engine can express is left out, and
what it takes for a mistake stays one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from .formats import PATTERNS
from .schema_parts import DEFINITIONS, LITERALS, MAPS, leads_to, parts_of, walk, written_in
from .trial import CRASHED, OutOfTimeError, complaint

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

# What lays several schemas on one value, and with it what else says which properties there are.
_PARTS = {"allOf", "anyOf", "oneOf", "$ref", "if", "then", "else", "dependentSchemas"}
_SAYS = _PARTS | {"properties", "patternProperties", "additionalProperties"}
_TEXT = ("format", "minLength", "maxLength")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = ("minProperties", "maxProperties")
_IDENTIFIERS = ("$id", "id")
_MOST_PARTS = 200_000
"""So many parts of objects are looked at before further objects stay open."""


@lru_cache(maxsize=64)
def closed(schema: str) -> dict[str, Any]:
    """Return a schema, given as JSON, as the engine is to take it; see `strict`."""
    given = json.loads(schema)
    # Where nothing is referred to by them, identifiers are annotations; so is a dialect that the
    # engine does not know.
    references = [part["$ref"] for part in written_in(given) if "$ref" in part]
    kept = not all(isinstance(each, str) and each.startswith("#") for each in references)
    ways: list[tuple[str, ...]] = [() if kept else _IDENTIFIERS]
    if '"$schema"' in schema or (kept and '"$id"' in schema):
        ways += [(*ways[0], "$schema"), (*_IDENTIFIERS, "$schema")]
    for relaxed in (False, True):  # most need no part to be looked at
        for dropped in ways:
            taken = strict(given, dropped, relaxed)
            if complaint(json_rule(taken)) in ("", CRASHED):  # each crash costs a process
                return taken
    return strict(given, ways[len(ways) // 2], True)


def json_rule(schema: dict[str, Any]) -> str:
    """Write the rule, in Lark's syntax, of JSON that follows a schema from `closed`."""
    return f"%json {json.dumps({**schema, 'x-guidance': _OPTIONS})}"


def rule_of(part: Any, root: dict[str, Any]) -> str:
    """Write the rule of a part of a schema from `closed`, in Lark's syntax.

    Args:
        part: The part; true and false are schemas too.
        root: The whole schema, whose definitions are copied as far as the part refers to them.
    """
    if not isinstance(part, dict):
        return f"%json {json.dumps(part)}"
    reached = walk([part], lambda schema: leads_to(schema, root))
    named = {name for each in reached.values() for name in str(each.get("$ref")).split("/")}
    definitions = {
        key: {
            name: each for name, each in root[key].items() if name in named or id(each) in reached
        }
        for key in DEFINITIONS
        if isinstance(root.get(key), dict)
    }
    return json_rule({**definitions, **part})


def fault_of(schema: Mapping[str, Any]) -> tuple[str, Any, str] | None:
    """Find the innermost part of a schema that the engine refuses, None if it takes all of it.

    Where the time for a grammar runs out, the part found is one around the innermost.

    Returns:
        Where the part lies, such as ``properties.name``, empty for the whole schema; the part; and
        what the engine says.
    """
    text = json.dumps(schema)
    root = closed(text)
    said = complaint(json_rule(root))
    if not said:
        return None
    part: Any = root
    faulty = json.loads(text)
    names: list[str] = []
    with suppress(OutOfTimeError, LookupError):  # some parts are not written in the schema itself
        left = said != CRASHED  # each crash costs a process
        while left:
            parts = sorted(parts_of(part), key=lambda each: each[0][0] not in DEFINITIONS)
            refused = (each for each in parts if complaint(rule_of(each[1], root)) == said)
            keys, part = next(refused, ((), None))
            for key in keys:
                faulty = faulty[key]
                names += [key] if isinstance(key, str) else []
            left = bool(keys)
    return ".".join(names), faulty, said


def strict(
    schema: dict[str, Any], dropped: Collection[str] = (), relaxed: bool = True
) -> dict[str, Any]:
    """Return a schema whose objects have no properties but those they name.

    Models left free to invent properties do so without end. An object that says something about
    ``additionalProperties``, or names no property at all, or requires one that it does not name,
    stays as it is, and so does one to whose properties other parts may add: each part alone would
    refuse the others'. What the engine knows but cannot express is left out.

    Args:
        schema: The schema.
        dropped: Keywords to leave out.
        relaxed: Whether to ask the engine about each part that it may refuse; else only what it
            gets wrong without a word is left out.
    """
    taken: dict[str, Any] = SchemaCloser(schema, dropped, relaxed).close(schema)
    return taken


class SchemaCloser:
    """Closes the objects of one schema; see `strict`."""

    def __init__(self, root: dict[str, Any], dropped: Collection[str], relaxed: bool) -> None:
        self._dropped, self._relaxed = {*dropped, "default", "examples"}, relaxed
        several = [schema for schema in written_in(root) if combines(schema)]

        def beneath(schema: dict[str, Any]) -> Iterator[Any]:
            return leads_to(schema, root, _PARTS)

        # Those that share a value with others, and all that may: what lies inside them, too.
        self._met = walk(several, beneath)
        parts = walk((part for each in several for part in beneath(each)), beneath)
        shared: list[Any] = [*parts.values()]
        looked = 0
        for schema in several:
            if id(schema) in parts:
                continue
            if looked > _MOST_PARTS:
                shared.append(schema)
                continue
            own = walk(beneath(schema), beneath)
            looked += len(own)
            shared += shared_with(schema, own.values())
        self._open = walk(shared, lambda schema: leads_to(schema, root))
        names: dict[str, Any] = {}
        for each in self._met.values():
            names |= property_names(each).get("patternProperties", {})
        self._overlap = (
            relaxed
            and cannot_express({"patternProperties": names}, {})
            and all(map(is_pattern, names))
        )

    def close(self, schema: Any) -> Any:
        """Return a part of the schema as the engine is to take it."""
        if isinstance(schema, list):
            return [self.close(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        taken = {key: value for key, value in schema.items() if key not in self._dropped}
        for key, value in taken.items():
            if key in MAPS and isinstance(value, dict):
                taken[key] = {name: self.close(each) for name, each in value.items()}
            elif key not in LITERALS:
                taken[key] = self.close(value)
        if id(schema) not in self._open:
            if names_all(schema):
                taken.setdefault("additionalProperties", False)
            taken = names_by_pattern(taken)
        met = id(schema) in self._met
        taken = without_wrong_counts(
            with_patterns(without_inexact_bounds(taken)), met or bool(_PARTS & schema.keys())
        )
        return relax(taken, met and self._overlap) if self._relaxed else taken


# -- which objects are open ------------------------------------------------------------------------


def combines(schema: dict[str, Any]) -> bool:
    """Tell whether the properties of an object may come from several parts."""
    said = _SAYS & schema.keys()
    several = isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1
    return bool(_PARTS & said) and (len(said) > 1 or several)


def shared_with(schema: dict[str, Any], parts: Collection[dict[str, Any]]) -> list[Any]:
    """Return the schemas that get properties from `parts` too, which cannot be closed.

    That is `schema` itself, or only the properties (and other parts) of it that `parts` name too.
    """
    said = {
        name
        for part in parts
        for names in (part.get("properties"), part.get("required"))
        for name in (names if isinstance(names, dict | list) else ())
        if isinstance(name, str)
    }
    adds = any(part.get("patternProperties") or part.get("additionalProperties") for part in parts)
    if adds or not names_all(schema) or said - schema["properties"].keys():
        return [schema]
    inner = parts_of(schema)
    return [part for place, part in inner if place[0] != "properties" or place[1] in said]


def names_all(schema: dict[str, Any]) -> bool:
    """Tell whether an object names its properties, those that it requires among them."""
    names, required = schema.get("properties"), schema.get("required")
    required = required if isinstance(required, list) else []
    return isinstance(names, dict) and all(
        name in names for name in required if isinstance(name, str)
    )


# -- what is written in another way, or left out ---------------------------------------------------


def names_by_pattern(schema: dict[str, Any]) -> dict[str, Any]:
    """Write ``propertyNames`` with just a pattern as ``patternProperties``, for the engine."""
    names = schema.get("propertyNames")
    named = any(schema.get(key) for key in ("properties", "patternProperties", "required"))
    if not isinstance(names, dict) or names.keys() - {"type"} != {"pattern"} or named:
        return schema
    values = {names["pattern"]: schema.get("additionalProperties", True)}
    return {**schema, "patternProperties": values, "additionalProperties": False}


def with_patterns(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace a format by its pattern in `PATTERNS`; one that the schema has is kept beside it."""
    name = schema.get("format")
    pattern = PATTERNS.get(name) if isinstance(name, str) else None
    if pattern is None:
        return schema
    rest = without(("format",), schema)
    if "pattern" not in schema:
        return {**rest, "pattern": pattern}
    return {**rest, "allOf": [*schema.get("allOf", []), {"pattern": pattern}]}


def without_inexact_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out integer bounds that are no exact floats: the engine would change them."""
    changed = []
    for key, value in only(_BOUNDS, schema).items():
        try:
            exact = not isinstance(value, int) or float(value) == value
        except OverflowError:
            exact = False
        if not exact:
            changed.append(key)
            _LOG.info("A bound of a schema is not enforced while decoding: %s %s", key, value)
    return without(changed, schema)


def without_wrong_counts(schema: dict[str, Any], shared: bool) -> dict[str, Any]:
    """Leave out counts of properties that the engine gets wrong where it is lenient.

    It counts optional properties wrongly, and those that other parts name.
    """
    names = property_names(schema)
    counts = only(_COUNTS, schema)
    said = {**counts, **only(("required",), schema), **names}
    if counts and (shared or cannot_express(said, names, lenient=False)):
        return without(_COUNTS, schema)
    return schema


def relax(schema: dict[str, Any], overlap: bool) -> dict[str, Any]:
    """Leave out what the engine cannot express although it knows the keyword.

    Args:
        schema: The schema, all that lies in it expressible.
        overlap: Whether the patterns of parts that share a value with it overlap.
    """
    if "pattern" in schema:
        rest = only(_TEXT, schema)
        said = {**only(("pattern",), schema), **rest}
        if cannot_express(said, rest) and is_pattern(schema["pattern"]):
            schema = without(("pattern",), schema)
    kind, bounds = only(("type",), schema), only(_BOUNDS, schema)
    if all(isinstance(value, int | float) for value in bounds.values()):
        for key in sorted(bounds, key=lambda key: abs(bounds[key]), reverse=True):
            if cannot_express(kind | bounds, kind):  # the widest bound goes first
                bounds, schema = without((key,), bounds), without((key,), schema)
    patterns = schema.get("patternProperties")
    if patterns and (
        overlap or cannot_express(property_names(schema), {}) and all(map(is_pattern, patterns))
    ):
        # Which names are additional cannot be told without the patterns.
        schema = {**schema, "patternProperties": {}, "additionalProperties": True}
    return schema


def is_pattern(pattern: object) -> bool:
    """Tell whether Python can compile a pattern; the engine need not be able to."""
    try:
        return isinstance(pattern, str) and bool(re.compile(pattern))
    except Warning:  # where warnings are errors
        return True
    except (re.error, OverflowError, RecursionError):
        return False


def cannot_express(schema: dict[str, Any], rest: Mapping[str, Any], lenient: bool = True) -> bool:
    """Tell whether the engine cannot express what a schema says, and could express the rest of it.

    What contradicts itself can be expressed: the engine takes it as one of several alternatives.
    """

    def said(schema: Mapping[str, Any]) -> str:
        return complaint(f"%json {json.dumps({'x-guidance': {'lenient': lenient}, **schema})}")

    why = said(schema)
    if not why or said(rest) or not said({"anyOf": [schema, {"type": "null"}]}):
        return False
    _LOG.info("A part of a schema is not enforced while decoding: %s", why)
    return True


def only(keys: Iterable[str], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of a schema that are listed, in their order."""
    return {key: schema[key] for key in keys if key in schema}


def without(keys: Collection[str], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of a schema that are not listed."""
    return {key: value for key, value in schema.items() if key not in keys}


def property_names(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``properties`` and ``patternProperties`` of a schema, any value allowed in each."""
    maps = only(("properties", "patternProperties"), schema)
    return {key: dict.fromkeys(each, True) for key, each in maps.items() if isinstance(each, dict)}
