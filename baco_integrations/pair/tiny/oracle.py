"""The exact judge of the tiny world.

Invariant: an answer is valid only if the whole of its text parses. Nothing is searched for inside
an answer, so a right word amid other text earns nothing.
"""

import re
from functools import cache
from typing import NamedTuple

from . import words
from .grammar import LIST_LENGTH
from .words import Kind
from .world import Request

KINDS = {kind.name: kind for kind in words.ALL_KINDS}
MOST_SENTENCES = 6
MIDDLE_OF_A_STORY = 5


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
