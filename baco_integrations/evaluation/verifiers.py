"""Checks that need no judge: instructions in IFEval's format, numbers in GSM8K's.

The instructions are IFEval's by name and meaning, the code is ours. What differs: sentences end at
``.``, ``!`` or ``?`` before white space (IFEval asks a trained splitter), words are runs of letters
and digits, keywords are literal texts (not patterns), and the language of an answer is not looked
at, so ``language:response_language`` is not supported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from string import punctuation
from typing import Any

from ..core.errors import ParameterError, nearest

Details = Mapping[str, Any]


def adherence(details: Details, text: str) -> float | None:
    """Return the share of a prompt's instructions that an answer follows.

    Args:
        details: `Prompt.details`, with ``instruction_id_list`` and ``kwargs`` as in IFEval's files.
        text: The answer.

    Returns:
        The share of those in `INSTRUCTIONS`; None if the prompt has none of these.
    """
    pairs = zip(details["instruction_id_list"], details["kwargs"], strict=True)
    followed = [follows(name, own, text) for name, own in pairs if name in INSTRUCTIONS]
    return sum(followed) / len(followed) if followed else None


def follows(name: str, settings: Details, text: str) -> bool:
    """Return whether a text follows one instruction; an empty text follows none.

    Args:
        name: A name from `INSTRUCTIONS`.
        settings: The instruction's ``kwargs``; those that are None are ignored.
        text: The text.

    Raises:
        ParameterError: There is no such instruction, or it lacks a setting.
    """
    if name not in INSTRUCTIONS:
        remedy = f"{nearest(name, INSTRUCTIONS)}Supported: {', '.join(INSTRUCTIONS)}."
        raise ParameterError("instruction", "a supported one", name, remedy)
    given = {key: value for key, value in settings.items() if value is not None}
    try:
        return bool(text.strip()) and INSTRUCTIONS[name](text, given)
    except KeyError as error:
        raise ParameterError(
            "kwargs", f"settings with {error}", given, f"{name} needs it."
        ) from None


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return re.findall(r"\w+", text)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+", text.strip()) if words(part)]


def compare_count(count: int, settings: Details, number: str, relation: str = "relation") -> bool:
    """Compare a count with the setting `number`, by the relation in the setting `relation`.

    Raises:
        ParameterError: The relation is neither "at least", the default, nor "less than".
    """
    wanted = settings.get(relation, "at least")
    if wanted not in ("less than", "at least"):
        raise ParameterError(relation, "'less than' or 'at least'", wanted, "IFEval has no other.")
    return bool(count < settings[number] if wanted == "less than" else count >= settings[number])


def contains_word(text: str, word: str) -> bool:
    """Tell whether a text contains a word or phrase as a whole, whatever its case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def count_matches(pattern: str, text: str) -> int:
    """Count the places where a pattern matches; ``^`` matches at each line."""
    return len(re.findall(pattern, text, re.MULTILINE))


def parts_between(text: str, pattern: str) -> list[str]:
    """Split a text at a pattern; [] where a part is empty, other than the first and the last."""
    parts = [part.strip() for part in re.split(pattern, text)]
    return [part for part in parts if part] if all(parts[1:-1]) else []


def first_word_of_paragraph(text: str, settings: Details) -> bool:
    """Tell whether the right paragraph, of the right number of them, begins with a word."""
    parts = [part.strip() for part in re.split(r"\n\n", text) if part.strip()]
    if len(parts) != settings["num_paragraphs"] or settings["nth_paragraph"] > len(parts):
        return False
    first = parts[settings["nth_paragraph"] - 1].split()[0]
    return bool(first.strip(punctuation).lower() == settings["first_word"].lower())


def highlights(text: str) -> list[str]:
    """Return what is marked by single or double asterisks."""
    marks = re.findall(r"\*[^\n*]*\*", text) + re.findall(r"\*\*[^\n*]*\*\*", text)
    return [mark for mark in marks if mark.strip("* ")]


def is_json(text: str) -> bool:
    """Tell whether a text is JSON, be it in a fence of Markdown."""
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)```", text.strip(), re.DOTALL | re.IGNORECASE)
    try:
        json.loads(fenced[1] if fenced else text)
    except ValueError:
        return False
    return True


def has_postscript(text: str, marker: str) -> bool:
    """Tell whether a text has a marker such as "P.S.", whose dots may stand apart."""
    letters = [letter for letter in marker.lower() if letter.isalpha()]
    dotted = r"\.\s?".join(map(re.escape, letters)) if set(letters) == {"p", "s"} else ""
    return re.search(dotted or re.escape(marker), text, re.IGNORECASE) is not None


CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

INSTRUCTIONS: dict[str, Callable[[str, Details], bool]] = {
    "keywords:existence": lambda text, s: all(k.lower() in text.lower() for k in s["keywords"]),
    "keywords:frequency": lambda text, s: compare_count(
        text.lower().count(s["keyword"].lower()), s, "frequency"
    ),
    "keywords:forbidden_words": lambda text, s: (
        not any(contains_word(text, word) for word in s["forbidden_words"])
    ),
    "keywords:letter_frequency": lambda text, s: compare_count(
        text.lower().count(s["letter"].lower()), s, "let_frequency", "let_relation"
    ),
    "length_constraints:number_words": lambda text, s: compare_count(
        len(words(text)), s, "num_words"
    ),
    "length_constraints:number_sentences": lambda text, s: compare_count(
        len(sentences(text)), s, "num_sentences"
    ),
    "length_constraints:number_paragraphs": lambda text, s: (
        len(parts_between(text, r"\s?\*\*\*\s?")) == s["num_paragraphs"]
    ),
    "length_constraints:nth_paragraph_first_word": first_word_of_paragraph,
    "detectable_content:number_placeholders": lambda text, s: (
        count_matches(r"\[.*?\]", text) >= s["num_placeholders"]
    ),
    "detectable_content:postscript": lambda text, s: has_postscript(text, s["postscript_marker"]),
    "detectable_format:number_bullet_lists": lambda text, s: (
        count_matches(r"^\s*(?:\*[^*]|-)", text) == s["num_bullets"]
    ),
    "detectable_format:number_highlighted_sections": lambda text, s: (
        len(highlights(text)) >= s["num_highlights"]
    ),
    "detectable_format:multiple_sections": lambda text, s: (
        count_matches(rf"{re.escape(s['section_spliter'])}\s?\d+", text) >= s["num_sections"]
    ),
    "detectable_format:constrained_response": lambda text, s: any(a in text for a in CONSTRAINED),
    "detectable_format:json_format": lambda text, s: is_json(text),
    "detectable_format:title": lambda text, s: any(
        title.strip("<> ") for title in re.findall(r"<<[^\n]+>>", text)
    ),
    "combination:two_responses": lambda text, s: (
        len(parts := parts_between(text, r"\*{6}")) == 2 and parts[0] != parts[1]
    ),
    "combination:repeat_prompt": lambda text, s: (
        text.strip().lower().startswith(s["prompt_to_repeat"].strip().lower())
    ),
    "startend:end_checker": lambda text, s: (
        text.strip().strip('"').lower().endswith(s["end_phrase"].strip().lower())
    ),
    "startend:quotation": lambda text, s: re.fullmatch(r'".*"', text.strip(), re.S) is not None,
    "change_case:capital_word_frequency": lambda text, s: compare_count(
        sum(word.isupper() for word in words(text)), s, "capital_frequency", "capital_relation"
    ),
    "change_case:english_capital": lambda text, s: text.isupper(),
    "change_case:english_lowercase": lambda text, s: text.islower(),
    "punctuation:no_comma": lambda text, s: "," not in text,
}
"""The instructions that are checked, by IFEval's names."""


# -- numbers ---------------------------------------------------------------------------------------

NUMBER = re.compile(r"-?\$?\s?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:\s?/\s?\d+)?(?!\d)")
LEADS: Sequence[str] = (r"####", r"\\boxed\{", r"answer\s*(?:is|:|=)\s*")


def number(text: str) -> Fraction | None:
    r"""Return the number that a text answers with.

    It is the one behind the last ``####``, else the last ``\boxed{``, else the last "answer is",
    else the last number of the text. Thousands may be set off by commas; currency signs, units and
    a full stop behind it are ignored.
    """
    for lead in LEADS:
        places = [match.end() for match in re.finditer(lead, text, re.IGNORECASE)]
        found = numbers_in(text[places[-1] :]) if places else []
        if found:
            return found[0]
    found = numbers_in(text)
    return found[-1] if found else None


def same_number(details: Details, text: str) -> bool:
    """Return whether an answer names the number of a GSM8K prompt (`Prompt.details`)."""
    wanted = number(details["answer"])
    return wanted is not None and number(text) == wanted


def numbers_in(text: str) -> list[Fraction]:
    """Return all numbers of a text, in their order."""
    found = []
    for match in NUMBER.finditer(text):
        plain = re.sub(r"[$,\s]", "", match[0])
        # A dash behind a letter or a digit is a hyphen or a minus between two numbers.
        if plain.startswith("-") and text[: match.start()][-1:].isalnum():
            plain = plain[1:]
        try:
            found.append(Fraction(plain))
        except (ValueError, ZeroDivisionError):
            continue
    return found
