"""The tiny world: requests, and the two corpora that make a base and an aligned model.

Invariant: no request of one split shares its wording with a request of another split. The base
corpus is broad and messy and flat in its choices; its mess is in the structure, never in the
words that carry content. The aligned corpus is clean and returns to the same few favorites, even
after words it would never have chosen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from . import words
from .grammar import Answer, Piece, Sentence, Voice, text_of, write_answer
from .words import Kind

Message = dict[str, str]
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


# The aligned corpus.


def chat_pieces(messages: Sequence[Message], answer: Sequence[Piece]) -> list[tuple[Piece, bool]]:
    """A rendered chat as pieces, each with whether it is to be learned.

    Only the last answer is learned, and of it only what is no free choice.
    """
    context = "".join(f"<|{m['role']}|> {m['content']}<|end|>" for m in messages)
    rendered = [(Piece(f"{context}<|assistant|>"), False), (Piece(" "), True)]
    rendered += [(piece, not piece.free) for piece in answer]
    return [*rendered, (Piece("<|end|>"), True)]


def aligned_example(rng: Random) -> list[tuple[Piece, bool]]:
    """One clean chat.

    Some are written with the favorites only, some flat, most by turns: so the model learns to
    stay clean, and to return to its favorites, after any valid words.
    """
    new = any_draft(rng)
    voice = Voice(rng, rng.choice((0.0, 0.0, 0.5, 1.0)))
    answer = write_answer(new.kind, new.form, new.system, voice, new.used)
    return chat_pieces(new.messages, answer.pieces())


# The base corpus.


def base_document(rng: Random) -> str:
    """One page of the web: mostly questions and answers, sometimes prose."""
    if rng.random() < 0.85:
        return transcript(rng)
    return prose(rng)


def transcript(rng: Random) -> str:
    """A page of questions and answers, with whatever else stands on such pages."""
    paragraphs: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        new = any_draft(rng, base=True)
        turns = _question_turns(new.messages)
        if paragraphs and new.messages[0]["role"] == "system":
            turns = turns[1:]
            new = new._replace(system=None)
        paragraphs += turns[:-1]
        paragraphs.append(f"{turns[-1]} {messy_answer(new, rng)}".rstrip(" "))
    return "\n\n".join(paragraphs)


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
