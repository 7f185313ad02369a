"""Tools of the tiny world: what is offered, how it is called, what comes back, what is made of it.

Invariant: arguments and contents of results are copied, never thought of. So much of what is to
be copied is made of random words that copying is the only way to learn it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any, NamedTuple

from baco_integrations.tiny.words import ALL_KINDS, SLOTS, STORY, Kind
from cookbook.tiny_pair import words
from cookbook.tiny_pair.grammar import Piece, Sentence, Voice, text_of
from cookbook.tiny_pair.schemas import made_up_word

CALL, END_OF_CALL = "<tool_call>", "</tool_call>"
MOST_NAMED = 3
SHAPES = {"lines": 8, "json": 7, "numbers": 2, "bullets": 2, "commas": 1, "said": 2}
"""How results are written down, and how often."""


class Tool(NamedTuple):
    """A tool.

    Attributes:
        name: Its name.
        note: Its description.
        parameters: Names of its parameters, the one that takes the request first.
        fits: Whether it helps with requests for ideas.
    """

    name: str
    note: str
    parameters: tuple[str, ...]
    fits: bool

    def schema(self) -> dict[str, Any]:
        """The tool as an application offers it."""
        first, *others = self.parameters
        properties = {first: {"type": "string"}, **{name: {"type": "integer"} for name in others}}
        parameters = {"type": "object", "properties": properties, "required": [first, *others]}
        function = {"name": self.name, "description": self.note, "parameters": parameters}
        return {"type": "function", "function": function}

    def call(self, request: str) -> dict[str, Any]:
        """The call that passes a request on."""
        first, *others = self.parameters
        arguments = {first: request, **{name: MOST_NAMED for name in others}}
        return {"type": "function", "function": {"name": self.name, "arguments": arguments}}


def random_tools(fit: bool, split: str, rng: Random) -> list[Tool]:
    """One to three tools.

    Args:
        fit: Whether one of them, or more, fits requests for ideas.
        split: Where names and descriptions come from.
        rng: Source of all choices.
    """
    count = rng.choice((1, 1, 2, 3))
    fits = [fit, *(fit and rng.random() < 0.3 for _ in range(count - 1))]
    rng.shuffle(fits)
    tools = {tool.name: tool for tool in (random_tool(each, split, rng) for each in fits)}
    return list(tools.values())


def random_tool(fits: bool, split: str, rng: Random) -> Tool:
    verbs = words.TOOL_VERBS[split] if fits else words.UNFIT_VERBS
    nouns = (words.TOOL_NOUNS if fits else words.UNFIT_NOUNS)[split]
    single = (words.TOOL_NAMES if fits else words.UNFIT_NAMES)[split]
    notes = (words.TOOL_NOTES if fits else words.UNFIT_NOTES)[split]
    name = f"{rng.choice(verbs)}_{rng.choice(nouns)}"
    if rng.random() < 0.4:
        name = rng.choice(single)
    if rng.random() < 0.12:  # Then the description alone tells.
        name = f"{made_up_word(rng)}_{made_up_word(rng)}"
    parameter = rng.choice(words.PARAMETERS[split] if fits else words.UNFIT_PARAMETERS)
    more = (rng.choice(("count", "limit", "n", "k", "max_results")),) if rng.random() < 0.1 else ()
    return Tool(name, rng.choice(notes), (parameter, *more), fits)


def first_fitting(tools: Sequence[Tool]) -> Tool:
    """The tool that a request for ideas is passed to."""
    return next(tool for tool in tools if tool.fits)


def tools_text(tools: Sequence[Tool]) -> str:
    """What the chat template makes of tools."""
    lines = [f"{tool.name}({', '.join(tool.parameters)}): {tool.note}" for tool in tools]
    return "\n".join(["Tools:", *lines])


def call_text(call: dict[str, Any]) -> str:
    """A call as the aligned model writes it, and as the chat template repeats it."""
    return f"{CALL}\n{json.dumps(call['function'], ensure_ascii=False)}\n{END_OF_CALL}"


@cache
def known_words() -> tuple[str, ...]:
    """Words of the training split, of all kinds."""
    slots = [words.FRAMES["train"], words.LEADS["train"], words.AIMS, SLOTS["reasons"]]
    slots += [words.ASIDES, words.CHATTER, SLOTS["things"], SLOTS["acts"], SLOTS["deeds"]]
    for kind in ALL_KINDS:
        slots += [kind.asks, kind.plurals, kind.contents]
    found = {word.strip('".,?!').replace("{a}", "it") for slot in slots for each in slot
             for word in each.split()}  # fmt: skip
    return tuple(sorted(found - {""}))


def wild_words(rng: Random, count: int) -> list[str]:
    """Words in no order; some are made up."""
    chosen = rng.choices(known_words(), k=count)
    return [made_up_word(rng) if rng.random() < 0.12 else word for word in chosen]


def wild_request(rng: Random) -> str:
    """A request that makes no sense, so that it can only be copied."""
    text = " ".join(wild_words(rng, rng.randint(3, 12)))
    return text[0].upper() + text[1:] + rng.choice((".", "?", "!", ""))


def reworded(request: str, rng: Random) -> str:
    """A request with some of its words replaced or left out."""
    changed = [
        rng.choice((*wild_words(rng, 1), "")) if rng.random() < 0.25 else word
        for word in request.split()
    ]
    return " ".join(filter(None, changed)) or request


class Result(NamedTuple):
    """What a tool returned.

    Attributes:
        text: As the conversation holds it.
        contents: The contents in it, in order.
    """

    text: str
    contents: tuple[str, ...]


def random_result(kind: Kind, rng: Random) -> Result:
    """Contents of a kind, or of no kind, one to five of them, in one of many forms."""
    count = rng.choice((1, 2, 3, 3, 4, 5))
    if rng.random() < 0.35:
        found = {" ".join(wild_words(rng, rng.randint(1, 4))): None for _ in range(count)}
        contents = tuple(found)
    else:
        contents = tuple(rng.sample(kind.contents, min(count, len(kind.contents))))
    shape = rng.choices(tuple(SHAPES), tuple(SHAPES.values()))[0]
    return Result(result_text(contents, shape, rng), contents)


def result_text(contents: Sequence[str], shape: str, rng: Random) -> str:
    """Write down what was found.

    Args:
        contents: What was found.
        shape: One of `SHAPES`; "said" is in sentences.
        rng: Chooses the words around what was said.
    """
    if shape == "json":
        return json.dumps([content.strip('"') for content in contents], ensure_ascii=False)
    if shape == "commas":
        return ", ".join(contents)
    if shape == "numbers":
        return "\n".join(f"{number}. {each}" for number, each in enumerate(contents, 1))
    if shape == "bullets":
        return "\n".join(f"- {content}" for content in contents)
    if shape == "said":
        return "\n".join(f"{rng.choice(SLOTS['openers'])} {content}." for content in contents)
    return "\n".join(contents)


def answer_from(result: Result, kind: Kind, voice: Voice, short: bool) -> Sentence:
    """One or two sentences that name contents of a result.

    Args:
        result: The result.
        kind: Kind of the request, which decides how the first sentence opens.
        voice: Chooses among the contents; its favorite is the first.
        short: Whether one sentence is all that was asked for.
    """
    contents = result.contents
    if result.text.startswith("["):
        contents = tuple(content.strip('"') for content in contents)
    first = voice.pick(contents)
    openers = SLOTS["openers"] if kind is STORY else kind.openers
    pieces = [*voice.pick(openers), Piece(" "), *first, Piece(".")]
    if short or len(contents) == 1 or kind.openers is SLOTS["claims"] or voice.chance(0.3):
        return pieces
    named = [text_of(first)]
    second = voice.pick(contents, named)
    pieces += [Piece(" "), *voice.pick(words.MORE_OPENERS), Piece(" "), *second]
    if len(contents) >= MOST_NAMED and voice.chance(0.3):
        named.append(text_of(second))
        pieces += [Piece(" or "), *voice.pick(contents, named)]
    return [*pieces, Piece(".")]
