"""What a schema enforces while decoding, what it only says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from baco_integrations import Decoder, SamplingParams, ScriptedPair
from baco_integrations.core.errors import ParameterError
from baco_integrations.core.tool_calls import FORMATS
from baco_integrations.text.grammar import Grammars
from baco_integrations.text.json_schema import fault_of, strict
from baco_integrations.text.trial import OutOfTimeError

GRAMMARS = Grammars([bytes([n]) for n in range(256)], lambda text: [], FORMATS["hermes"])


def allows(schema: dict[str, Any], value: object) -> bool:
    return admits(schema, json.dumps(value))


def admits(schema: dict[str, Any], written: str) -> bool:
    matcher = GRAMMARS.matcher(SamplingParams(json_schema=schema), {256})
    assert matcher is not None
    return all(matcher.accept(token) for token in [*written.encode(), 256])


def text(**keywords: Any) -> dict[str, Any]:
    return {"type": "string", **keywords}


def thing(**keywords: Any) -> dict[str, Any]:
    return {"type": "object", **keywords}


AB = {"a": {"type": "integer"}, "b": {"type": "integer"}}
KINDS = [thing(properties={"k": {"const": kind}}, required=["k"]) for kind in "xy"]

# A schema, a value that follows it, and one that does not.
ENFORCED: list[tuple[dict[str, Any], object, object]] = [
    ({"type": "integer"}, 1, "a"),
    ({"type": ["integer", "null"]}, None, "a"),
    ({"enum": ["a", 1]}, 1, "b"),
    ({"const": {"a": 1}}, {"a": 1}, {"a": 2}),
    ({"anyOf": [text(), {"type": "null"}]}, None, 1),
    ({"oneOf": [text(), {"type": "null"}]}, "a", 1),
    ({"oneOf": KINDS, "discriminator": {"propertyName": "k"}}, {"k": "y"}, {"k": "z"}),
    ({"allOf": [text(minLength=2), text(maxLength=3)]}, "ab", "a"),
    ({"$defs": {"d": text(maxLength=1)}, "$ref": "#/$defs/d"}, "a", "ab"),
    (thing(properties=AB), {"a": 1}, {"a": "1"}),
    (thing(properties=AB, required=["b"]), {"b": 1}, {"a": 1}),
    (thing(properties=AB, additionalProperties=False), {"b": 1}, {"c": 1}),
    (thing(additionalProperties={"type": "integer"}), {"c": 1}, {"c": "1"}),
    (thing(patternProperties={"^x": AB["a"]}), {"xa": 1}, {"xa": "1"}),
    (thing(propertyNames={"pattern": "^a"}), {"a": 1}, {"b": 1}),
    (thing(propertyNames={"format": "date"}), {"2024-02-29": 1}, {"2023-02-29": 1}),
    (thing(minProperties=2), {"a": 1, "b": 1}, {"a": 1}),
    (thing(maxProperties=1), {"a": 1}, {"a": 1, "b": 1}),
    ({"type": "array", "items": text()}, ["a"], [1]),
    ({"type": "array", "prefixItems": [text(), {}], "minItems": 2}, ["a", 1], [1, "a"]),
    ({"type": "array", "minItems": 1}, [1], []),
    ({"type": "array", "maxItems": 1}, [1], [1, 1]),
    (text(minLength=2), "ab", "a"),
    (text(maxLength=2), "ab", "abc"),
    (text(pattern="^a+$"), "aa", "ab"),
    (text(pattern=r"^[a-z\d]\w*\.(png|jpe?g)$"), "a1.jpg", "a.gif"),
    (text(pattern="^(a|b)$|^$"), "", "c"),
    (text(pattern=r"^\p{Lu}"), "Ab", "ab"),
    (text(format="date-time"), "2024-02-29T10:00:00Z", "2024-02-29 10:00"),
    (text(format="date"), "2024-02-29", "2024-02-30"),
    (text(format="time"), "10:00:00Z", "25:00:00Z"),
    (text(format="duration"), "P1DT2H", "1 day"),
    (text(format="email"), "a@b.org", "a.b.org"),
    (text(format="hostname"), "b.org", "-b.org"),
    (text(format="ipv4"), "127.0.0.1", "127.0.0.256"),
    (text(format="ipv6"), "::1", "1"),
    (text(format="uuid"), "12345678-1234-1234-1234-123456789abc", "1234"),
    (text(format="uri"), "https://b.org/x?y", "b org"),
    ({"type": "number", "minimum": 1.5}, 1.5, 1.4),
    ({"type": "number", "maximum": 1.5}, 1.5, 1.6),
    ({"type": "integer", "exclusiveMinimum": 1}, 2, 1),
    ({"type": "integer", "exclusiveMaximum": 1}, 0, 1),
    ({"type": "integer", "multipleOf": 3}, 9, 10),
]
RELAXED: list[tuple[dict[str, Any], object, object]] = [
    ({"type": "array", "uniqueItems": True}, [1, 2], [1, 1]),
    ({"type": "array", "contains": text(), "minContains": 2}, ["a", "b"], ["a", 1]),
    ({"type": "array", "prefixItems": [{}], "unevaluatedItems": False}, [1], [1, 1]),
    ({"type": "integer", "not": {"const": 3}}, 1, 3),
    ({"oneOf": [text(), text(maxLength=1)]}, "ab", "a"),
    (thing(propertyNames={"maxLength": 1}), {"a": 1}, {"ab": 1}),
    (thing(properties=AB, propertyNames={"pattern": "^a"}), {"a": 1}, {"b": 1}),
    (thing(properties=AB, dependentRequired={"a": ["b"]}), {"b": 1}, {"a": 1}),
    (
        thing(properties=AB, dependentSchemas={"a": {"properties": {"c": text()}}}),
        {"a": 1, "c": "x"},
        {"a": 1, "c": 1},
    ),
    (
        {"properties": AB, "if": {"required": ["a"]}, "then": {"required": ["c"]}, "else": False},
        {"a": 1, "c": 1},
        {"a": 1},
    ),
    (thing(allOf=[{"properties": AB}, {}], unevaluatedProperties=False), {"a": 1}, {"c": 1}),
    (thing(properties=AB, minProperties=2), {"a": 1, "b": 1}, {"a": 1}),
    (thing(properties=AB, maxProperties=1), {"a": 1}, {"a": 1, "b": 1}),
    (
        thing(patternProperties={"^a": text(), "b$": {"maxLength": 1}}, additionalProperties=False),
        {"ab": "x"},
        {"ab": "xx"},
    ),
    (
        thing(properties=AB, patternProperties={"^(?!a)": text()}, additionalProperties=False),
        {"a": 1, "c": "x"},
        {"a": 1, "c": 1},
    ),
    (thing(properties={"pattern": text(pattern="^(?=a)")}), {"pattern": "a"}, {"pattern": "b"}),
    ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, 1, 2**70),
    ({"type": "integer", "exclusiveMaximum": 2**63, "minimum": -(2**63)}, -(2**62), -(2**64)),
    ({"type": "number", "minimum": -3.4028234663852886e38}, 0.5, -1e39),
    ({"type": "number", "maximum": 1.7976931348623157e308, "exclusiveMinimum": 0}, 0.5, 10**400),
    ({"type": "integer", "maximum": 2**53 + 1}, 1, 2**53 + 2),
    ({"type": "integer", "maximum": 10**400}, 1, 10**400 + 1),
    (text(pattern=r"(a)\1"), "aa", "ab"),
    (text(pattern=r"\ba\b"), "a", "ba"),
    (
        text(format="email", pattern=r"^\w+([.-]?\w+)*@\w+([.-]?\w+)*(\.\w{2,})+$", maxLength=99),
        "a@bc.org",
        "a@b",
    ),
]


@pytest.mark.parametrize(("schema", "good", "bad"), ENFORCED, ids=str)
def test_what_the_engine_can_express_is_enforced(schema: dict, good: object, bad: object) -> None:
    assert allows(schema, good) and not allows(schema, bad)
    definitions = {"$defs": schema.get("$defs", {})}
    for whole in ({"items": schema, "type": "array"}, {"anyOf": [schema]}, {"allOf": [schema]}):
        value, other = ([good], [bad]) if "items" in whole else (good, bad)
        assert allows(whole | definitions, value) and not allows(whole | definitions, other)


@pytest.mark.parametrize(("schema", "good", "bad"), RELAXED, ids=str)
def test_the_rest_is_left_out(schema: dict, good: object, bad: object) -> None:
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema)
    assert allows(schema, good) and allows(schema, bad)
    inside = thing(allOf=[{"properties": {"k": schema}}], additionalProperties=True)
    assert allows(inside, {"k": good})


@pytest.mark.parametrize(
    "name", ["path", "password", "byte", "binary", "uri-reference", "json-pointer", "zip"]
)
def test_other_formats_are_left_out(name: str) -> None:
    schema = thing(properties={"a": text(format=name, maxLength=3)})
    assert allows(schema, {"a": "a/b"}) and not allows(schema, {"a": "a/bc"})


def test_ordinary_types_of_python_are_taken() -> None:
    class Ordinary(BaseModel):
        path: Path
        tags: set[str]
        codes: frozenset[int]
        data: bytes

    schema = Ordinary.model_json_schema()
    assert allows(schema, {"path": "a/b", "tags": ["a"], "codes": [1], "data": "x"})
    assert not allows(schema, {"path": "a/b", "tags": ["a"], "codes": ["1"], "data": "x"})
    tool = {"function": {"name": "f", "parameters": schema}}
    for choice in ("auto", "any"):
        assert GRAMMARS.matcher(SamplingParams(tools=[tool], tool_choice=choice), ()) is not None


def test_what_is_left_out_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    schema = thing(properties={"a": text(format="color"), "b": text(pattern="^(?!color)")})
    with caplog.at_level("INFO", logger="baco_integrations"):
        for _ in range(2):
            assert allows(schema, {"b": "color"})
    told = " ".join(caplog.messages)
    assert len(caplog.messages) == 2 and "Unknown format: color" in told and "look-ahead" in told


def test_bounds_beside_those_that_are_too_wide_hold() -> None:
    schema = {"type": "number", "minimum": 0, "maximum": 1e20, "multipleOf": 0.5}
    assert allows(schema, 0.5) and not allows(schema, -1) and not allows(schema, 0.7)
    schema = {"type": "integer", "minimum": -(2**63), "maximum": 5}
    assert allows(schema, 5) and not allows(schema, 6)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (thing(properties={"a": text(), "q": {"type": "strng"}}), "'properties.q' in * strng"),
        (thing(properties={"a": {"items": {"pattern": "(a"}}}), "'properties.a.items' * unclosed"),
        (thing(patternProperties={"(": {}}), "says of * unclosed"),
        (thing(properties={1: {"anyOf": ({}, {"type": "strng"})}}), "'properties.1.anyOf' * strng"),
        (thing(properties={"a": {"anyOf": [{"$ref": "#/$defs/no"}]}}), "'properties.a.anyOf' * no"),
        ({"properties": {"a": {"$ref": "https://b.org/s"}}}, "'properties.a' * https://b.org/s"),
        (thing(required=["q"], properties={"q": text(minLength=2, maxLength=1)}), "'q' is unsat"),
        (thing(required=["q"], properties={"q": 1}), "'properties.q' * must be an object"),
        (thing(minProperties=3, maxProperties=2), "minProperties > maxProperties"),
        (
            {"$defs": {"d": thing(properties={"e": {"enum": 3}})}, "$ref": "#/$defs/d"},
            "'$defs.d.properties.e' * enum must be",
        ),
    ],
)
@pytest.mark.parametrize("way", ["json_schema", "tools"])
def test_mistakes_are_refused_where_they_are(schema: dict, words: str, way: str) -> None:
    tools = [{"function": {"name": name, "parameters": thing()}} for name in ("fine", "faulty")]
    tools[1]["function"]["parameters"] = schema
    settings = {"tools": tools} if way == "tools" else {"json_schema": schema}
    whose = "tool 'faulty'" if way == "tools" else "the schema"
    with pytest.raises(ParameterError) as caught:
        GRAMMARS.matcher(SamplingParams(**settings), ())
    assert caught.value.parameter == way
    rest = str(caught.value)
    for word in [whose, *words.split(" * ")]:
        assert word in rest or word.replace(" in", f" in {whose}") in rest
    assert "at 2(" not in rest and ".." not in rest.replace("...", "")


@pytest.mark.parametrize(
    ("regex", "words"),
    [
        ("a(?=b)", "look-around, including look-ahead and look-behind, is not supported."),
        (r"(a)\1", "backreferences are not supported."),
        ("(a", "unclosed group."),
        (r"\bfoo", "lookarounds not supported yet; WordUnicode in regex"),
    ],
)
def test_a_pattern_is_refused_with_its_reason(regex: str, words: str) -> None:
    with pytest.raises(ParameterError, match="regex must be a pattern that can be") as caught:
        GRAMMARS.matcher(SamplingParams(regex=regex), ())
    assert f"The grammar engine says: {words}" in str(caught.value).replace(
        f'invalid regex "{json.dumps(regex)[1:-1]}" (in regex): ', ""
    )


def test_strict_closes_objects_that_name_their_properties() -> None:
    inner = {"properties": {"properties": text(), "enum": text()}}
    schema = {
        "properties": {"a": inner, "b": {"type": "object"}},
        "$defs": {"d": {"properties": {}, "additionalProperties": text()}},
        "items": [inner],
        "const": {"properties": {}},
    }
    closed = {**inner, "additionalProperties": False}
    assert strict(schema) == {
        "properties": {"a": closed, "b": {"type": "object"}},
        "$defs": schema["$defs"],
        "items": [closed],
        "const": {"properties": {}},
        "additionalProperties": False,
    }
    assert "additionalProperties" not in schema


def test_objects_of_several_parts_stay_open() -> None:
    for key in ("anyOf", "allOf", "if", "dependentSchemas"):
        schema = {"properties": {"a": {}}, key: [{"properties": {"b": {}}}]}
        assert strict(schema) == schema


@pytest.mark.parametrize(
    "alternatives",
    [
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"oneOf": [{"properties": {"a": {"const": 1}}}, {"required": ["b"]}]},
        {"allOf": [{"properties": {"b": {"minimum": 0}}}, {"$ref": "#/$defs/d"}]},
        {"$ref": "#/$defs/d"},
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
    ],
    ids=str,
)
def test_parts_that_name_nothing_new_leave_an_object_closed(alternatives: dict[str, Any]) -> None:
    inner = thing(properties=AB)
    schema = thing(properties=AB | {"x": inner}, **alternatives) | {
        "$defs": {"d": {"required": ["a"]}}
    }
    whole = {"a": 1, "b": 1, "x": {"a": 1}}
    for each in (schema, thing(properties={"deep": schema}, **{"$defs": schema["$defs"]})):
        value, outer = (whole, {}) if each is schema else ({"deep": whole}, {"c": 1})
        assert allows(each, value) and not allows(each, value | outer | {"z": 1})
        for more in ({"c": 1}, {"x": {"c": 1}}):
            assert not allows(each, whole | more if each is schema else {"deep": whole | more})


def test_what_parts_name_too_stays_open_inside() -> None:
    schema = thing(
        properties={"x": thing(properties={"a": {}}), "y": thing(properties={"a": {}})},
        anyOf=[{"properties": {"x": {"properties": {"b": {}}}}}],
    )
    assert allows(schema, {"x": {"a": 1, "b": 1}}) and allows(schema, {"y": {"a": 1}})
    assert not allows(schema, {"y": {"a": 1, "b": 1}}) and not allows(schema, {"z": 1})


@pytest.mark.parametrize(
    "said",
    [
        *({"$schema": name} for name in ("foo", "https://b.org/dialect", 3)),
        *({"$id": name} for name in ("person.json", "foo#bar", "a b", "http://[b", "", "::", 3)),
        {"$schema": "foo", "$id": "::", "id": "a b"},
        {"$comment": 3, "title": [], "description": {}, "examples": 3, "deprecated": "x"},
        {"default": {"type": "strng"}, "readOnly": 4, "$vocabulary": 3, "x-own": {"type": "strng"}},
    ],
    ids=str,
)
def test_annotations_constrain_and_resolve_nothing(said: dict[str, Any]) -> None:
    definitions = {"$defs": {"d": {"type": "integer", **said}}}
    inner = {"a": {"$ref": "#/$defs/d"}, "$id": {"type": "integer", **said}}
    schema = thing(properties=inner, **definitions, **said)
    assert allows(schema, {"a": 1, "$id": 1}) and not allows(schema, {"a": "x"})
    tool = {"function": {"name": "f", "parameters": schema}}
    assert GRAMMARS.matcher(SamplingParams(tools=[tool]), ()) is not None
    with pytest.raises(ParameterError, match=r"'properties\.b' .* strng"):
        allows(thing(properties=inner | {"b": {"type": "strng"}}, **definitions, **said), {})


A, B = thing(properties={"a": text()}, required=["a"]), thing(properties={"b": text()})
REF = {"$ref": "#/$defs/A"}
BOTH = [REF, {**B, "required": ["b"]}]


@pytest.mark.parametrize(
    "x",
    [
        {"allOf": BOTH},
        {**REF, **B},
        {**REF, "anyOf": [B, thing(properties={"c": text()})]},
        {"allOf": [{"allOf": [REF]}, B]},
        {"allOf": [{"$ref": "#/$defs/to%20A~1"}, B]},
        {"allOf": [{"$ref": "#/$defs/B/allOf/0"}, B]},
        {"$ref": "#/$defs/B"},
        {"allOf": [{"$ref": "#/$defs/B"}, {}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("needed", [True, False])
def test_definitions_that_other_parts_add_to_stay_open(x: dict[str, Any], needed: bool) -> None:
    definitions = {"A": A, "B": {"allOf": BOTH}, "to A/": REF, "C": A}
    schema = thing(
        **{"$defs": definitions},
        properties={"x": x, "c": {"allOf": [{"$ref": "#/$defs/C"}]}},
        required=["x"] if needed else [],
    )
    assert allows(schema, {"x": {"a": "", "b": ""}})
    assert not allows(schema, {"x": {"b": ""}})
    # What stands alone is closed as ever.
    assert allows(schema, {"x": {"a": "", "b": ""}, "c": {"a": ""}})
    assert not allows(schema, {"x": {"a": "", "b": ""}, "c": {"a": "", "b": ""}})


@pytest.mark.parametrize("name", [{"$anchor": "here"}, {"$id": "https://b.org/here"}], ids=str)
def test_definitions_with_names_of_their_own_stay_open_too(name: dict[str, str]) -> None:
    reference = {"$ref": name.get("$id", "#here")}
    schema = {"$defs": {"A": name | A}, "properties": {"x": {"allOf": [reference, B]}}}
    assert allows(schema, {"x": {"a": "", "b": ""}}) and not allows(schema, {"x": {"b": ""}})


def test_what_parts_share_by_name_stays_open() -> None:
    parts = [thing(properties={"x": REF}), thing(properties={"x": B})]
    schema = {"$defs": {"A": A}, "allOf": parts}
    assert allows(schema, {"x": {"a": "", "b": ""}}) and not allows(schema, {"x": {"b": ""}})


def test_an_object_that_requires_what_it_does_not_name_stays_open() -> None:
    schema = thing(properties={"a": text()}, required=["z"])
    assert allows(schema, {"a": "", "z": 1}) and not allows(schema, {"a": ""})


@pytest.mark.parametrize(
    "schema",
    [
        thing(properties=AB, allOf=[{"minProperties": 1}]),
        thing(allOf=[{"properties": AB}, {"minProperties": 1, "maxProperties": 2}]),
        thing(properties=AB, anyOf=[{"minProperties": 1}, {"required": ["a"]}]),
        {"$defs": {"d": thing(properties=AB)}, "$ref": "#/$defs/d", "minProperties": 1},
        {"$defs": {"d": {"minProperties": 1}}, "properties": AB, "$ref": "#/$defs/d"},
    ],
    ids=str,
)
def test_counts_do_not_hold_for_other_parts(schema: dict[str, Any]) -> None:
    for value in ({"a": 1}, {"b": 1}, {"a": 1, "b": 1}):
        assert allows(schema, value)
    assert not allows(schema, {"a": "x"})


def test_patterns_of_several_parts_may_overlap() -> None:
    def parts(*patterns: str) -> dict[str, Any]:
        return {"allOf": [thing(patternProperties={each: AB["a"]}) for each in patterns]}

    assert allows(parts("^a", "b$"), {"ab": 1})
    assert allows(parts("^a", "^b"), {"a": 1, "b": 1})
    assert not allows(parts("^a", "^b"), {"a": 1, "b": "x"})


def test_how_white_space_is_written_is_not_the_schemas_to_say() -> None:
    schema = thing(properties=AB) | {"x-guidance": {"whitespace_flexible": True}}
    assert allows(schema, {"a": 1}) and not admits(schema, '{ "a":1 }')


def test_what_nests_too_deep_is_refused() -> None:
    def nested(depth: int) -> dict[str, Any]:
        return {"type": "array", "items": nested(depth - 1)} if depth else text()

    assert allows(nested(126), [[]]) and not allows(nested(126), [""])
    for depth in (127, 400):
        tool = {"function": {"name": "f", "parameters": thing(properties={"a": nested(depth)})}}
        for way, value in (("json_schema", nested(depth)), ("tools", [tool])):
            with pytest.raises(ParameterError, match=f"{way} must be .* at most 127 objects"):
                GRAMMARS.matcher(SamplingParams(**{way: value}), ())


def test_a_fault_is_found_where_it_is_defined() -> None:
    definitions = {f"d{n}": thing(properties={"a": text()}) for n in range(20)}
    definitions["last"] = thing(properties={"a": {"type": "strng"}})
    schema = thing(properties={"q": {"$ref": "#/$defs/last"}}, **{"$defs": definitions})
    fault = fault_of(schema)
    assert fault is not None and fault[:2] == ("$defs.last.properties.a", {"type": "strng"})
    # A second mistake hides none.
    schema["properties"]["p"] = {"type": "nmber"}
    fault = fault_of(schema)
    assert fault is not None and fault[0] in ("properties.p", "$defs.last.properties.a")
    # What is written in another way for the engine is found as far as it is the caller's.
    renamed = thing(propertyNames={"pattern": "^a"}, additionalProperties={"type": "strng"})
    fault = fault_of(thing(properties={"x": renamed}))
    assert fault is not None and fault[0] == "properties.x"


def test_a_search_that_takes_too_long_names_what_it_has_found() -> None:
    schema = thing(properties={"a": text(), "q": {"type": "strng"}})
    assert fault_of(schema) is not None
    asked = []

    def once(rule: str) -> str:
        asked.append(rule)
        if len(asked) > 1:
            raise OutOfTimeError
        return "Invalid type: strng"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("baco_integrations.text.json_schema.complaint", once)
        fault = fault_of(schema)
    assert fault == ("", schema, "Invalid type: strng")


def test_a_schema_is_relaxed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = {f"p{n}": text(pattern=f"^once{n}") for n in range(3)}
    assert allows(thing(properties=patterns), {"p0": "once0"})
    monkeypatch.setattr("baco_integrations.text.json_schema.complaint", None)
    assert allows(thing(properties=patterns), {"p1": "once1"})


def test_a_tool_with_a_path_is_called() -> None:
    tool = {
        "function": {"name": "read", "parameters": thing(properties={"p": text(format="path")})}
    }
    answer = '<tool_call>\n{"name": "read", "arguments": {"p": "a/b"}}\n</tool_call>'
    pair = ScriptedPair({"": {answer: 1.0}}, {"": {answer: 1.0}})
    with Decoder(pair) as decoder:
        (completion,) = decoder.generate("x", tools=[tool], seed=1)
    assert completion.tool_calls[0].parsed == {"p": "a/b"}
