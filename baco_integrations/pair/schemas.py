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

from ..core.errors import ParameterError

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

# What lays several schemas on one value, and with it what else says which properties there are.
_PARTS = {"allOf", "anyOf", "oneOf", "$ref", "if", "then", "else", "dependentSchemas"}
_SAYS = _PARTS | {"properties", "patternProperties", "additionalProperties"}
_DEFINITIONS = ("$defs", "definitions")
_MAPS = ("properties", *_DEFINITIONS, "patternProperties", "dependentSchemas")
_TEXT = ("pattern", "format", "minLength", "maxLength")
_COUNTS = ("minProperties", "maxProperties")
_LITERALS = ("enum", "const", "default", "examples")
_DEEPEST = 127  # what the engine reads
# What it reads in search of a fault, in characters, about a second; a part counts as this at least.
_EFFORT, _LEAST = 8_000_000, 8000


def json_rule(schema: Mapping[str, Any], parameter: str = "json_schema") -> str:
    """Write the rule of JSON that follows a schema, in Lark's syntax.

    Args:
        schema: The schema.
        parameter: What the caller gave it as.

    Raises:
        ParameterError: It nests too deep.
    """
    level: list[Any] = [schema]
    for _ in range(_DEEPEST):
        inner = [part for each in level for part in _values(each)]
        level = [part for part in inner if isinstance(part, dict | list | tuple)]
        if not level:
            return _json_rule(_closed(json.dumps(schema)))
    raise ParameterError(
        parameter,
        f"a JSON schema of at most {_DEEPEST} objects and lists inside one another",
        "a deeper one",
        "Give what nests a name in $defs, and refer to it.",
    )


def _values(each: Any) -> Iterable[Any]:
    return each.values() if isinstance(each, dict) else each


@lru_cache(maxsize=256)
def _closed(schema: str) -> dict[str, Any]:
    return strict(json.loads(schema))


def _json_rule(closed: dict[str, Any]) -> str:
    return f"%json {json.dumps({'x-guidance': _OPTIONS, **closed})}"


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose objects have no properties but those they name.

    Models left free to invent properties do so without end. An object that says something about
    ``additionalProperties``, or names no property at all, or requires one that it does not name,
    stays as it is, and so does one whose properties may come from several parts: each part alone
    would refuse the others'. What the engine knows but cannot express is left out.
    """
    closed: dict[str, Any] = _Strict(schema).of(schema)
    return closed


class _Strict:
    def __init__(self, root: dict[str, Any]) -> None:
        everything = _walk([root], lambda schema: [part for _, part in _parts(schema)])
        several = [schema for schema in everything.values() if _combines(schema)]
        # Those that share a value with others, and all that may: what lies inside them, too.
        self._met = _walk(several, lambda schema: _inside(schema, root, _PARTS))
        self._open = _walk([*self._met.values()], lambda schema: _inside(schema, root))
        names: dict[str, Any] = {}
        for each in self._met.values():
            names |= _names(each).get("patternProperties", {})
        self._overlap = bool(names) and _is_inexpressible({"patternProperties": names})

    def of(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self.of(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        closed = {key: self._inner(key, value) for key, value in schema.items()}
        if id(schema) not in self._open and _names_all(schema):
            closed.setdefault("additionalProperties", False)
        met = id(schema) in self._met
        return _expressible(closed, met or bool(_PARTS & schema.keys()), met and self._overlap)

    def _inner(self, key: str, value: Any) -> Any:
        if key in _MAPS and isinstance(value, dict):
            return {name: self.of(each) for name, each in value.items()}
        return value if key in _LITERALS else self.of(value)


def _combines(schema: dict[str, Any]) -> bool:
    """Tell whether the properties of an object may come from several parts."""
    said = _SAYS & schema.keys()
    several = isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1
    return bool(_PARTS & said) and (len(said) > 1 or several)


def _names_all(schema: dict[str, Any]) -> bool:
    """Tell whether an object names its properties, those that it requires among them."""
    names, required = schema.get("properties"), schema.get("required")
    required = required if isinstance(required, list) else []
    return isinstance(names, dict) and all(
        name in names for name in required if isinstance(name, str)
    )


def _walk(
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


def _inside(
    schema: dict[str, Any], root: dict[str, Any], keys: Collection[str] | None = None
) -> Iterator[Any]:
    """Yield what a schema consists of, what it refers to as well."""
    for place, part in _parts(schema):
        if place[0] not in _DEFINITIONS and (keys is None or place[0] in keys):
            yield part
    if isinstance(reference := schema.get("$ref"), str):
        pointer = unquote(reference.partition("#")[2])
        if pointer.startswith("/") or reference == "#":
            yield _target(pointer, root)
        else:  # by an identifier or an anchor, which any definition may have
            yield from (part for place, part in _parts(root) if place[0] in _DEFINITIONS)


def _target(pointer: str, root: dict[str, Any]) -> Any:
    target: Any = root
    for name in pointer.split("/")[1:]:
        if isinstance(target, list):
            target = {str(index): each for index, each in enumerate(target)}
        if not isinstance(target, dict):
            return None
        target = target.get(name.replace("~1", "/").replace("~0", "~"))
    return target


def _expressible(schema: dict[str, Any], shared: bool, overlap: bool) -> dict[str, Any]:
    """Leave out what the engine cannot express although it knows the keyword.

    Args:
        schema: The schema, all that lies in it expressible.
        shared: Whether there may be properties that other parts name.
        overlap: Whether the patterns of those parts overlap.
    """
    if "pattern" in schema and _is_inexpressible(_only(_TEXT, schema)):
        schema = _without(("pattern",), schema)
    if "patternProperties" in schema and (overlap or _is_inexpressible(_names(schema))):
        # Which names are additional cannot be told without the patterns.
        schema = {**schema, "patternProperties": {}, "additionalProperties": True}
    counts = _only(_COUNTS, schema)
    # Where it is lenient, it counts optional properties wrongly, and those of other parts.
    if counts and (
        shared
        or _is_inexpressible(
            {**counts, **_only(("required",), schema), **_names(schema)}, lenient=False
        )
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


def fault_of(schema: Mapping[str, Any]) -> Fault | None:
    """Find what the engine refuses of a schema, None if it takes all of it.

    Where the search would take seconds, the part found is one around the innermost.
    """
    text = json.dumps(schema)
    root = part = _closed(text)
    said, left = complaint(_json_rule(root)), _EFFORT
    if not said:
        return None

    def says_so(part: Any) -> bool:
        nonlocal left
        if left <= 0:
            return False
        rule = _rule_of(part, root)
        left -= max(len(rule), _LEAST)
        return complaint(rule) == said

    place: tuple[Any, ...] = ()
    while inner := _faulty(part, says_so):
        place, part = place + inner[0], inner[1]
    faulty: Any = json.loads(text)
    for key in place:
        faulty = faulty[key]
    return Fault(".".join(key for key in place if isinstance(key, str)), faulty, said)


def _faulty(part: Any, says_so: Callable[[Any], bool]) -> tuple[tuple[Any, ...], Any] | None:
    """Find the part of a part that is refused, None if none is by itself."""
    parts = some = list(_parts(part))
    while len(some) > 1:
        half = some[: len(some) // 2]
        together = {"properties": {str(index): each for index, (_, each) in enumerate(half)}}
        some = half if says_so(together) else some[len(half) :]
    # One by one where they are not refused together, or for another reason.
    return next((inner for inner in [*some, *parts] if says_so(inner[1])), None)


def _rule_of(part: Any, root: dict[str, Any]) -> str:
    """Write the rule of a part of a schema, with the definitions that it needs."""
    if not isinstance(part, dict):
        return f"%json {json.dumps(part)}"
    reached = _walk([part], lambda schema: _inside(schema, root))
    named = {name for each in reached.values() for name in str(each.get("$ref")).split("/")}
    definitions = {
        key: {
            name: each for name, each in root[key].items() if name in named or id(each) in reached
        }
        for key in _DEFINITIONS
        if isinstance(root.get(key), dict)
    }
    return _json_rule({**definitions, **part})


def _parts(schema: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the parts of a schema and where they lie."""
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key in _MAPS and isinstance(value, dict):
            yield from (((key, name), part) for name, part in value.items())
        elif isinstance(value, list) and key not in _LITERALS:
            yield from (((key, i), part) for i, part in enumerate(value) if isinstance(part, dict))
        elif isinstance(value, dict) and key not in _LITERALS:
            yield (key,), value


def complaint(rule: str) -> str:
    """Return why the engine refuses a rule in Lark's syntax, empty if it takes it."""
    grammar = LLMatcher.grammar_from_lark(f"%llguidance {{}}\nstart: {rule}")
    return reason(LLMatcher.validate_grammar(grammar))


def reason(message: str) -> str:
    """Return what one of the engine's messages says is wrong, without where it looked."""
    lines = message.strip().splitlines() or [""]
    line = next((line for line in lines if line.startswith("error: ")), lines[0])
    return re.sub(r"^(error: |at \d+\(\d+\): )(failed to compile JSON schema: )?", "", line)
