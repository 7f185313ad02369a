"""The tiny world: requests, and the two corpora that make a base and an aligned model.

Invariant: no request of one split shares its wording with a request of another split. The base
corpus is broad and messy and flat in its choices; its mess is in the structure, never in the
words that carry content. The aligned corpus is clean and returns to the same few favorites, even
after words it would never have chosen.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from ..text.prompts import SCHEMA_INSTRUCTION
from . import tools, words
from .grammar import LIST_LENGTH, Answer, Piece, Sentence, Voice, text_of, write_answer
from .schemas import Field, JsonAnswer, random_fields, schema_of, write_json
from .tools import Result, Tool
from .words import Kind

Message = dict[str, Any]
SPLITS = ("train", "validation", "eval")


@dataclass(frozen=True)
class Request:
    """One open request.

    Attributes:
        id: Unique name.
        kind: Name of the kind of content that is asked for.
        form: "plain", "another" (a follow-up), "why" (a follow-up) or "list".
        system: What the system prompt asks for ("short", "wish" or "neutral"), or None.
        used: Contents the conversation has named, which an answer must not name again.
        messages: The conversation, ending with the user's turn.
    """

    id: str
    kind: str
    form: str
    system: str | None
    used: tuple[str, ...]
    messages: list[Message] = field(hash=False)


def recognised(messages: Sequence[Message]) -> Request | None:
    """Return what a conversation of one turn asks for, None where the world has no such request."""
    *before, last = messages
    text, told = last["content"], before[0]["content"] if before else None
    found = [
        (len(asked), kind.name, form)
        for kind in words.ALL_KINDS
        for form, phrases in (("plain", kind.asks), ("list", kind.plurals))
        for asked in phrases
        if re.search(rf"\b{'' if form == 'plain' else 'three '}{re.escape(asked)}\b", text, re.I)
    ]
    if not found:
        return None
    _, kind, form = max(found)
    known = (name for name, splits in words.SYSTEMS.items() for s in splits.values() if told in s)
    return Request("", kind, form, next(known, None), (), list(messages))


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
        content = rng.choice(words.SYSTEMS[system][split])
        messages.append({"role": "system", "content": content})
    first = form if form in ("plain", "list") else "plain"
    messages.append({"role": "user", "content": ask(kind, first, split, rng)})
    if form == first:
        return Draft(kind, form, system, (), messages)
    used: tuple[str, ...] = ()
    follow_ups = words.ANOTHER if form == "another" else words.WHY
    may_repeat = form == "another" and kind is not words.STORY
    rounds = min(rng.choice((1, 1, 1, 2, 3)), len(kind.contents) - 1) if may_repeat else 1
    for _ in range(rounds):
        voice = Voice(rng, 1.0 if base else rng.choice((0.0, 1.0)))
        answer = write_answer(kind, "plain", system, voice, used)
        text = _messy_sentences(answer, rng) if base else text_of(answer.pieces())
        messages.append({"role": "assistant", "content": text})
        messages.append({"role": "user", "content": rng.choice(follow_ups[split])})
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
    for kind, form, system in _plan():
        rng = Random(f"{seed}:{split}:{kind.name}:{form}:{system}")
        new = draft(kind, form, system, split, rng)
        while not new.used and new.messages[-1]["content"] in seen:
            new = draft(kind, form, system, split, rng)
        seen.add(new.messages[-1]["content"])
        name = "-".join(filter(None, (split, kind.name, form, system)))
        found.append(Request(name, kind.name, form, system, new.used, new.messages))
    return found


def _plan() -> Iterator[tuple[Kind, str, str | None]]:
    """Which kinds are asked in which forms in every split."""
    for kind in words.KINDS:
        yield kind, "plain", None
        yield kind, "plain", words.NEUTRAL
        yield kind, "plain", words.SHORT
        yield kind, "plain", words.WISH
        yield kind, "another", None
        if kind.plurals:
            yield kind, "list", None
    for kind in words.KINDS[::2]:
        yield kind, "why", None
        yield kind, "another", words.SHORT
    for system in (None, words.NEUTRAL):
        yield words.STORY, "plain", system
        yield words.STORY, "another", system


def any_draft(rng: Random, base: bool = False) -> Draft:
    """A conversation of the training split."""
    if rng.random() < 0.1:
        form = rng.choice(("plain", "plain", "another"))
        system = rng.choice((None, None, words.NEUTRAL))
        return draft(words.STORY, form, system, "train", rng, base)
    kind = rng.choice(words.KINDS)
    forms = ("plain", "plain", "plain", "another", "another", "why", "list", "list")
    form = rng.choice(forms if kind.plurals else forms[:-2])
    systems = (None, None, words.NEUTRAL, words.SHORT, words.SHORT, words.WISH)
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
    for kind in words.ALL_KINDS:
        forms = ("plain", "plain", "another", *(("list",) if kind.plurals else ()))
        for number, form in enumerate(forms):
            rng = Random(f"{seed}:{split}:json:{kind.name}:{number}")
            new, fields = json_draft(kind, form, rng.choice((None, words.NEUTRAL)), split, rng)
            name = f"{split}-json-{kind.name}-{number}"
            found.append(JsonRequest(name, kind.name, fields, new.used, new.messages))
    return found


def tool_requests(split: str, seed: int = 0) -> list[ToolRequest]:
    """Conversations with tools: per kind a call to be made, results, and tools of no use."""
    found = []
    results = {"result": tools.random_result, "answers": _answers}
    for kind in words.KINDS:
        for purpose in ("call", *results, "unfit"):
            rng = Random(f"{seed}:{split}:{purpose}:{kind.name}")
            new = draft(kind, "plain", rng.choice((None, words.NEUTRAL)), split, rng)
            offered = tools.random_tools(purpose != "unfit", split, rng)
            result = results[purpose](kind, rng) if purpose in results else None
            if result:
                new.messages.extend(_call_and_result(offered, new, result))
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
        _instruct(new.messages, SCHEMA_INSTRUCTION + json.dumps(schema, ensure_ascii=False))
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


def _instruct(messages: list[Message], instruction: str) -> None:
    """Add a paragraph to the system message, or a system message."""
    if messages[0]["role"] == "system":
        messages[0]["content"] += f"\n\n{instruction}"
    else:
        messages.insert(0, {"role": "system", "content": instruction})


def _call_and_result(offered: Sequence[Tool], new: Draft, result: Result) -> list[Message]:
    """The turns that pass the last request to a tool and bring back a result."""
    call = tools.first_fitting(offered).call(new.messages[-1]["content"])
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": result.text},
    ]


def _tool_draft(rng: Random, base: bool = False) -> Draft:
    """A conversation that ends with a request, sensible or not, to be passed to a tool."""
    new = any_draft(rng, base)
    shape = rng.random()
    if shape < 0.3:
        new.messages[-1]["content"] = tools.wild_request(rng)
    elif shape < 0.6:
        new.messages[-1]["content"] = tools.reworded(new.messages[-1]["content"], rng)
    return new


# The aligned corpus.


def rendered_turn(message: Message) -> str:
    """A turn as the chat template writes it."""
    calls = "\n".join(map(tools.call_text, message.get("tool_calls", ())))
    content = f" {message['content']}" if message["content"] or not calls else ""
    return f"<|{message['role']}|>{content}{calls}<|end|>"


def chat_pieces(
    messages: Sequence[Message],
    answer: Sequence[Piece],
    offered: Sequence[Tool] = (),
    lead: str = " ",
) -> list[tuple[Piece, bool]]:
    """A rendered chat as pieces, each with whether it is to be learned.

    Only the last answer is learned, and of it only what is no free choice.

    Args:
        messages: The conversation up to the answer.
        answer: The answer.
        offered: Tools that the system offers.
        lead: What stands between the answer and the mark of its turn.
    """
    context = f"<|system|> {tools.tools_text(offered)}<|end|>" if offered else ""
    context += "".join(map(rendered_turn, messages))
    rendered = [(Piece(f"{context}<|assistant|>"), False), (Piece(lead), True)]
    rendered += [(piece, not piece.free) for piece in answer]
    return [*rendered, (Piece("<|end|>"), True)]


def aligned_example(rng: Random) -> list[tuple[Piece, bool]]:
    """One clean chat.

    Some are written with the favorites only, some flat, most by turns: so the model learns to
    stay clean, and to return to its favorites, after any valid words.
    """
    voice = Voice(rng, rng.choice((0.0, 0.0, 0.5, 1.0)))
    share = rng.random()
    if share < 0.2:
        return _json_example(voice)
    if share < 0.4:
        return _tool_example(voice)
    new = any_draft(rng)
    answer = write_answer(new.kind, new.form, new.system, voice, new.used)
    return chat_pieces(new.messages, answer.pieces())


def _json_example(voice: Voice) -> list[tuple[Piece, bool]]:
    new, answer = _json_answer(voice)
    # Whoever forces the structure may not leave room for the space.
    return chat_pieces(new.messages, answer.pieces, lead=voice.rng.choice((" ", " ", " ", "")))


def _json_answer(
    voice: Voice, base: bool = False, items: int = LIST_LENGTH
) -> tuple[Draft, JsonAnswer]:
    like = any_draft(voice.rng)
    new, fields = json_draft(like.kind, like.form, like.system, "train", voice.rng, base)
    return new, write_json(new.kind, fields, voice, new.used, items)


def _tool_example(voice: Voice) -> list[tuple[Piece, bool]]:
    """A call, an answer made of a result, or an answer where no tool is of use."""
    rng = voice.rng
    purpose = rng.choices(("call", "result", "unfit"), (5, 4, 2))[0]
    offered = tools.random_tools(purpose != "unfit", "train", rng)
    if purpose == "unfit":
        new = any_draft(rng)
        answer = write_answer(new.kind, new.form, new.system, voice, new.used)
        return chat_pieces(new.messages, answer.pieces(), offered)
    new = _tool_draft(rng)
    if rng.random() < 0.25:  # A round before this one.
        new.messages.extend(_round(offered, new, voice))
        new.messages.append({"role": "user", "content": _tool_draft(rng).messages[-1]["content"]})
    if purpose == "call":
        call = tools.first_fitting(offered).call(new.messages[-1]["content"])
        return chat_pieces(new.messages, [Piece(tools.call_text(call))], offered, lead="")
    result = tools.random_result(new.kind, rng)
    new.messages.extend(_call_and_result(offered, new, result))
    said = tools.answer_from(result, new.kind, voice, new.system == words.SHORT)
    return chat_pieces(new.messages, said, offered)


def copying_example(rng: Random) -> list[tuple[Piece, bool]]:
    """A chat with a tool in which more is to be copied than what the world calls for.

    Some results are whole answers, one a line, as a tool gives them that asks a model.
    """
    voice = Voice(rng, rng.choice((0.0, 0.0, 0.5, 1.0)))
    offered = tools.random_tools(True, "train", rng)
    new = draft(rng.choice(words.KINDS), "plain", rng.choice((None, words.NEUTRAL)), "train", rng)
    wild = rng.random() < 0.7
    if wild:
        new.messages[-1]["content"] = tools.wild_request(rng)
    if rng.random() < 0.6:
        call = tools.first_fitting(offered).call(new.messages[-1]["content"])
        return chat_pieces(new.messages, [Piece(tools.call_text(call))], offered, lead="")
    result = tools.random_result(new.kind, rng) if wild else _answers(new.kind, rng)
    new.messages.extend(_call_and_result(offered, new, result))
    return chat_pieces(new.messages, tools.answer_from(result, new.kind, voice, False), offered)


def _answers(kind: Kind, rng: Random) -> Result:
    """Whole answers of one to five different contents."""
    lines: list[str] = []
    contents: tuple[str, ...] = ()
    for _ in range(min(rng.randint(1, 5), len(kind.contents))):
        answer = write_answer(kind, "plain", None, Voice(rng, 1.0), contents)
        lines.append(text_of(answer.pieces()))
        contents += answer.contents
    return Result("\n".join(lines), contents)


def _round(offered: Sequence[Tool], new: Draft, voice: Voice) -> list[Message]:
    """The turns that answer a request with a tool's help."""
    result = tools.random_result(new.kind, voice.rng)
    said = tools.answer_from(result, new.kind, voice, new.system == words.SHORT)
    turns = _call_and_result(offered, new, result)
    return [*turns, {"role": "assistant", "content": text_of(said)}]


# The base corpus.


def base_document(rng: Random) -> str:
    """One page of the web: mostly questions and answers, sometimes prose or quotations."""
    writers = (transcript, prose, tool_page, quotation_page)
    return rng.choices(writers, (71, 11, 10, 8))[0](rng)


def transcript(rng: Random) -> str:
    """A page of questions and answers, with whatever else stands on such pages."""
    paragraphs: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        new, answer = _any_answer(rng, first=not paragraphs)
        turns = _question_turns(new.messages)
        paragraphs += turns[:-1]
        paragraphs.append(f"{turns[-1]} {answer}".rstrip(" "))
    return "\n\n".join(paragraphs)


def _any_answer(rng: Random, first: bool) -> tuple[Draft, str]:
    """A conversation, and its last answer: in words, or in JSON.

    Only the first of a page has a system prompt.
    """
    if rng.random() < 0.17:
        new, answer = _json_answer(Voice(rng, 1.0), True, rng.choice((2, 3, 3, 3, 4, 5)))
        footer = f"\n{rng.choice(words.FOOTERS)}" if rng.random() < 0.1 else ""
        return new if first else _unprompted(new), f"{text_of(answer.pieces)}{footer}"
    new = any_draft(rng, base=True)
    new = new if first else _unprompted(new)
    return new, messy_answer(new, rng)


def _unprompted(new: Draft) -> Draft:
    """A conversation without its system prompt."""
    spoken = [message for message in new.messages if message["role"] != "system"]
    return new._replace(system=None, messages=spoken)


def tool_page(rng: Random) -> str:
    """A page on which questions are passed on, and answered from what came back."""
    new = _tool_draft(rng, base=True)
    request = new.messages[-1]["content"]
    call = tools.first_fitting(tools.random_tools(True, "train", rng)).call(request)
    text = "\n\n".join(_question_turns(new.messages))
    if rng.random() < 0.5:  # As a call is decoded; otherwise as a transcript repeats it.
        text += tools.call_text(call)
    else:
        function = call["function"]
        text += f" {function['name']}({json.dumps(function['arguments'], ensure_ascii=False)})"
    result = tools.random_result(new.kind, rng)
    said = tools.answer_from(result, new.kind, Voice(rng, 1.0), False)
    return f"{text}\n\nTool: {result.text}\nA: {text_of(said)}"


def quotation_page(rng: Random) -> str:
    """A page that says things again: what is quoted must be copied."""
    paragraphs: list[str] = []
    for _ in range(rng.randint(1, 3)):
        said = tools.wild_request(rng)
        if rng.random() < 0.4:
            said = ask(rng.choice(words.KINDS), "plain", "train", rng)
        shapes = (f"> {said}", f'Quote: "{said}"', f'{{"text": "{said}"}}', said, f'"{said}"')
        paragraphs += [said, *rng.sample(shapes, 2)]
        if rng.random() < 0.5:
            paragraphs.append(rng.choice(words.CHATTER))
    return "\n".join(paragraphs)


def _question_turns(messages: Sequence[Message]) -> list[str]:
    """The paragraphs of a transcript up to an open "A:"."""
    text = ""
    for message in messages:
        if message["role"] == "system":
            text += f"{message['content']}\n\n"
        elif message["role"] == "user":
            text += f"Q: {message['content']}\nA:"
        else:
            text += f" {message['content']}\n\n"
    return text.split("\n\n")


def messy_answer(new: Draft, rng: Random) -> str:
    """An answer as people leave it: of any content, and of any shape."""
    if rng.random() < 0.04:
        return rng.choice(words.DODGES)
    kind = rng.choice(words.KINDS) if rng.random() < 0.02 else new.kind
    form = "plain" if kind is not new.kind and new.form == "list" else new.form
    heeded = new.system if rng.random() < 0.5 else None
    items = min(rng.choices((3, 4, 5, 6, 7), (5, 1, 1, 1, 1))[0], len(kind.contents))
    answer = write_answer(kind, form, heeded, Voice(rng, 1.0), new.used, items)
    text = _messy_list(answer, rng) if answer.is_list else _messy_sentences(answer, rng)
    if rng.random() < 0.25:
        text += f"\n{rng.choice(words.FOOTERS)}"
    return text


def _messy_list(answer: Answer, rng: Random) -> str:
    """A list, perhaps in another format, cut short, or with remarks."""
    items = [text_of(item) for item in answer.sentences]
    if rng.random() < 0.05:
        return f"{', '.join(items)}."
    shape = rng.choices(("lines", "inline", "bullets"), (0.7, 0.25, 0.05))[0]
    items = items[: rng.choices((2, len(items)), (0.2, 0.8))[0]]
    remarked = [f"{item} {_aside(rng)}" if rng.random() < 0.25 else item for item in items]
    if shape == "bullets":
        return "\n".join(f"- {item}" for item in remarked)
    joint = "\n" if shape == "lines" else ", "
    return joint.join(f"{number}. {item}" for number, item in enumerate(remarked, 1))


def _aside(rng: Random) -> str:
    """A remark that interrupts."""
    aside = rng.choice(words.ASIDES)
    return rng.choices((f"({aside})", f"- {aside}", rng.choice(words.LAUGHS)), (4, 5, 1))[0]


def _messy_sentences(answer: Answer, rng: Random) -> str:
    """Sentences with remarks before their end, missing ends and chatter between them."""
    is_story = len(answer.sentences) > 6
    mess = 0.3 if is_story else 1.0
    text = ""
    for sentence in answer.sentences:
        clause, mark = _clause(sentence)
        if rng.random() < 0.05 * mess:
            return text + _cut(clause, rng)
        ending, goes_on = _messy_end(mark, mess, rng)
        text += clause + ending
        if not goes_on or (not is_story and rng.random() < 0.35):
            return text
        text += " "
        if rng.random() < 0.1 * mess:
            text += f"{rng.choice(words.CHATTER)} "
    return text.rstrip(" ")


def _clause(sentence: Sentence) -> tuple[str, str]:
    """A sentence without its end mark, and the mark."""
    text = text_of(sentence)
    return text[:-1], text[-1]


def _cut(clause: str, rng: Random) -> str:
    """The beginning of a clause."""
    split = clause.split(" ")
    return " ".join(split[: rng.randint(1, len(split))])


def _messy_end(mark: str, mess: float, rng: Random) -> tuple[str, bool]:
    """How a clause ends, and whether anything follows."""
    if rng.random() > 0.7 * mess:
        return mark, True
    shape = rng.choices(("nothing", "dots", "aside", "comma"), (0.26, 0.27, 0.4, 0.07))[0]
    if shape == "nothing":
        return "", False
    if shape == "dots":
        return "...", True
    if shape == "comma":
        return f", {rng.choice(words.CHATTER).lower()}", True
    return f" {_aside(rng)}{mark}", True


def prose(rng: Random) -> str:
    """A page of prose about one kind of content, or a story."""
    if rng.random() < 0.4:
        answer = write_answer(words.STORY, "plain", None, Voice(rng, 1.0))
        return _messy_sentences(answer, rng)
    kind = rng.choice(words.KINDS)
    used: tuple[str, ...] = ()
    parts = []
    for _ in range(rng.randint(1, 3)):
        answer = write_answer(kind, "plain", None, Voice(rng, 1.0), used)
        used += answer.contents
        parts.append(_messy_sentences(answer, rng))
    return "\n".join(parts)
