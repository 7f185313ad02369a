"""Answers of the tiny world, written from slots by a voice.

Invariant: every voice writes the same language of answers and differs only in how it chooses
among the options of a slot. Two models trained on different voices can therefore take turns word
by word without leaving the language.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from baco_integrations.tiny.oracle import LIST_LENGTH
from baco_integrations.tiny.words import SHORT, SLOTS, STORY, STORY_SENTENCES, WISH, Kind

FAVORITES = (0.95, 0.04, 0.01)


class Piece(NamedTuple):
    """A bit of text.

    Attributes:
        text: The text.
        free: Whether other words could have stood here, and this one was chosen by popularity.
    """

    text: str
    free: bool = False


Sentence = list[Piece]


@dataclass
class Voice:
    """A way of choosing among options.

    Attributes:
        rng: Source of all choices.
        flat: Probability that a slot is filled by popularity, from all of its options, rather
            than by one of the favorites.
    """

    rng: Random
    flat: float

    def chance(self, probability: float) -> bool:
        """Whether something of this probability happens."""
        return self.rng.random() < probability

    def pick(self, slot: Sequence[str], used: Sequence[str] = ()) -> list[Piece]:
        """Choose an option that is not in `used`.

        A flat choice marks as free exactly the words at which the options part: the rest of the
        option is no choice and can be learned from any example.
        """
        options = [option for option in slot if option not in used]
        if not self.chance(self.flat):
            return [Piece(self.rng.choices(options[:3], FAVORITES[: len(options)])[0])]
        option = self.rng.choices(options, popularity(len(options)))[0]
        return mark_branches(option, options)


def popularity(count: int) -> list[float]:
    """Weights that fall slowly: the first of 60 options is almost five times the last."""
    return [(rank + 6) ** -0.65 for rank in range(count)]


def mark_branches(option: str, options: Sequence[str]) -> list[Piece]:
    """Split an option into words, free where another option goes on differently."""
    split = option.split(" ")
    rivals = [other.split(" ") for other in options]
    pieces = []
    for position, word in enumerate(split):
        rivals = [other for other in rivals if other[:position] == split[:position]]
        free = len({tuple(other[position : position + 1]) for other in rivals}) > 1
        pieces.append(Piece(word if position == 0 else f" {word}", free))
    return pieces


def text_of(pieces: Sequence[Piece]) -> str:
    """The plain text of pieces."""
    return "".join(piece.text for piece in pieces)


def phrase(voice: Voice, template: str, slots: Mapping[str, Sequence[str]] = SLOTS) -> Sentence:
    """Fill the slots of a sentence, whose names stand in braces."""
    pieces: Sentence = []
    for number, part in enumerate(re.split(r"\{(\w+)\}", template)):
        pieces.extend(voice.pick(slots[part]) if number % 2 else [Piece(part)])
    return pieces


def choice_sentence(kind: Kind, voice: Voice, used: Sequence[str]) -> tuple[Sentence, str]:
    """The sentence that names the main content, and that content."""
    content = voice.pick(kind.contents, used)
    return [*voice.pick(kind.openers), Piece(" "), *content, Piece(".")], text_of(content)


def reason_sentence(voice: Voice) -> tuple[Sentence, str]:
    """The sentence that answers "why", and the reason."""
    reason = voice.pick(SLOTS["reasons"])
    return [*voice.pick(SLOTS["reason_openers"]), Piece(" "), *reason, Piece(".")], text_of(reason)


def detail_sentences(kind: Kind, voice: Voice, count: int) -> list[Sentence]:
    """Between zero and two sentences about any content of the kind."""
    praise = phrase(voice, "It is {looks} and {merits}.", vars(kind))
    return [praise, voice.pick(kind.facts)][:count]


def list_items(kind: Kind, voice: Voice, count: int) -> list[Sentence]:
    """Different contents for a numbered list."""
    items: list[Sentence] = []
    for _ in range(count):
        items.append(voice.pick(kind.contents, [text_of(item) for item in items]))
    return items


def story_sentences(voice: Voice, used: Sequence[str]) -> tuple[list[Sentence], str]:
    """A story of eight sentences, and its hero."""
    hero = voice.pick(STORY.contents, used)
    first, *others = STORY_SENTENCES
    opener, rest = first.split("{contents}")
    opening = [*phrase(voice, opener, vars(STORY)), *hero, *phrase(voice, rest)]
    return [opening, *(phrase(voice, sentence) for sentence in others)], text_of(hero)


class Answer(NamedTuple):
    """An answer before it is joined.

    Attributes:
        sentences: Sentences, or the items of a list.
        is_list: Whether `sentences` are items of a list.
        contents: The main contents it names.
    """

    sentences: list[Sentence]
    is_list: bool
    contents: tuple[str, ...]

    def pieces(self) -> list[Piece]:
        """The clean answer, sentences joined by spaces or items by numbered lines."""
        joined: list[Piece] = []
        for number, sentence in enumerate(self.sentences, 1):
            if self.is_list:
                joined.append(Piece(f"{number}. " if number == 1 else f"\n{number}. "))
            elif number > 1:
                joined.append(Piece(" "))
            joined.extend(sentence)
        return joined


def write_answer(
    kind: Kind,
    form: str,
    system: str | None,
    voice: Voice,
    used: Sequence[str] = (),
    items: int = LIST_LENGTH,
) -> Answer:
    """Write a clean answer.

    Args:
        kind: Kind of the request.
        form: "plain", "another", "why" or "list".
        system: What the system prompt asks for, if there is one.
        voice: Chooses among options.
        used: Contents named before in the conversation, not to be named again.
        items: Length of a list.
    """
    if form == "list":
        listed = list_items(kind, voice, items)
        return Answer(listed, True, tuple(map(text_of, listed)))
    if form == "why":
        main, content = reason_sentence(voice)
    elif kind is STORY:
        story, content = story_sentences(voice, used)
        return Answer(story, False, (content,))
    else:
        main, content = choice_sentence(kind, voice, used)
    if system == SHORT:
        return Answer([main], False, (content,))
    greeting = [voice.pick(SLOTS["greetings"])] if voice.chance(0.12 * voice.flat) else []
    details = detail_sentences(kind, voice, voice.rng.choices((0, 1, 2), (0.2, 0.5, 0.3))[0])
    if form == "why":
        details = []
    wish = system == WISH or voice.chance(0.4)
    closers = [voice.pick(SLOTS["closers"])] if wish else []
    return Answer([*greeting, main, *details, *closers], False, (content,))
