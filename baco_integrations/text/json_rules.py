"""JSON schemas as rules of a grammar, with every literal exactly as it is given.

Invariant: what ``enum`` and ``const`` list is decoded to the last digit. The engine reads numbers
as floats; where that would change one, the schema around it is written out as rules that hold
the literal itself, and the engine is left with the parts that it reads exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..core.errors import ParameterError
from .json_schema import closed, json_rule, rule_of
from .schema_parts import DEFINITIONS, leads_to, parts_of, pointer_of, target, walk
from .trial import admits

LONGEST = 2**21
"""Most characters of a schema, and of a grammar."""
_SAFE = 2**53
# Each reference by name may mean any definition.
_MOST_NAMED = 1_000_000
_MOST_LINKS = 250

_OBJECT = {"type", "properties", "required", "additionalProperties"}
_ARRAY = {"type", "items", "minItems", "maxItems"}
_SAYS_NOTHING = {
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    *("$schema", "$id", "$comment", "$anchor", "discriminator", *DEFINITIONS),
}


def json_rules(
    name: str, schema: Mapping[str, Any], parameter: str = "json_schema"
) -> dict[str, str]:
    """Write the rules of JSON that follows a schema, in Lark's syntax.

    Args:
        name: The name of the first rule; others' begin with it.
        schema: The schema.
        parameter: What the caller gave it as.

    Raises:
        ParameterError: It is too large, nests too deep, or holds numbers that cannot be decoded.
    """
    return cached_rules(name, json.dumps(schema), parameter)


@lru_cache(maxsize=64)
def cached_rules(name: str, schema: str, parameter: str) -> dict[str, str]:
    """Write the rules of a schema given as JSON; see `json_rules`."""
    require_limits(schema, parameter)
    root = closed(schema)
    writer = RuleWriter(name, root, parameter)
    if id(root) not in writer.inexact:
        return {name: json_rule(root)}
    writer.write(name, root)
    return writer.rules


class RuleWriter:
    """Writes out a schema as far as it leads to literals that the engine would change.

    Args:
        name: The name of the first rule; others' begin with it.
        root: The schema, closed.
        parameter: What the caller gave it as.

    Attributes:
        inexact: What leads to such literals, by identity.
        rules: The rules that have been written.
    """

    def __init__(self, name: str, root: dict[str, Any], parameter: str) -> None:
        self.rules: dict[str, str] = {}
        self._name, self._root, self._parameter = name, root, parameter
        self._named = {id(root): name}
        self.inexact: set[int] = set()
        around: dict[int, list[dict[str, Any]]] = {}
        reached = walk([root], lambda schema: leads_to(schema, root))
        for schema in reached.values():
            for part in leads_to(schema, root):
                around.setdefault(id(part), []).append(schema)
        left = [schema for schema in reached.values() if not is_exact(literals_of(schema))]
        if left:  # and what the engine would not find in a part of the schema
            within = tuple(f"/{key}/" for key in DEFINITIONS)
            for schema in reached.values():
                pointer = pointer_of(schema)
                if pointer is not None and not pointer.startswith(within):
                    left.append(schema)
        while left:
            schema = left.pop()
            if id(schema) not in self.inexact:
                self.inexact.add(id(schema))
                left += around.get(id(schema), ())

    def write(self, name: str, schema: dict[str, Any]) -> None:
        """Write the rule of a schema under a name, and the rules that it needs."""
        says = schema.keys() - _SAYS_NOTHING
        if literals := literals_of(schema):
            self.write_literals(name, schema, literals)
        elif len(says) == 1 and says < {"anyOf", "oneOf", "allOf"}:
            (parts,) = (schema[key] for key in says)
            if says == {"allOf"} and len(parts) > 1:
                raise self.inexact_error(schema)
            self.rules[name] = " | ".join(map(self.value_rule, parts))
        elif says == {"$ref"} and (pointer := pointer_of(schema)) is not None:
            self.rules[name] = self.value_rule(target(pointer, self._root))
        elif (
            "properties" in says and says <= _OBJECT and schema.get("additionalProperties") is False
        ):
            self.write_object(name, schema)
        elif "items" in says and says <= _ARRAY:
            self.write_array(name, schema)
        else:
            raise self.inexact_error(schema)

    def value_rule(self, schema: Any) -> str:
        """Return what stands for a schema in a rule."""
        if id(schema) not in self.inexact:
            return rule_of(schema, self._root)
        if id(schema) not in self._named:
            self._named[id(schema)] = f"{self._name}_{len(self._named)}"
            self.write(self._named[id(schema)], schema)
        return self._named[id(schema)]

    def inexact_error(self, schema: object) -> ParameterError:
        """Return the error of a part that can neither be written out nor left to the engine."""
        return ParameterError(
            self._parameter,
            "a JSON schema whose numbers in enum and const can be decoded exactly",
            schema,
            "Let only properties, items and anyOf without other keywords lead there, or write the "
            "numbers as strings.",
        )

    def write_literals(self, name: str, schema: dict[str, Any], literals: list[Any]) -> None:
        """Write those of the literals that the rest of a schema admits."""
        rest = {key: schema[key] for key in schema.keys() - {"enum", "const"} - _SAYS_NOTHING}
        try:
            texts = [json.dumps(each, ensure_ascii=False, allow_nan=False) for each in literals]
        except ValueError:
            raise self.inexact_error(schema) from None
        if rest and not admits(rule_of({"items": rest}, self._root), f"[{', '.join(texts)}]"):
            texts = [text for text in texts if admits(rule_of(rest, self._root), text)]
        if not texts:
            raise self.inexact_error(schema)
        self.rules[name] = name.upper()
        self.rules[name.upper()] = " | ".join(map(quoted, texts))

    def write_object(self, name: str, schema: dict[str, Any]) -> None:
        """Write properties in their order, commas between those that are there."""
        required, count = schema.get("required", []), len(schema["properties"])
        if not isinstance(required, list) or any(
            key not in schema["properties"] for key in required
        ):
            raise self.inexact_error(schema)
        self.rules[f"{name}_after_{count}"] = first = '""'
        for number, (key, value) in reversed([*enumerate(schema["properties"].items())]):
            item, rest = f"{name}_item_{number}", f"{name}_after_{number + 1}"
            self.rules[item] = f"{quoted(json.dumps(key) + ': ')} {self.value_rule(value)}"
            needed = key in required
            first = f"{item} {rest}" + ("" if needed else f" | {first}")
            behind = f'", " {item}'
            self.rules[f"{name}_after_{number}"] = f"{behind if needed else f'({behind})?'} {rest}"
        self.rules[name] = f'"{{" ({first}) "}}"'

    def write_array(self, name: str, schema: dict[str, Any]) -> None:
        """Write an array of one kind of item, as many as may be."""
        item = self.value_rule(schema["items"])
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if not isinstance(least, int) or not isinstance(most, int | None):
            raise self.inexact_error(schema)
        times = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        some = f'{item} (", " {item}){times}'
        empty = ' | ""' if least == 0 else ""
        self.rules[name] = '"[]"' if most == 0 else f'"[" ({some}{empty}) "]"'


def literals_of(schema: dict[str, Any]) -> list[Any]:
    """Return the values that a schema lists, if it lists any."""
    listed = schema.get("enum", [schema.get("const")] if "const" in schema else [])
    if not isinstance(listed, list):
        return []
    return [each for each in listed if each == schema.get("const", each)]


def is_exact(literals: list[Any]) -> bool:
    """Tell whether the engine reads literals as they are."""
    floats: list[float] = []
    left: list[Any] = [literals]
    while left:
        literal = left.pop()
        if isinstance(literal, dict | list):
            left += literal.values() if isinstance(literal, dict) else literal
        elif isinstance(literal, float):
            floats.append(literal)
        elif isinstance(literal, int) and abs(literal) > _SAFE:
            return False
    return not floats or admits(json_rule({"const": floats}), json.dumps(floats))


def quoted(text: str) -> str:
    """Return a text as a literal of Lark's, nothing if it is empty."""
    return json.dumps(text) if text else ""


def require_limits(text: str, parameter: str) -> None:
    """Refuse what would take long or run deep, before anything follows its references."""
    schema = json.loads(text)
    pointers = text.count('"$ref": "#/') + text.count('"$ref": "#"')
    names = text.count('"$ref": ') - pointers
    named = names * sum(1 for place, _ in parts_of(schema) if place[0] in DEFINITIONS)
    if len(text) > LONGEST or named > _MOST_NAMED:
        raise ParameterError(
            parameter,
            f"a JSON schema of at most {LONGEST} characters, and of few references by name",
            f"{len(text)} characters, and {names} references by name",
            "Leave out what the answer does not need, or refer by pointers.",
        )
    if link_depth(schema) > _MOST_LINKS:
        raise ParameterError(
            parameter,
            f"a JSON schema whose parts lead at most {_MOST_LINKS} deep, references included",
            "a deeper one",
            "Let fewer definitions refer to one another in a row.",
        )


def link_depth(root: dict[str, Any]) -> int:
    """Return the depth of a walk through a schema that follows every reference once."""
    deepest, met, way = 0, set(), [iter([root])]
    while way:
        part = next(way[-1], way)
        if part is way:
            way.pop()
        elif isinstance(part, dict) and id(part) not in met:
            met.add(id(part))
            way.append(leads_to(part, root))
            deepest = max(deepest, len(way))
    return deepest
