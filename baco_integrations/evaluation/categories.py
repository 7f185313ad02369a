"""Categories as prompts: "Name one fruit. Answer with the name only.", judged by lists of members.

Invariant: a verdict depends on the answer and a list alone, so any model's answers are judged
exactly and offline. ``data/categories.txt`` has a block for each category: its name, two wordings,
and its members, ``;`` between them and ``=`` between the names of one. What begins with ``!`` holds
a member's name but is none, as New York City does among states.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from .prompts import Prompt

ANSWER_TOKENS = 12
"""Tokens that are enough for an answer, and to see whether it goes on."""

SPELLED = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ı": "i", "&": " and "}
    | dict.fromkeys("'’‘ʻ`´")
)
PLURALS = ((r"([sxzo]|ch|sh)$", r"\1es"), (r"(?<![aeiou])y$", "ies"), (r"fe?$", "ves"))
QUESTION = re.compile(
    r"(q(uestion)?\W+)?(what|which|who|how|why|name (an?|any|another|one|two|three|the)) ", re.I
)
"""How base opens the next question instead of an answer."""
LIST_MARK = re.compile(r"^(?:\d{1,2}[.)]|[-*•])\s+")


class CategoryVerdict(NamedTuple):
    """What a list says of an answer.

    Attributes:
        valid: Whether the first line names exactly one member.
        clean: Whether the answer is valid and nothing but that name.
        content: The member, if the answer is valid.
    """

    valid: bool
    clean: bool
    content: str | None


@dataclass(frozen=True)
class Category:
    """A kind of things, with all their names.

    Attributes:
        name: What the things are.
        wordings: Two ways to ask for one.
        names: Every form of every name, as `words` writes it, with its member; None marks what
            is no member.
    """

    name: str
    wordings: tuple[str, str]
    names: dict[str, str | None]

    def named(self, line: str) -> list[str]:
        """Return the members that a line names, longer names first; a question names none."""
        if QUESTION.match(line):
            return []
        said, found, start = words(LIST_MARK.sub("", line)), [], 0
        longest = max(name.count(" ") for name in self.names) + 1
        while start < len(said):
            for end in range(min(start + longest, len(said)), start, -1):
                if (name := " ".join(said[start:end])) in self.names:
                    found.append(self.names[name])
                    break
            start = end
        return list(dict.fromkeys(member for member in found if member))

    def judge(self, answer: str) -> CategoryVerdict:
        """Judge an answer; white space around it is ignored."""
        first, *more = answer.strip().splitlines() or [""]
        found = self.named(first)
        if len(found) != 1:
            return CategoryVerdict(False, False, None)
        said, own = words(first), words(self.name)
        bare = (said, [word for word in said if word not in own])
        clean = not more and any(self.names.get(" ".join(each)) for each in bare)
        return CategoryVerdict(True, clean, found[0])


def words(text: str) -> list[str]:
    """Return a text's words without case, accents, punctuation, articles and "pair of"."""
    text = re.sub(r"\b(\w)\.(?=\w\b)", r"\1", text)  # U.S.A.
    text = re.sub(r"(?<=\w)(\+\+|#)", lambda sign: {"#": " sharp"}.get(sign[0], " plusplus"), text)
    plain = unicodedata.normalize("NFKD", text.casefold().translate(SPELLED))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = re.sub(r"[\W_]+", " ", plain)
    return re.sub(r"\b(an?|the|pair of)\b", " ", plain).split()


def forms(name: str) -> set[str]:
    """Return how a name may be written: as one word or several, in singular or plural."""
    *before, last = words(name)
    ends = {last, f"{last}s", *(re.sub(*rule, last) for rule in PLURALS)}
    return {gap.join([*before, end]) for end in ends for gap in ("", " ")}


@cache
def categories() -> dict[str, Category]:
    """Return all categories by name."""
    text = files(__package__).joinpath("data/categories.txt").read_text(encoding="utf-8")
    return {block.partition("\n")[0]: read(block) for block in text.split("\n\n")}


def read(block: str) -> Category:
    """Read a category from its lines in the file.

    Raises:
        ValueError: Two members share a name.
    """
    name, one, two, *members = block.strip().split("\n")
    names: dict[str, str | None] = {}
    for entry in " ".join(members).split(";"):
        synonyms = [each.strip() for each in entry.split("=")]
        member = None if synonyms[0].startswith("!") else synonyms[0]
        for form in {form for each in synonyms for form in forms(each)}:
            if names.setdefault(form, member) != member:
                raise ValueError(f"{name}: {names[form]!r} and {member!r} are both {form!r}")
    return Category(name, (one, two), names)


def category_prompts() -> list[Prompt]:
    """Return two prompts for each category: the first wordings of all, then the second ones.

    `ANSWER_TOKENS` are enough for an answer.
    """
    return [
        Prompt(f"{'-'.join(words(each.name))}-{number}", asked, each.name, paraphrases=(other,))
        for number in (1, 2)
        for each in categories().values()
        for asked, other in [each.wordings if number == 1 else each.wordings[::-1]]
    ]


class CategoryOracle:
    """Judges answers to `category_prompts` by the prompts' ids."""

    name = "the lists of members"
    qualities = {
        "task quality": ("valid", f"{name}: the first line names exactly one"),
        "clean answer": ("clean", f"{name}: the answer is one of their names and nothing else"),
    }
    floor = 0.0

    def __init__(self) -> None:
        self.prompts = {prompt.id: prompt for prompt in category_prompts()}
        self.texts = {key: prompt.text for key, prompt in self.prompts.items()}
        self.categories = categories()

    def category(self, prompt_id: str) -> Category:
        """Return a prompt's category.

        Raises:
            KeyError: There is no such prompt.
        """
        return self.categories[self.prompts[prompt_id].kind or ""]

    def judge(self, prompt_id: str, text: str) -> CategoryVerdict:
        """Return whether an answer is valid and clean, and which member it then names."""
        return self.category(prompt_id).judge(text)

    def mentioned(self, prompt_id: str, text: str) -> tuple[str, ...]:
        """Return the members that an answer's first line names, sorted."""
        first = text.strip().partition("\n")[0]
        return tuple(sorted(self.category(prompt_id).named(first)))
