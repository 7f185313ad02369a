"""Prompts: what is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TypeVar

from ..core.messages import Message

T = TypeVar("T")

KINDS = ("factual choice", "subjective", "creative", "random", "naming", "products")
"""The kinds of our own prompts, after NoveltyBench's."""

AGAIN = "Can you give me a different answer?"
"""How a further answer is asked for where a prompt has no words of its own for it."""


@dataclass(frozen=True)
class Prompt:
    """One thing to ask.

    Attributes:
        id: Unique among the prompts of a run.
        text: The user's last turn.
        kind: What kind of prompt it is, if that is known.
        before: The conversation before that turn, a system message included.
        paraphrases: Other wordings of `text`.
        again: How to ask for a further answer.
    """

    id: str
    text: str
    kind: str | None = None
    before: tuple[Message, ...] = field(default=(), hash=False)
    paraphrases: tuple[str, ...] = ()
    again: str = AGAIN

    @property
    def messages(self) -> list[Message]:
        """The conversation that is to be answered."""
        return self.worded(self.text)

    def worded(self, text: str) -> list[Message]:
        """Return the conversation with another wording of its last turn."""
        return [*self.before, {"role": "user", "content": text}]


def spread(prompts: Sequence[T], count: int | None) -> list[T]:
    """Return so many prompts, taken evenly from the whole; all of them if there are no more."""
    if count is None or count >= len(prompts):
        return list(prompts)
    return [prompts[place * len(prompts) // count] for place in range(count)]


def own_prompts() -> list[Prompt]:
    """Return the package's own 100 prompts, over the six `KINDS`."""
    lines = files(__package__).joinpath("data/prompts.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    return [Prompt(row["id"], row["prompt"], row["kind"]) for row in rows]
