"""What enum and const list is decoded exactly, wherever it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from baco_integrations import SamplingParams
from baco_integrations.core.errors import ParameterError
from baco_integrations.core.tool_calls import FORMATS
from baco_integrations.text.grammar import Grammars

GRAMMARS = Grammars([bytes([n]) for n in range(256)], lambda text: [], FORMATS["hermes"])


def admits(schema: dict[str, Any], value: object) -> bool:
    matcher = GRAMMARS.matcher(SamplingParams(json_schema=schema), {256})
    assert matcher is not None
    text = value if isinstance(value, str) else json.dumps(value)
    return all(matcher.accept(token) for token in [*text.encode(), 256])


BIG, NEAR = 2**53 + 1, 2**53 + 2
ONE = {"const": BIG}
ID = {"properties": {"id": ONE}, "required": ["id"]}

NUMBERS = [
    *(BIG, -BIG, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, 10**30),
    *(0.42039755255290867, 182306.87000260781, 1e22, 5e-324, 1.7976931348623157e308, -0.5, 1.0),
]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_itself_to_the_last_digit(number: float) -> None:
    other = number + 1 if isinstance(number, int) else number * (1 + 2**-52) * 2
    for schema in (
        {"const": number},
        {"enum": [7, number]},
        {"enum": [7, number], "const": number},
    ):
        assert admits(schema, number) and not admits(schema, other)
    for value in ([number], {"a": [number, "x"]}, {"a": {"b": number, "c": None}}):
        assert admits({"const": value}, value) and admits({"enum": [value, 1]}, value)
        assert not admits({"enum": [value, 1]}, json.dumps(value).replace(str(number), "8"))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"properties": {"a": ONE, "b": {}}}, [{}, {"a": BIG}, {"b": 1}, {"a": BIG, "b": []}], []),
        ({"properties": {"b": {}, "a": ONE}}, [{}, {"a": BIG}, {"b": 1, "a": BIG}], ["{, "]),
        (
            {"properties": {"b": {}, "a": ONE, "c": {}}, "required": ["a", "c"]},
            [{"a": BIG, "c": 1}, {"b": 1, "a": BIG, "c": 1}],
            [{}, {"c": 1}, {"b": 1, "c": 1}, {"a": BIG}, {"a": BIG, "c": 1, "d": 1}],
        ),
        (ID | {"title": "T", "$defs": {"x": {}}}, [{"id": BIG}], [{}, {"id": NEAR}]),
        ({"type": "array", "items": ONE}, [[], [BIG], [BIG, BIG]], [[1], "[, "]),
        ({"type": "array", "items": ONE, "minItems": 1, "maxItems": 2}, [[BIG]], [[], [BIG] * 3]),
        ({"type": "array", "items": ONE, "minItems": 2}, [[BIG] * 4], [[BIG]]),
        ({"type": "array", "items": ONE, "maxItems": 0}, [[]], [[BIG]]),
        ({"anyOf": [{"type": "null"}, ONE]}, [None, BIG], [NEAR, 1]),
        ({"allOf": [{"$ref": "#/$defs/d"}], "$defs": {"d": ID}}, [{"id": BIG}], [{"id": 1}]),
        (
            {
                "properties": {"id": ONE, "next": {"$ref": "#"}, "d": {"$ref": "#/$defs/d"}},
                "$defs": {"d": {"type": "string", "maxLength": 1}},
            },
            [{"id": BIG, "next": {"next": {"id": BIG}, "d": "x"}}],
            [{"next": {"id": 1}}, {"d": "xx"}],
        ),
        (
            {
                "properties": {
                    "a": {"type": "string", "maxLength": 1},
                    "b": {"type": "array", "items": {"$ref": "#/properties/a"}},
                    "id": {"anyOf": [ONE, {"$ref": "#/properties/b"}]},
                }
            },
            [{"a": "x", "b": ["y"], "id": BIG}, {"id": ["x", "y"]}],
            [{"a": "xx"}, {"b": ["xx"]}, {"b": "x"}, {"id": ["xx"]}],
        ),
        ({"enum": [BIG, "a", None, 1.5], "type": ["integer", "null"]}, [BIG, None], ['"a"', 1.5]),
        ({"enum": [BIG, -BIG], "minimum": 0}, [BIG], [-BIG]),
        ({"enum": ['é"\\', BIG]}, ['"é\\"\\\\"', BIG], []),
    ],
    ids=str,
)
def test_schemas_are_written_out_around_such_numbers(
    schema: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    assert [value for value in good if not admits(schema, value)] == []
    assert [value for value in [*bad, NEAR] if admits(schema, value)] == []


def test_arguments_of_tools_are_exact_too() -> None:
    tools = [
        {"function": {"name": name, "parameters": {"type": "object", **schema}}}
        for name, schema in (("f", ID), ("g", ID), ("h", {}))
    ]
    for name, id, calls in (("f", BIG, True), ("g", BIG, True), ("g", NEAR, False)):
        matcher = GRAMMARS.matcher(SamplingParams(tools=tools, tool_choice="any"), {256})
        text = FORMATS["hermes"].write([(name, {"id": id})])
        assert matcher and all(matcher.accept(token) for token in text.encode()) == calls


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": ONE}, "additionalProperties": True},
        {"properties": {"a": ONE}, "required": ["b"]},
        {"properties": {"a": ONE}, "required": 3, "additionalProperties": False},
        {"type": "array", "items": ONE, "minItems": "1"},
        {"type": "array", "prefixItems": [ONE]},
        {"allOf": [ONE, {"type": "integer"}]},
        {"enum": [BIG], "type": "string"},
        {"allOf": [{"const": BIG, "enum": 3}, ONE]},
        {"patternProperties": {"a": ONE}},
    ],
    ids=str,
)
def test_what_cannot_be_written_out_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="^json_schema must be .* exactly, got .* as strings"):
        GRAMMARS.matcher(SamplingParams(json_schema=schema), ())


def test_what_is_exact_anyway_is_the_engines() -> None:
    schema = {"patternProperties": {"^a$": {"enum": [2**53, 1.5, "x"]}}}
    assert admits(schema, {"a": 2**53}) and not admits(schema, {"a": 1})


@pytest.mark.parametrize("form", ["json_schema", "regex", "choices"])
def test_what_is_too_long_is_refused(form: str) -> None:
    text = "x" * 2**22
    value: Any = {"json_schema": {"enum": [text]}, "choices": [text]}.get(form, text)
    with pytest.raises(ParameterError, match=f"{form} must be .* at most 2097152 characters"):
        GRAMMARS.matcher(SamplingParams(**{form: value}), ())


def chain(links: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {
        f"d{n}": {"properties": {"n": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(links)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{links}": {"type": "integer"}}}


def test_definitions_may_refer_to_one_another_only_so_deep() -> None:
    assert admits(chain(60), {"n": {"n": {}}})
    exact = chain(100)
    exact["$defs"]["d100"] = ONE
    assert admits(exact, {"n": {"n": {}}})
    for schema in (chain(140), chain(3000)):
        with pytest.raises(ParameterError, match="json_schema must be .* at most 250 deep"):
            GRAMMARS.matcher(SamplingParams(json_schema=schema), ())


def test_many_references_by_name_are_refused() -> None:
    def named(count: int) -> dict[str, Any]:
        definitions = {f"d{n}": {"$anchor": f"a{n}", "type": "null"} for n in range(count)}
        return {"$defs": definitions, "anyOf": [{"$ref": f"#a{n}"} for n in range(count)]}

    assert admits(named(20), None)
    with pytest.raises(ParameterError, match="json_schema must be .* few references by name"):
        GRAMMARS.matcher(SamplingParams(json_schema=named(2000)), ())


def test_what_is_no_number_of_json_is_refused() -> None:
    for literal in (float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="json_schema must be"):
            GRAMMARS.matcher(SamplingParams(json_schema={"enum": [1, literal]}), ())
    assert admits({"type": "number", "default": float("inf")}, 1)
