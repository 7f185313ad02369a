"""JSON schemas as the grammar engine takes them, and what it says of those it refuses.

Invariant: of what a schema says by itself, no part that the engine can express is left out, and
what it takes for a mistake stays one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

from llguidance import LLMatcher

from .formats import PATTERNS
from .trial import CRASHED, ask

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
DEFINITIONS = ("$defs", "definitions")
_MAPS = ("properties", *DEFINITIONS, "patternProperties", "dependentSchemas")
_TEXT = ("pattern", "format", "minLength", "maxLength")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = ("minProperties", "maxProperties")
_IDENTIFIERS = ("$id", "id")
_NAMES = (*_IDENTIFIERS, "$schema")
_LITERALS = ("enum", "const", "default", "examples")
# So many parts of objects are looked at before further objects stay open.
_MOST_PARTS = 200_000
# What it reads in search of a fault, in characters, about a second; a part counts as this at least.
_EFFORT, _LEAST = 8_000_000, 8000


@lru_cache(maxsize=64)
def closed(schema: str) -> dict[str, Any]:
    """Return a schema, given as JSON, as the engine is to take it; see `strict`."""
    given = json.loads(schema)
    # Where nothing is referred to by them, identifiers are annotations; so is a dialect that the
    # engine does not know.
    kept = _refers_by_name(given)
    ways: list[tuple[str, ...]] = [() if kept else _IDENTIFIERS]
    if '"$schema"' in schema or (kept and '"$id"' in schema):
        ways += [(*ways[0], "$schema"), _NAMES]
    for relaxed in (False, True):  # most need no part to be looked at
        for dropped in ways:
            taken = strict(given, dropped, relaxed)
            if complaint(json_rule(taken)) in ("", CRASHED):  # each crash costs a process
                return taken
    return strict(given, ways[len(ways) // 2], True)


def _refers_by_name(root: dict[str, Any]) -> bool:
    everything = walk([root], lambda schema: [part for _, part in parts_of(schema)])
    references = [schema["$ref"] for schema in everything.values() if "$ref" in schema]
    return not all(isinstance(each, str) and each.startswith("#") for each in references)


def json_rule(closed: dict[str, Any]) -> str:
    """Write the rule of JSON that follows a closed schema, in Lark's syntax."""
    return f"%json {json.dumps({**closed, 'x-guidance': _OPTIONS})}"


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
        relaxed: Whether the engine is asked of each part that it may refuse; else what it does
            not say of itself is left out only.
    """
    closed: dict[str, Any] = _Strict(schema, dropped, relaxed).of(schema)
    return closed


class _Strict:
    def __init__(self, root: dict[str, Any], dropped: Collection[str], relaxed: bool) -> None:
        self._dropped, self._relaxed = {*dropped, "default", "examples"}, relaxed
        everything = walk([root], lambda schema: [part for _, part in parts_of(schema)])
        several = [schema for schema in everything.values() if _combines(schema)]

        def beneath(schema: dict[str, Any]) -> Iterator[Any]:
            return inside(schema, root, _PARTS)

        # Those that share a value with others, and all that may: what lies inside them, too.
        self._met = walk([*several], beneath)
        parts = walk([part for each in several for part in beneath(each)], beneath)
        shared = [*parts.values()]
        looked = 0
        for schema in several:
            if id(schema) in parts:
                continue
            if looked > _MOST_PARTS:
                shared.append(schema)
                continue
            own = [*walk([*beneath(schema)], beneath).values()]
            looked += len(own)
            shared += _shared(schema, own)
        self._open = walk(shared, lambda schema: inside(schema, root))
        names: dict[str, Any] = {}
        for each in self._met.values():
            names |= _names(each).get("patternProperties", {})
        self._overlap = (
            relaxed and _cannot({"patternProperties": names}, {}) and all(map(_is_pattern, names))
        )

    def of(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self.of(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        closed = {
            key: self._inner(key, value)
            for key, value in schema.items()
            if key not in self._dropped
        }
        if id(schema) not in self._open and _names_all(schema):
            closed.setdefault("additionalProperties", False)
        if id(schema) not in self._open:
            closed = _named_by_pattern(closed)
        met = id(schema) in self._met
        closed = _counted(_formatted(_exact(closed)), met or bool(_PARTS & schema.keys()))
        return _expressible(closed, met and self._overlap) if self._relaxed else closed

    def _inner(self, key: str, value: Any) -> Any:
        if key in _MAPS and isinstance(value, dict):
            return {name: self.of(each) for name, each in value.items()}
        return value if key in _LITERALS else self.of(value)


def _combines(schema: dict[str, Any]) -> bool:
    """Tell whether the properties of an object may come from several parts."""
    said = _SAYS & schema.keys()
    several = isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1
    return bool(_PARTS & said) and (len(said) > 1 or several)


def _shared(schema: dict[str, Any], parts: list[dict[str, Any]]) -> list[Any]:
    """Return what may have properties from elsewhere: a schema, or what parts of it name too."""
    said = {name for part in parts for name in _said_names(part)}
    if not _names_all(schema) or any(map(_adds, parts)) or said - schema["properties"].keys():
        return [schema]
    inner = list(parts_of(schema))
    return [part for place, part in inner if place[0] != "properties" or place[1] in said]


def _said_names(schema: dict[str, Any]) -> Iterator[str]:
    for names in (schema.get("properties"), schema.get("required")):
        if isinstance(names, dict | list):
            yield from (name for name in names if isinstance(name, str))


def _adds(schema: dict[str, Any]) -> bool:
    """Tell whether a part may add properties that it does not name."""
    return bool(schema.get("patternProperties") or schema.get("additionalProperties"))


def _names_all(schema: dict[str, Any]) -> bool:
    """Tell whether an object names its properties, those that it requires among them."""
    names, required = schema.get("properties"), schema.get("required")
    required = required if isinstance(required, list) else []
    return isinstance(names, dict) and all(
        name in names for name in required if isinstance(name, str)
    )


def walk(
    left: list[dict[str, Any]], inner: Callable[[dict[str, Any]], Iterable[Any]]
) -> dict[int, dict[str, Any]]:
    """Return the schemas that can be reached, by their identity."""
    reached: dict[int, dict[str, Any]] = {}
    while left:
        schema = left.pop()
        if isinstance(schema, dict) and id(schema) not in reached:
            reached[id(schema)] = schema
            left += inner(schema)
    return reached


def inside(
    schema: dict[str, Any], root: dict[str, Any], keys: Collection[str] | None = None
) -> Iterator[Any]:
    """Yield what a schema consists of, what it refers to as well."""
    for place, part in parts_of(schema):
        if place[0] not in DEFINITIONS and (keys is None or place[0] in keys):
            yield part
    if (pointer := pointer_of(schema)) is not None:
        yield target(pointer, root)
    elif "$ref" in schema:  # by an identifier or an anchor, which any definition may have
        yield from (part for place, part in parts_of(root) if place[0] in DEFINITIONS)


def pointer_of(schema: dict[str, Any]) -> str | None:
    """Return the pointer in a schema's reference, None where it has none."""
    reference = schema.get("$ref")
    pointer = unquote(reference.partition("#")[2]) if isinstance(reference, str) else ""
    return pointer if pointer.startswith("/") or reference == "#" else None


def target(pointer: str, root: dict[str, Any]) -> Any:
    """Return what a pointer points to, None where that is nothing."""
    target: Any = root
    for name in pointer.split("/")[1:]:
        if isinstance(target, list):
            index = int(name) if name.isdecimal() and len(name) < 9 else len(target)
            target = target[index] if index < len(target) else None
        elif isinstance(target, dict):
            target = target.get(name.replace("~1", "/").replace("~0", "~"))
        else:
            return None
    return target


def _expressible(schema: dict[str, Any], overlap: bool) -> dict[str, Any]:
    """Leave out what the engine cannot express although it knows the keyword.

    Args:
        schema: The schema, all that lies in it expressible.
        overlap: Whether the patterns of parts that share a value with it overlap.
    """
    if (
        "pattern" in schema
        and _cannot(_only(_TEXT, schema), _only(_TEXT[1:], schema))
        and _is_pattern(schema["pattern"])
    ):
        schema = _without(("pattern",), schema)
    schema = _bounded(schema)
    patterns = schema.get("patternProperties")
    if patterns and (overlap or _cannot(_names(schema), {}) and all(map(_is_pattern, patterns))):
        # Which names are additional cannot be told without the patterns.
        schema = {**schema, "patternProperties": {}, "additionalProperties": True}
    return schema


def _counted(schema: dict[str, Any], shared: bool) -> dict[str, Any]:
    """Leave out counts of properties that the engine gets wrong where it is lenient.

    It counts optional properties wrongly, and those that other parts name.
    """
    counts = _only(_COUNTS, schema)
    if counts and (
        shared
        or _cannot(
            {**counts, **_only(("required",), schema), **_names(schema)},
            _names(schema),
            lenient=False,
        )
    ):
        return _without(_COUNTS, schema)
    return schema


def _named_by_pattern(schema: dict[str, Any]) -> dict[str, Any]:
    """Write the pattern of all names of properties in a way that the engine knows."""
    names = schema.get("propertyNames")
    named = any(schema.get(key) for key in ("properties", "patternProperties", "required"))
    if not isinstance(names, dict) or names.keys() - {"type"} != {"pattern"} or named:
        return schema
    values = {names["pattern"]: schema.get("additionalProperties", True)}
    return {**schema, "patternProperties": values, "additionalProperties": False}


def _formatted(schema: dict[str, Any]) -> dict[str, Any]:
    """Write a format as a pattern that whoever reads it takes, beside one that is there."""
    name = schema.get("format")
    pattern = PATTERNS.get(name) if isinstance(name, str) else None
    if pattern is None:
        return schema
    rest = _without(("format",), schema)
    if "pattern" not in schema:
        return {**rest, "pattern": pattern}
    return {**rest, "allOf": [*schema.get("allOf", []), {"pattern": pattern}]}


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out bounds of numbers that are too wide for the engine, the widest first."""
    bounds = _only(_BOUNDS, schema)
    if not all(isinstance(value, int | float) for value in bounds.values()):
        return schema
    kind = _only(("type",), schema)
    for key in sorted(bounds, key=lambda key: abs(bounds[key]), reverse=True):
        if _cannot(kind | bounds, kind):
            bounds, schema = _without((key,), bounds), _without((key,), schema)
    return schema


def _exact(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out bounds which the engine, that reads floats, would take for others."""
    changed = [key for key, value in _only(_BOUNDS, schema).items() if not _is_exact(value)]
    for key in changed:
        _LOG.info("A bound of a schema is not enforced while decoding: %s %s", key, schema[key])
    return _without(changed, schema)


def _is_exact(value: object) -> bool:
    try:
        return not isinstance(value, int) or float(value) == value
    except OverflowError:
        return False


def _is_pattern(pattern: object) -> bool:
    """Tell whether somebody takes a pattern for one, be it not the engine."""
    try:
        return isinstance(pattern, str) and bool(re.compile(pattern))
    except Warning:  # where warnings are errors
        return True
    except (re.error, OverflowError, RecursionError):
        return False


def _only(keys: Iterable[str], schema: dict[str, Any]) -> dict[str, Any]:
    return {key: schema[key] for key in keys if key in schema}


def _without(keys: Collection[str], schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


def _names(schema: dict[str, Any]) -> dict[str, Any]:
    maps = _only(("properties", "patternProperties"), schema)
    return {key: dict.fromkeys(each, True) for key, each in maps.items() if isinstance(each, dict)}


def _cannot(schema: dict[str, Any], rest: dict[str, Any], lenient: bool = True) -> bool:
    """Tell whether the engine cannot express what a schema says, and could express the rest of it.

    What contradicts itself can be expressed: the engine takes it as one of several alternatives.
    """

    def said(schema: dict[str, Any]) -> str:
        return complaint(f"%json {json.dumps({'x-guidance': {'lenient': lenient}, **schema})}")

    why = said(schema)
    if not why or said(rest) or not said({"anyOf": [schema, {"type": "null"}]}):
        return False
    _LOG.info("A part of a schema is not enforced while decoding: %s", why)
    return True


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


def fault_of(schema: Mapping[str, Any]) -> Fault | None:
    """Find what the engine refuses of a schema, None if it takes all of it.

    Where the search would take seconds, the part found is one around the innermost.
    """
    text = json.dumps(schema)
    root = part = closed(text)
    said, left = complaint(json_rule(root)), _EFFORT
    if not said:
        return None

    def says_so(part: Any) -> bool:
        nonlocal left
        if left <= 0:
            return False
        rule = rule_of(part, root)
        left -= max(len(rule), _LEAST)
        return complaint(rule) == said

    place: tuple[Any, ...] = ()
    while said != CRASHED and (inner := _faulty(part, says_so)):
        place, part = place + inner[0], inner[1]
    faulty: Any = json.loads(text)
    for key in place:
        faulty = faulty[key]
    return Fault(".".join(key for key in place if isinstance(key, str)), faulty, said)


def _faulty(part: Any, says_so: Callable[[Any], bool]) -> tuple[tuple[Any, ...], Any] | None:
    """Find the part of a part that is refused, None if none is by itself."""
    parts = some = list(parts_of(part))
    while len(some) > 1:
        half = some[: len(some) // 2]
        together = {"properties": {str(index): each for index, (_, each) in enumerate(half)}}
        some = half if says_so(together) else some[len(half) :]
    # One by one where they are not refused together, or for another reason.
    return next((inner for inner in [*some, *parts] if says_so(inner[1])), None)


def rule_of(part: Any, root: dict[str, Any]) -> str:
    """Write the rule of a part of a schema, with the definitions that it needs."""
    if not isinstance(part, dict):
        return f"%json {json.dumps(part)}"
    reached = walk([part], lambda schema: inside(schema, root))
    named = {name for each in reached.values() for name in str(each.get("$ref")).split("/")}
    definitions = {
        key: {
            name: each for name, each in root[key].items() if name in named or id(each) in reached
        }
        for key in DEFINITIONS
        if isinstance(root.get(key), dict)
    }
    return json_rule({**definitions, **part})


def parts_of(schema: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the parts of a schema and where they lie."""
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key in _MAPS and isinstance(value, dict):
            yield from (((key, name), part) for name, part in value.items())
        elif isinstance(value, list) and key not in _LITERALS:
            yield from (((key, i), part) for i, part in enumerate(value) if isinstance(part, dict))
        elif isinstance(value, dict) and key not in _LITERALS:
            yield (key,), value


def complaint(rule: str) -> str:
    """Return why the engine refuses a rule in Lark's syntax, empty if it takes it.

    Raises:
        OutOfTimeError: It takes too long.
    """
    return reason(ask(_lark(rule)).said)


def admits(rule: str, text: str) -> bool:
    """Tell whether a text follows a rule.

    Raises:
        OutOfTimeError: It takes too long.
    """
    return ask(_lark(rule), text).admits


def _lark(rule: str) -> str:
    return LLMatcher.grammar_from_lark(f"%llguidance {{}}\nstart: {rule}")


def reason(message: str) -> str:
    """Return what one of the engine's messages says is wrong, without where it looked."""
    lines = message.strip().splitlines() or [""]
    line = next((line for line in lines if line.startswith("error: ")), lines[0])
    return re.sub(r"^(error: |at \d+\(\d+\): )(failed to compile JSON schema: )?", "", line)
