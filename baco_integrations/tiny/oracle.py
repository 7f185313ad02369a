"""The exact judge of the tiny world.

Invariant: an answer is valid only if the whole of its text parses. Nothing is searched for inside
an answer, so a right word amid other text earns nothing.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from .requests import Request
from .words import BY_NAME, SHORT, SLOTS, STORY, STORY_SENTENCES, WISH, Kind

LIST_LENGTH = 3
MOST_SENTENCES = 6
LEAST_MIDDLE_SENTENCES = 5


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
    kind = BY_NAME[request.kind]
    text = answer.strip()
    if not text:
        return invalid("empty")
    if request.form == "list":
        return judge_list(kind, text)
    if "\n" in text:
        return invalid("a line break where a paragraph belongs")
    sentences = [sentence.strip() for sentence in re.findall(r"[^.!?]+[.!?](?= |$)", text)]
    if " ".join(sentences) != text:
        return invalid("not made of whole sentences")
    if len(set(sentences)) < len(sentences):
        return invalid("a sentence is repeated")
    if kind is STORY and request.form != "why":
        return judge_story(request, sentences)
    return judge_sentences(request, kind, sentences)


def invalid(reason: str) -> Verdict:
    """Return the verdict on an answer that is not valid."""
    return Verdict(False, None, reason)


def judge_list(kind: Kind, text: str) -> Verdict:
    """Judge a list: exactly the numbered lines asked for, each a different content of the kind."""
    lines = text.split("\n")
    if len(lines) != LIST_LENGTH:
        return invalid("wrong number of lines")
    items = []
    for number, line in enumerate(lines, 1):
        if not line.startswith(f"{number}. ") or (item := line[3:]) not in kind.contents:
            return invalid(f"line {number} is no item of the list")
        items.append(item)
    if len(set(items)) < len(items):
        return invalid("an item is repeated")
    return Verdict(True, "; ".join(sorted(items)), "ok")


def judge_sentences(request: Request, kind: Kind, sentences: list[str]) -> Verdict:
    """Judge perhaps a greeting, one main sentence, then details and wishes in any order."""
    why = request.form == "why"
    main = "{reason_openers} {reasons}." if why else "{openers} {contents}."
    rest = sentences[1:] if sentences[0] in SLOTS["greetings"] else sentences
    match = pattern(main, kind).fullmatch(rest[0]) if rest else None
    if match is None:
        return invalid("no main sentence of the right kind")
    content = match["reasons" if why else "contents"]
    if content in request.used:
        return invalid("the content was named before")
    if len(sentences) > MOST_SENTENCES:
        return invalid("too long")
    praise, wishes = pattern("It is {looks} and {merits}.", kind), SLOTS["closers"]
    if not all(s in wishes or s in kind.facts or praise.fullmatch(s) for s in rest[1:]):
        return invalid("a sentence that does not belong")
    if request.system == SHORT and len(sentences) > 1:
        return invalid("more than the one sentence asked for")
    if request.system == WISH and sentences[-1] not in wishes:
        return invalid("the wish at the end is missing")
    return Verdict(True, content, "ok")


def judge_story(request: Request, sentences: list[str]) -> Verdict:
    """Judge a beginning, at least five different middle sentences in any order, an end."""
    first, *middle, last = (pattern(sentence, STORY) for sentence in STORY_SENTENCES)
    match = first.fullmatch(sentences[0])
    if match is None:
        return invalid("no beginning of a story")
    if match["contents"] in request.used:
        return invalid("the hero was named before")
    if not last.fullmatch(sentences[-1]):
        return invalid("no end of a story")
    parts = [
        next((number for number, one in enumerate(middle) if one.fullmatch(sentence)), None)
        for sentence in sentences[1:-1]
    ]
    if None in parts:
        return invalid("a sentence that does not belong")
    if len(set(parts)) < max(len(parts), LEAST_MIDDLE_SENTENCES):
        return invalid("too thin a story")
    return Verdict(True, match["contents"], "ok")


@cache
def pattern(template: str, kind: Kind) -> re.Pattern[str]:
    """Return what sentences of a form look like, with a group for each slot.

    Args:
        template: The sentence, with the names of slots in braces.
        kind: The kind whose own words fill the slots that are named like its attributes.
    """
    slots = SLOTS | vars(kind)
    parts = re.split(r"\{(\w+)\}", template)
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = (f"(?P<{name}>{'|'.join(map(re.escape, slots[name]))})" for name in parts[1::2])
    return re.compile("".join(parts))
