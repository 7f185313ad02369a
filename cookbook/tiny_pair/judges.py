"""The exact judges of JSON answers and of tool use in the tiny world.

Invariant: as in `baco_integrations.tiny.oracle`, the whole answer must parse; every value counts.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from baco_integrations.tiny.oracle import Verdict, invalid, judge, pattern
from baco_integrations.tiny.requests import Request
from baco_integrations.tiny.words import BY_NAME, SLOTS, Kind
from cookbook.tiny_pair import words
from cookbook.tiny_pair.schemas import Field, in_string
from cookbook.tiny_pair.tools import CALL, END_OF_CALL, Tool
from cookbook.tiny_pair.world import JsonRequest, ToolRequest

NOT_JSON, NOT_THE_SCHEMA = "not JSON", "not what the schema says"


def judge_json(request: JsonRequest, answer: str) -> Verdict:
    """Judge an answer that is to be JSON, by its structure and by every value in it."""
    kind = BY_NAME[request.kind]
    try:
        value = json.loads(answer)
    except ValueError:
        return invalid(NOT_JSON)
    if not has_shape(value, request.fields):
        return invalid(NOT_THE_SCHEMA)
    told = strings(value, request.fields)
    found = [text for field, text in told if field.role in ("content", "contents")]
    possible = {in_string(content) for content in kind.contents}
    if not possible.issuperset(found):
        return invalid("a content of no such kind")
    if request.used and found[0] in request.used:
        return invalid("the content was named before")
    if len(set(found)) < min(len(found), len(possible) - len(request.used)):
        return invalid("a content is repeated")
    if not clauses_hold(value, request.fields, kind):
        return invalid("a clause that does not belong")
    return Verdict(True, found[0], "ok")


def has_shape(value: Any, fields: Sequence[Field]) -> bool:
    """Whether a value is an object of these fields, in their order."""
    if not isinstance(value, dict) or list(value) != [field.key for field in fields]:
        return False
    return all(has_type(value[field.key], field) for field in fields)


def has_type(value: Any, field: Field) -> bool:
    """Whether a value is what the role of its field calls for."""
    if field.role in ("contents", "objects"):
        inside = value if isinstance(value, list) else []
        each = field._replace(role=field.role[:-1])
        return bool(inside) and all(has_type(one, each) for one in inside)
    if field.role == "object":
        return has_shape(value, field.fields)
    if field.role == "flag":
        return isinstance(value, bool)
    if field.role == "count":
        return type(value) is int
    return isinstance(value, str) and (field.role != "enum" or value in field.options)


def strings(value: dict[str, Any], fields: Sequence[Field]) -> list[tuple[Field, str]]:
    """The strings of an object of the right shape, each with its field."""
    found: list[tuple[Field, str]] = []
    for field in fields:
        inside = value[field.key] if isinstance(value[field.key], list) else [value[field.key]]
        for one in inside:
            if isinstance(one, dict):
                found += strings(one, field.fields)
            elif isinstance(one, str):
                found.append((field, one))
    return found


def clauses_hold(value: dict[str, Any], fields: Sequence[Field], kind: Kind) -> bool:
    """Whether details and reasons are made of the world's words."""
    detail = pattern("{looks} and {merits}", kind)
    for field, text in strings(value, fields):
        if field.role == "detail" and kind.looks and not detail.fullmatch(text):
            return False
        is_reason = field.role == "reason" or (field.role == "detail" and not kind.looks)
        if is_reason and text not in SLOTS["reasons"]:
            return False
    return True


def any_of(slot: Sequence[str]) -> str:
    """The pattern of any of some texts."""
    return f"(?:{'|'.join(map(re.escape, slot))})"


def judge_tool_use(request: ToolRequest, answer: str) -> Verdict:
    """Judge the next turn where tools are offered: a call, an answer from a result, or neither."""
    if request.result is not None:
        return judge_from_result(request, answer.strip())
    if any(tool.fits for tool in request.tools):
        return judge_call(request.tools, request.messages[-1]["content"], answer.strip())
    if CALL in answer:
        return invalid("a call where no tool is of use")
    return judge(Request(request.id, request.kind, "plain", None, (), request.messages), answer)


def judge_call(tools: Sequence[Tool], asked: str, text: str) -> Verdict:
    """Exactly one call, of a tool that fits, with the request as it was."""
    match = re.fullmatch(rf"{CALL}\n(.*)\n{END_OF_CALL}", text)
    try:
        call = json.loads(match[1]) if match else None
    except ValueError:
        return invalid(NOT_JSON)
    if not isinstance(call, dict) or list(call) != ["name", "arguments"]:
        return invalid("no call")
    tool = next((tool for tool in tools if tool.fits and tool.name == call["name"]), None)
    if tool is None:
        return invalid("a tool that does not fit")
    arguments = call["arguments"]
    if not isinstance(arguments, dict) or tuple(arguments) != tool.parameters:
        return invalid("other parameters")
    if arguments[tool.parameters[0]] != asked:
        return invalid("not the request as it was")
    return Verdict(True, tool.name, "ok")


def judge_from_result(request: ToolRequest, text: str) -> Verdict:
    """One or two sentences that name different contents of the result."""
    assert request.result is not None
    contents = request.result.contents
    slot = any_of((*contents, *map(in_string, contents)))
    first = rf"{any_of(BY_NAME[request.kind].openers)} ({slot})\."
    more = rf" {any_of(words.MORE_OPENERS)} ({slot})(?: or ({slot}))?\."
    match = re.fullmatch(f"{first}(?:{more})?", text)
    if match is None:
        return invalid("not what the result says")
    named = [content for content in match.groups() if content]
    if len(set(named)) < len(named):
        return invalid("a content is repeated")
    return Verdict(True, named[0], "ok")
