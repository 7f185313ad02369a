"""The requests of the tiny world, in every split, with the conversations that they end.

Invariant: no request of one split shares its wording with a request of another split.
"""

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from baco_integrations.text.prompts import SCHEMA_INSTRUCTION
from baco_integrations.tiny.requests import Message, Request
from baco_integrations.tiny.words import (
    ALL_KINDS,
    KINDS,
    NEUTRAL,
    SHORT,
    STORY,
    SYSTEMS,
    WISH,
    Kind,
)
from cookbook.tiny_pair import tools, words
from cookbook.tiny_pair.grammar import Voice, text_of, write_answer
from cookbook.tiny_pair.mess import messy_sentences
from cookbook.tiny_pair.schemas import Field, random_fields, schema_of, write_json
from cookbook.tiny_pair.tools import Result, Tool

SPLITS = ("train", "validation", "eval")
FOLLOW_UPS = {"another": words.ANOTHER, "why": words.WHY}
WORDINGS = 9
"""Most paraphrases of a request."""


class Draft(NamedTuple):
    """A conversation waiting for its last answer."""

    kind: Kind
    form: str
    system: str | None
    used: tuple[str, ...]
    messages: list[Message]


def ask(kind: Kind, form: str, split: str, rng: Random) -> str:
    """Word a request for one content, or for a list of contents."""
    thing = f"three {rng.choice(kind.plurals)}" if form == "list" else rng.choice(kind.asks)
    if rng.random() < 0.3:
        thing = f"{thing} {rng.choice(words.AIMS)}"
    question = rng.choice(words.FRAMES[split]).format(a=thing)
    if rng.random() < 0.3:
        question = f"{rng.choice(words.LEADS[split])} {question}"
    return question


def draft(
    kind: Kind, form: str, system: str | None, split: str, rng: Random, base: bool = False
) -> Draft:
    """Start a conversation that ends with a request of the given form.

    Args:
        kind: What is asked for.
        form: In which form; see `Request`.
        system: What the system prompt asks for, if there is to be one.
        split: Where the wording comes from.
        rng: Source of all choices.
        base: Whether earlier answers are those of the base corpus.
    """
    messages: list[Message] = []
    if system is not None:
        content = rng.choice(SYSTEMS[system][split])
        messages.append({"role": "system", "content": content})
    first = form if form in ("plain", "list") else "plain"
    messages.append({"role": "user", "content": ask(kind, first, split, rng)})
    if form == first:
        return Draft(kind, form, system, (), messages)
    used: tuple[str, ...] = ()
    may_repeat = form == "another" and kind is not STORY
    rounds = min(rng.choice((1, 1, 1, 2, 3)), len(kind.contents) - 1) if may_repeat else 1
    for _ in range(rounds):
        voice = Voice(rng, 1.0 if base else rng.choice((0.0, 1.0)))
        answer = write_answer(kind, "plain", system, voice, used)
        text = messy_sentences(answer, rng) if base else text_of(answer.pieces())
        messages.append({"role": "assistant", "content": text})
        messages.append({"role": "user", "content": rng.choice(FOLLOW_UPS[form][split])})
        used += answer.contents
    return Draft(kind, form, system, used, messages)


def requests(split: str, seed: int = 0) -> list[Request]:
    """The requests of a split, always the same ones.

    Args:
        split: "train", "validation" or "eval".
        seed: Another seed gives other requests of the same split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    found: list[Request] = []
    seen: set[str] = set()
    for kind, form, system in plan():
        rng = Random(f"{seed}:{split}:{kind.name}:{form}:{system}")
        new = draft(kind, form, system, split, rng)
        while not new.used and new.messages[-1]["content"] in seen:
            new = draft(kind, form, system, split, rng)
        seen.add(new.messages[-1]["content"])
        name = "-".join(filter(None, (split, kind.name, form, system)))
        own = Random(name)
        wordings = tuple(dict.fromkeys(reworded(new, split, own) for _ in range(WORDINGS)))
        again = own.choice(words.ANOTHER[split])
        found.append(
            Request(name, kind.name, form, system, new.used, new.messages, wordings, again)
        )
    return found


def reworded(new: Draft, split: str, rng: Random) -> str:
    """Word the last turn of a conversation in another way, perhaps the same."""
    if new.form in FOLLOW_UPS:
        return rng.choice(FOLLOW_UPS[new.form][split])
    return ask(new.kind, new.form, split, rng)


def plan() -> Iterator[tuple[Kind, str, str | None]]:
    """Which kinds are asked in which forms in every split."""
    for kind in KINDS:
        yield kind, "plain", None
        yield kind, "plain", NEUTRAL
        yield kind, "plain", SHORT
        yield kind, "plain", WISH
        yield kind, "another", None
        if kind.plurals:
            yield kind, "list", None
    for kind in KINDS[::2]:
        yield kind, "why", None
        yield kind, "another", SHORT
    for system in (None, NEUTRAL):
        yield STORY, "plain", system
        yield STORY, "another", system


def any_draft(rng: Random, base: bool = False) -> Draft:
    """A conversation of the training split."""
    if rng.random() < 0.1:
        form = rng.choice(("plain", "plain", "another"))
        system = rng.choice((None, None, NEUTRAL))
        return draft(STORY, form, system, "train", rng, base)
    kind = rng.choice(KINDS)
    forms = ("plain", "plain", "plain", "another", "another", "why", "list", "list")
    form = rng.choice(forms if kind.plurals else forms[:-2])
    systems = (None, None, NEUTRAL, SHORT, SHORT, WISH)
    system = None if form == "list" else rng.choice(systems)
    return draft(kind, form, system, "train", rng, base)


# JSON answers and tools.


class JsonRequest(NamedTuple):
    """A request to be answered with JSON.

    Attributes:
        id: Unique name.
        kind: Name of the kind of content that is asked for.
        fields: Keys of the answer.
        used: Contents the conversation has named, which an answer must not name again.
        messages: The conversation, ending with the user's turn.
    """

    id: str
    kind: str
    fields: tuple[Field, ...]
    used: tuple[str, ...]
    messages: list[Message]


class ToolRequest(NamedTuple):
    """A conversation in which tools are offered.

    Attributes:
        id: Unique name.
        kind: Name of the kind of content that is asked for.
        tools: The tools.
        result: What the last call has returned, if the conversation ends with it.
        messages: The conversation, ending with the user's turn or with a result.
    """

    id: str
    kind: str
    tools: tuple[Tool, ...]
    result: Result | None
    messages: list[Message]


def json_requests(split: str, seed: int = 0) -> list[JsonRequest]:
    """Requests for JSON answers: per kind one per form, and another with a second object."""
    found = []
    for kind in ALL_KINDS:
        forms = ("plain", "plain", "another", *(("list",) if kind.plurals else ()))
        for number, form in enumerate(forms):
            rng = Random(f"{seed}:{split}:json:{kind.name}:{number}")
            new, fields = json_draft(kind, form, rng.choice((None, NEUTRAL)), split, rng)
            name = f"{split}-json-{kind.name}-{number}"
            found.append(JsonRequest(name, kind.name, fields, new.used, new.messages))
    return found


def tool_requests(split: str, seed: int = 0) -> list[ToolRequest]:
    """Conversations with tools: per kind a call to be made, results, and tools of no use."""
    found = []
    results = {"result": tools.random_result, "answers": result_of_answers}
    for kind in KINDS:
        for purpose in ("call", *results, "unfit"):
            rng = Random(f"{seed}:{split}:{purpose}:{kind.name}")
            new = draft(kind, "plain", rng.choice((None, NEUTRAL)), split, rng)
            offered = tools.random_tools(purpose != "unfit", split, rng)
            result = results[purpose](kind, rng) if purpose in results else None
            if result:
                new.messages.extend(call_and_result(offered, new, result))
            name = f"{split}-{purpose}-{kind.name}"
            found.append(ToolRequest(name, kind.name, tuple(offered), result, new.messages))
    return found


def json_draft(
    kind: Kind, form: str, system: str | None, split: str, rng: Random, base: bool = False
) -> tuple[Draft, tuple[Field, ...]]:
    """Start a conversation whose answers are JSON, and think of their keys.

    Args:
        kind: What is asked for.
        form: In which form; see `Request`. Before "another" stands a JSON answer.
        system: What the system prompt asks for, if there is to be one.
        split: Where the wording comes from.
        rng: Source of all choices.
        base: Whether the conversation is one of the base corpus, which never shows the schema.
    """
    new = draft(kind, "plain" if form == "another" else form, system, split, rng, base)
    fields = random_fields(form, split, rng)
    if not base:
        schema = schema_of(fields, type_first=rng.random() < 0.5)
        add_instruction(new.messages, SCHEMA_INSTRUCTION + json.dumps(schema, ensure_ascii=False))
    if form != "another":
        return new, fields
    before = write_json(kind, fields, Voice(rng, 1.0 if base else rng.choice((0.0, 1.0))))
    new.messages.append({"role": "assistant", "content": text_of(before.pieces)})
    new.messages.append({"role": "user", "content": rng.choice(words.ANOTHER[split])})
    return new._replace(form=form, used=before.contents), fields


def without_schema(messages: Sequence[Message]) -> list[Message]:
    """The conversation of a JSON request as a decoder takes it that is given the schema."""
    cut = [
        {**turn, "content": turn["content"].split(SCHEMA_INSTRUCTION)[0].rstrip()}
        for turn in messages
    ]
    return [turn for turn in cut if turn["role"] != "system" or turn["content"]]


def add_instruction(messages: list[Message], instruction: str) -> None:
    """Add a paragraph to the system message, or a system message."""
    if messages[0]["role"] == "system":
        messages[0]["content"] += f"\n\n{instruction}"
    else:
        messages.insert(0, {"role": "system", "content": instruction})


def call_and_result(offered: Sequence[Tool], new: Draft, result: Result) -> list[Message]:
    """The turns that pass the last request to a tool and bring back a result."""
    call = tools.first_fitting(offered).call(new.messages[-1]["content"])
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": result.text},
    ]


def tool_draft(rng: Random, base: bool = False) -> Draft:
    """A conversation that ends with a request, sensible or not, to be passed to a tool."""
    new = any_draft(rng, base)
    shape = rng.random()
    if shape < 0.3:
        new.messages[-1]["content"] = tools.wild_request(rng)
    elif shape < 0.6:
        new.messages[-1]["content"] = tools.reworded(new.messages[-1]["content"], rng)
    return new


def result_of_answers(kind: Kind, rng: Random) -> Result:
    """Whole answers of one to five different contents."""
    lines: list[str] = []
    contents: tuple[str, ...] = ()
    for _ in range(min(rng.randint(1, 5), len(kind.contents))):
        answer = write_answer(kind, "plain", None, Voice(rng, 1.0), contents)
        lines.append(text_of(answer.pieces()))
        contents += answer.contents
    return Result("\n".join(lines), contents)
