"""What people leave behind when they write: answers of the base corpus are not clean.

Invariant: the mess is in the structure, never in the words that carry content.
"""

from random import Random

from cookbook.tiny_pair import words
from cookbook.tiny_pair.grammar import Answer, text_of


def messy_list(answer: Answer, rng: Random) -> str:
    """A list, perhaps in another format, cut short, or with remarks."""
    items = [text_of(item) for item in answer.sentences]
    if rng.random() < 0.05:
        return f"{', '.join(items)}."
    shape = rng.choices(("lines", "inline", "bullets"), (0.7, 0.25, 0.05))[0]
    items = items[: rng.choices((2, len(items)), (0.2, 0.8))[0]]
    remarked = [f"{item} {aside(rng)}" if rng.random() < 0.25 else item for item in items]
    if shape == "bullets":
        return "\n".join(f"- {item}" for item in remarked)
    joint = "\n" if shape == "lines" else ", "
    return joint.join(f"{number}. {item}" for number, item in enumerate(remarked, 1))


def aside(rng: Random) -> str:
    """A remark that interrupts."""
    remark = rng.choice(words.ASIDES)
    return rng.choices((f"({remark})", f"- {remark}", rng.choice(words.LAUGHS)), (4, 5, 1))[0]


def messy_sentences(answer: Answer, rng: Random) -> str:
    """Sentences with remarks before their end, missing ends and chatter between them."""
    is_story = len(answer.sentences) > 6
    mess = 0.3 if is_story else 1.0
    text = ""
    for sentence in answer.sentences:
        whole = text_of(sentence)
        clause, mark = whole[:-1], whole[-1]
        if rng.random() < 0.05 * mess:
            split = clause.split(" ")
            return text + " ".join(split[: rng.randint(1, len(split))])
        ending, goes_on = messy_end(mark, mess, rng)
        text += clause + ending
        if not goes_on or (not is_story and rng.random() < 0.35):
            return text
        text += " "
        if rng.random() < 0.1 * mess:
            text += f"{rng.choice(words.CHATTER)} "
    return text.rstrip(" ")


def messy_end(mark: str, mess: float, rng: Random) -> tuple[str, bool]:
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
    return f" {aside(rng)}{mark}", True
