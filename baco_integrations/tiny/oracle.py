"""The exact judge of the tiny world.

Invariant: an answer is valid only if the whole of its text parses. Nothing is searched for inside
an answer, so a right word amid other text earns nothing.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from . import words
from .grammar import LIST_LENGTH
from .schemas import Field, in_string
from .tools import CALL, END_OF_CALL, Tool
from .words import Kind
from .world import JsonRequest, Request, ToolRequest

KINDS = {kind.name: kind for kind in words.ALL_KINDS}
MOST_SENTENCES = 6
MIDDLE_OF_A_STORY = 5
NOT_JSON, NOT_THE_SCHEMA = "not JSON", "not what the schema says"


class Verdict(NamedTuple):
    """What the judge says.

    Attributes:
        valid: Whether the answer is on topic, complete, well-formed and in the right form.
        content: The class of the main content, if the answer is valid.
        reason: Why it is not valid, or "ok".
    """

    valid: bool
    content: str | None
    reason: str


def judge(request: Request, answer: str) -> Verdict:
    """Judge an answer; white space around it is ignored."""
    kind = KINDS[request.kind]
    text = answer.strip()
    if not text:
        return _invalid("empty")
    if request.form == "list":
        return _judge_list(kind, text)
    if "\n" in text:
        return _invalid("a line break where a paragraph belongs")
    sentences = _sentences(text)
    if sentences is None:
        return _invalid("not made of whole sentences")
    if len(set(sentences)) < len(sentences):
        return _invalid("a sentence is repeated")
    if request.form == "why":
        return _judge_sentences(request, sentences, _reason_pattern(), ())
    if kind is words.STORY:
        return _judge_story(request, sentences)
    return _judge_sentences(request, sentences, _choice_pattern(kind), request.used)


def _invalid(reason: str) -> Verdict:
    return Verdict(False, None, reason)


def _judge_list(kind: Kind, text: str) -> Verdict:
    """Exactly the numbered lines that were asked for, all different and of the kind."""
    lines = text.split("\n")
    if len(lines) != LIST_LENGTH:
        return _invalid("wrong number of lines")
    items = []
    for number, line in enumerate(lines, 1):
        if not line.startswith(f"{number}. ") or (item := line[3:]) not in kind.contents:
            return _invalid(f"line {number} is no item of the list")
        items.append(item)
    if len(set(items)) < len(items):
        return _invalid("an item is repeated")
    return Verdict(True, "; ".join(sorted(items)), "ok")


def _sentences(text: str) -> list[str] | None:
    """Split at end marks followed by one space; None if the text does not end with one."""
    found = re.findall(r"[^.!?]+[.!?](?= |$)", text)
    stripped = [sentence.strip() for sentence in found]
    return stripped if " ".join(stripped) == text else None


def _judge_sentences(
    request: Request, sentences: list[str], main: re.Pattern[str], used: tuple[str, ...]
) -> Verdict:
    """Perhaps a greeting, one main sentence, then details and wishes in any order."""
    rest = sentences[1:] if sentences[0] in words.GREETINGS else sentences
    match = main.fullmatch(rest[0]) if rest else None
    if match is None:
        return _invalid("no main sentence of the right kind")
    content = match["content"]
    if content in used:
        return _invalid("the content was named before")
    if len(sentences) > MOST_SENTENCES:
        return _invalid("too long")
    details = _detail_pattern(KINDS[request.kind])
    for sentence in rest[1:]:
        if sentence not in words.CLOSERS and not details.fullmatch(sentence):
            return _invalid("a sentence that does not belong")
    if request.system == words.SHORT and len(sentences) > 1:
        return _invalid("more than the one sentence asked for")
    if request.system == words.WISH and sentences[-1] not in words.CLOSERS:
        return _invalid("the wish at the end is missing")
    return Verdict(True, content, "ok")


def _judge_story(request: Request, sentences: list[str]) -> Verdict:
    """A beginning, at least five different middle sentences in any order, an end."""
    opening, middle, end = sentences[0], sentences[1:-1], sentences[-1]
    match = _story_pattern(0).fullmatch(opening)
    if match is None:
        return _invalid("no beginning of a story")
    if match["content"] in request.used:
        return _invalid("the hero was named before")
    if not _story_pattern(7).fullmatch(end):
        return _invalid("no end of a story")
    parts = [_story_part(sentence) for sentence in middle]
    if None in parts:
        return _invalid("a sentence that does not belong")
    if len(set(parts)) < max(len(parts), MIDDLE_OF_A_STORY):
        return _invalid("too thin a story")
    return Verdict(True, match["content"], "ok")


def _story_part(sentence: str) -> int | None:
    """Which of the middle sentences this is."""
    return next((n for n in range(1, 7) if _story_pattern(n).fullmatch(sentence)), None)


def _any(slot: tuple[str, ...]) -> str:
    return f"(?:{'|'.join(map(re.escape, slot))})"


def _named(slot: tuple[str, ...]) -> str:
    return f"(?P<content>{_any(slot)})"


@cache
def _choice_pattern(kind: Kind) -> re.Pattern[str]:
    return re.compile(rf"{_any(kind.openers)} {_named(kind.contents)}\.")


@cache
def _reason_pattern() -> re.Pattern[str]:
    return re.compile(rf"{_any(words.REASON_OPENERS)} {_named(words.REASONS)}\.")


@cache
def _detail_pattern(kind: Kind) -> re.Pattern[str]:
    praise = rf"It is {_any(kind.looks)} and {_any(kind.merits)}\."
    return re.compile(rf"{praise}|{_any(kind.facts)}" if kind.facts else praise)


@cache
def _story_pattern(part: int) -> re.Pattern[str]:
    story = words.STORY
    patterns = (
        f"{_any(story.openers)} {_named(story.contents)} who lived {_any(words.HOMES)}",
        f"Every {_any(words.TIMES)} it {_any(words.HABITS)}",
        f"One day it found {_any(words.THINGS)} {_any(words.SPOTS)}",
        f"The night was {_any(words.SKIES)} and the wind {_any(words.WINDS)}",
        f"It felt {_any(words.MOODS)}, so it {_any(words.ACTS)}",
        f"Then {_any(words.FRIENDS)} came by and {_any(words.HELPS)}",
        f"Together they {_any(words.DEEDS)}",
        f"In the end, {_any(words.ENDS)}",
    )
    return re.compile(rf"{patterns[part]}\.")


# JSON answers.


def judge_json(request: JsonRequest, answer: str) -> Verdict:
    """Judge an answer that is to be JSON, by its structure and by every value in it."""
    kind = KINDS[request.kind]
    try:
        value = json.loads(answer)
    except ValueError:
        return _invalid(NOT_JSON)
    if not _has_shape(value, request.fields):
        return _invalid(NOT_THE_SCHEMA)
    found = _contents(value, request.fields)
    possible = {in_string(content) for content in kind.contents}
    if not possible.issuperset(found):
        return _invalid("a content of no such kind")
    if request.used and found[0] in request.used:
        return _invalid("the content was named before")
    if len(set(found)) < min(len(found), len(possible) - len(request.used)):
        return _invalid("a content is repeated")
    if not _clauses_hold(value, request.fields, kind):
        return _invalid("a clause that does not belong")
    return Verdict(True, found[0], "ok")


def _has_shape(value: Any, fields: Sequence[Field]) -> bool:
    """Whether a value is an object of these fields, in their order."""
    if not isinstance(value, dict) or list(value) != [field.key for field in fields]:
        return False
    return all(_has_type(value[field.key], field) for field in fields)


def _has_type(value: Any, field: Field) -> bool:
    if field.role in ("contents", "objects"):
        inside = value if isinstance(value, list) else []
        each = field._replace(role=field.role[:-1])
        return bool(inside) and all(_has_type(one, each) for one in inside)
    if field.role == "object":
        return _has_shape(value, field.fields)
    if field.role == "flag":
        return isinstance(value, bool)
    if field.role == "count":
        return type(value) is int
    return isinstance(value, str) and (field.role != "enum" or value in field.options)


def _strings(value: dict[str, Any], fields: Sequence[Field]) -> list[tuple[Field, str]]:
    """The strings of an object of the right shape, each with its field."""
    found: list[tuple[Field, str]] = []
    for field in fields:
        inside = value[field.key] if isinstance(value[field.key], list) else [value[field.key]]
        for one in inside:
            if isinstance(one, dict):
                found += _strings(one, field.fields)
            elif isinstance(one, str):
                found.append((field, one))
    return found


def _contents(value: dict[str, Any], fields: Sequence[Field]) -> list[str]:
    strings = _strings(value, fields)
    return [text for field, text in strings if field.role in ("content", "contents")]


def _clauses_hold(value: dict[str, Any], fields: Sequence[Field], kind: Kind) -> bool:
    detail = re.compile(rf"{_any(kind.looks)} and {_any(kind.merits)}")
    for field, text in _strings(value, fields):
        if field.role == "detail" and kind.looks and not detail.fullmatch(text):
            return False
        is_reason = field.role == "reason" or (field.role == "detail" and not kind.looks)
        if is_reason and text not in words.REASONS:
            return False
    return True


# Tools.


def judge_tool_use(request: ToolRequest, answer: str) -> Verdict:
    """Judge the next turn where tools are offered: a call, an answer from a result, or neither."""
    if request.result is not None:
        return _judge_from_result(request, answer.strip())
    if any(tool.fits for tool in request.tools):
        return _judge_call(request.tools, request.messages[-1]["content"], answer.strip())
    if CALL in answer:
        return _invalid("a call where no tool is of use")
    return judge(Request(request.id, request.kind, "plain", None, (), request.messages), answer)


def _judge_call(tools: Sequence[Tool], asked: str, text: str) -> Verdict:
    """Exactly one call, of a tool that fits, with the request as it was."""
    match = re.fullmatch(rf"{CALL}\n(.*)\n{END_OF_CALL}", text)
    try:
        call = json.loads(match[1]) if match else None
    except ValueError:
        return _invalid(NOT_JSON)
    if not isinstance(call, dict) or list(call) != ["name", "arguments"]:
        return _invalid("no call")
    tool = next((tool for tool in tools if tool.fits and tool.name == call["name"]), None)
    if tool is None:
        return _invalid("a tool that does not fit")
    arguments = call["arguments"]
    if not isinstance(arguments, dict) or tuple(arguments) != tool.parameters:
        return _invalid("other parameters")
    if arguments[tool.parameters[0]] != asked:
        return _invalid("not the request as it was")
    return Verdict(True, tool.name, "ok")


def _judge_from_result(request: ToolRequest, text: str) -> Verdict:
    """One or two sentences that name different contents of the result."""
    assert request.result is not None
    contents = request.result.contents
    slot = _any((*contents, *map(in_string, contents)))
    first = rf"{_any(KINDS[request.kind].openers)} ({slot})\."
    more = rf" {_any(words.MORE_OPENERS)} ({slot})(?: or ({slot}))?\."
    match = re.fullmatch(f"{first}(?:{more})?", text)
    if match is None:
        return _invalid("not what the result says")
    named = [content for content in match.groups() if content]
    if len(set(named)) < len(named):
        return _invalid("a content is repeated")
    return Verdict(True, named[0], "ok")
