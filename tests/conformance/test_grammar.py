"""Constrained rows, recomputed step by step, beside rows that are free."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest

from baco_integrations import Completion, Decoder, SamplingParams
from baco_integrations.core.tool_calls import FORMATS, CallFormat
from baco_integrations.policy import grammar_masks as matcher
from baco_integrations.policy import token_classes as classes
from baco_integrations.policy.token_classes import RESERVED
from tests.conformance.definition import check, grammar_bytes, place
from tests.pairs import Maker, cases, random_pair

FAMILIES = ("llama", "gemma3")
KINDS = ("byte-level", "sentencepiece")
CHECKED = {"steps": 0, "complete": 0, "values": 0, "batches": 0}

WORD = {"type": "string", "maxLength": 12}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 14},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": WORD, "minItems": 1, "maxItems": 2},
        "mood": {"enum": ["glad", "sad", None]},
    },
    "required": ["name", "age", "tags", "mood"],
}
NESTED = {
    "$defs": {"pair": {"type": "array", "items": WORD, "minItems": 2, "maxItems": 2}},
    "type": "object",
    "properties": {
        "a": {"anyOf": [{"$ref": "#/$defs/pair"}, {"type": "boolean"}, WORD]},
        "b": {"type": "object", "properties": {"c": WORD, "d": {"type": "null"}}, "required": []},
    },
    "required": ["a", "b"],
}
SCHEMAS = (PERSON, NESTED, {"type": "array", "items": {"const": "x y"}, "maxItems": 3})


def tool(name: str, parameters: dict) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    tool("find", {"type": "object", "properties": {"what": WORD}, "required": ["what"]}),
    tool("add", {"type": "object", "properties": {"x": {"type": "integer", "maximum": 9999}}}),
]
FORMS: tuple[dict[str, Any], ...] = (
    *({"json_schema": schema} for schema in SCHEMAS),
    {"json_schema": PERSON, "show_schema": False},
    {"regex": r"[a-z][a-z ]{3,12}(\.|!)[0-9]{2,3}"},
    {"choices": ["the sea", "the old sea", 'a story: "x"', "12 months"]},
    {"tools": TOOLS, "tool_choice": "any"},
    {"tools": TOOLS, "tool_choice": "add", "parallel_tool_calls": False},
    {"tools": TOOLS},
    {},
)
ROUTES: tuple[dict[str, Any], ...] = (
    {"router": "p-punc", "gamma": 0.8},
    {"router": "rand", "gamma": 0.6},
    {"router": "h", "gamma": 0.9, "temperature": 1.0},
    {"router": "punc", "signal_model": "aligned"},
    {"router": "p", "gamma": 1.0, "boundary": False, "temperature": 0.0},
    {"router": "base"},
    {"router": "aligned"},
)
# A tag that random text comes upon now and then.
SHORT = CallFormat("short", "", "hat", "na", ",", "", "arguments")


def decode(
    pair: Any, params: list[SamplingParams], decoder: Decoder, prompt: str = "Hi"
) -> list[Completion]:
    """Decode as one batch and recompute every step."""
    batch = [rows[0] for rows in decoder.generate_batch([prompt] * len(params), params)]
    for own, completion in zip(params, batch, strict=True):
        CHECKED["steps"] += check(pair, prompt, own, completion)
        confirm(pair, own, completion)
    return batch


def confirm(pair: Any, params: SamplingParams, completion: Completion) -> None:
    """Structure comes from aligned, and what is complete is valid."""
    spelling, said = grammar_bytes(pair, bool(params.offered)), b""
    for step in completion.steps:
        structure, reserved = place(said, params, pair.call_format)
        data = spelling[step.token_id]
        said += data
        if step.source == "base" and params.router != "base":
            assert not structure and not (reserved and reserved in data)
            CHECKED["values"] += reserved == b'"'
    if completion.finish_reason == "length":
        return
    CHECKED["complete"] += 1
    if params.json_schema is not None and not completion.tool_calls:
        jsonschema.validate(json.loads(completion.text), params.json_schema)
    if params.regex:
        assert re.fullmatch(params.regex, completion.text)
    if params.choices:
        assert completion.text in params.choices
    schemas = {t["function"]["name"]: t["function"]["parameters"] for t in params.offered}
    for call in completion.tool_calls:
        assert call.error is None
        jsonschema.validate(call.parsed, schemas[call.name])
    if params.forced_calls:
        assert completion.tool_calls and not completion.text
        assert params.tool_choice in ("any", completion.tool_calls[0].name)
        assert params.parallel_tool_calls or len(completion.tool_calls) == 1


@pytest.mark.parametrize(("make", "family", "kind"), cases(FAMILIES, KINDS))
def test_every_form_and_router_in_one_mixed_batch(make: Maker, family: str, kind: str) -> None:
    pair = make(family, kind)
    # Every other pairing of form and route, and the rest of them with the other tokenizer.
    pairings = [(form, route) for route in ROUTES for form in FORMS][KINDS.index(kind) :: 2]
    params = [
        SamplingParams(
            **({"temperature": 0.8} | form | route), seed=seed, max_tokens=44, alternatives=seed % 3
        )
        for seed, (form, route) in enumerate(pairings)
    ]
    with Decoder(pair, max_rows=40, lookahead=2 if kind == KINDS[0] else "off") as decoder:
        batch = decode(pair, params, decoder)
        for at in range(0, len(params), 9):
            (alone,) = decoder.generate("Hi", params[at])
            assert alone.text == batch[at].text
            assert [s[:3] for s in alone.steps] == [s[:3] for s in batch[at].steps]
        # Free rows are what they are without constrained neighbours.
        free = [at for at, (form, _) in enumerate(pairings) if not form]
        apart = decoder.generate_batch(["Hi"] * len(free), [params[at] for at in free])
    for at, (completion,) in zip(free, apart, strict=True):
        assert [s[:3] for s in completion.steps] == [s[:3] for s in batch[at].steps]
    CHECKED["batches"] += 1


@pytest.mark.parametrize("form", [SHORT, *FORMATS.values()], ids=lambda form: form.name)
def test_calls_in_every_format(form: CallFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (classes, matcher):
        monkeypatch.setattr(module, "RESERVED", (*RESERVED, SHORT.opener[0]))
    pair = copy.copy(random_pair("llama", KINDS[form.name == "json"]))
    pair.call_format = form
    requests: tuple[dict[str, Any], ...] = (
        {"tools": TOOLS[:1]},
        {"tools": TOOLS, "tool_choice": "find"},
        {"tools": TOOLS, "tool_choice": "any"},
    )
    params = [
        SamplingParams(**request, **route, seed=seed, max_tokens=48)
        for seed in range(6 if form is SHORT else 1)
        for request in requests[: 1 if seed else 3]
        for route in ({"router": "rand", "gamma": 0.6}, {"router": "p-punc", "gamma": 0.95})
    ]
    with Decoder(pair) as decoder:
        batch = decode(pair, params, decoder)
    auto = [completion for completion in batch if completion.text or form is not SHORT]
    assert form is not SHORT or any(completion.tool_calls for completion in auto)


def test_gamma_0_is_aligned() -> None:
    pair = random_pair("llama")
    params = [
        SamplingParams(**form, **route, seed=3, max_tokens=32)
        for form in FORMS
        for route in (
            {"router": "aligned"},
            *({"router": router, "gamma": 0} for router in ("p-punc", "h", "rand-fc")),
        )
    ]
    with Decoder(pair, max_rows=len(params)) as decoder:
        batch = decoder.generate_batch(["Hi"] * len(params), params)
    for at, (completion,) in enumerate(batch):
        first = batch[at - at % 4][0]
        assert [step[:3] for step in completion.steps] == [step[:3] for step in first.steps]
        numbers = ([step[4:6] for step in each.steps] for each in (completion, first))
        np.testing.assert_allclose(*numbers, rtol=1e-9)


def test_enough_was_checked(capsys: pytest.CaptureFixture[str]) -> None:
    if CHECKED["batches"] < len(FAMILIES) * len(KINDS):
        pytest.skip("only a part of the suite was run")
    with capsys.disabled():
        print(f" {CHECKED} ", end="")
    assert CHECKED["steps"] >= 5_000
    assert CHECKED["complete"] >= 50
    assert CHECKED["values"] >= 100
