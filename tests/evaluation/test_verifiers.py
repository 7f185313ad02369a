"""Instructions and numbers, case by case."""

from fractions import Fraction
from typing import Any

import pytest

from baco_integrations import BacoError
from baco_integrations.evaluation.verifiers import (
    INSTRUCTIONS,
    adherence,
    follows,
    number,
    same_number,
    sentences,
)

LENGTH, FORMAT, CONTENT = "length_constraints:", "detectable_format:", "detectable_content:"
AT_LEAST, LESS = {"relation": "at least"}, {"relation": "less than"}
JSON = '{"city": "Oslo"}'
CASES: list[tuple[str, dict[str, Any], str, bool]] = [
    ("keywords:existence", {"keywords": ["sea", "fox"]}, "The SEA. A foxglove.", True),
    ("keywords:existence", {"keywords": ["sea", "fox"]}, "The sea.", False),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, **AT_LEAST}, "sea, Sea", True),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, **AT_LEAST}, "sea", False),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, **LESS}, "sea", True),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, **LESS}, "sea sea", False),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "concatenate", True),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "A Cat!", False),
    ("keywords:forbidden_words", {"forbidden_words": ["c++"]}, "I like c++.", False),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 3, "let_relation": "at least"},
     "Eel eel", True),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 4, "let_relation": "less than"},
     "Eel eel", False),
    (LENGTH + "number_words", {"num_words": 3, **AT_LEAST}, "one two, three", True),
    (LENGTH + "number_words", {"num_words": 3, **AT_LEAST}, "one two", False),
    (LENGTH + "number_words", {"num_words": 3, **LESS}, "one two three", False),
    (LENGTH + "number_sentences", {"num_sentences": 2, **AT_LEAST}, 'He said "hi." Then he left.',
     True),
    (LENGTH + "number_sentences", {"num_sentences": 2, **LESS}, "It is 3.5 m. That is all.", False),
    (LENGTH + "number_paragraphs", {"num_paragraphs": 2}, "a\n\n***\n\nb", True),
    (LENGTH + "number_paragraphs", {"num_paragraphs": 2}, "***\na\n***\nb", True),
    (LENGTH + "number_paragraphs", {"num_paragraphs": 2}, "a\n***\n***\nb", False),
    (LENGTH + "number_paragraphs", {"num_paragraphs": 2}, "a\n\nb", False),
    (LENGTH + "nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "so"}, 'a b\n\n"So, c', True),
    (LENGTH + "nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "so"}, "a b\n\nSo c", False),
    (LENGTH + "nth_paragraph_first_word",
     {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "so"}, "a\n\nSo c", False),
    (CONTENT + "number_placeholders", {"num_placeholders": 2}, "[name], [date]", True),
    (CONTENT + "number_placeholders", {"num_placeholders": 2}, "[name]", False),
    (CONTENT + "postscript", {"postscript_marker": "P.S."}, "Bye.\np. s. me", True),
    (CONTENT + "postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S. me", True),
    (CONTENT + "postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.S. me", False),
    (CONTENT + "postscript", {"postscript_marker": "Note:"}, "note: me", True),
    (FORMAT + "number_bullet_lists", {"num_bullets": 2}, "Two:\n* a\n- b", True),
    (FORMAT + "number_bullet_lists", {"num_bullets": 2}, "* a\n* b\n* c", False),
    (FORMAT + "number_bullet_lists", {"num_bullets": 1}, "**bold** first", False),
    (FORMAT + "number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", True),
    (FORMAT + "number_highlighted_sections", {"num_highlights": 2}, "*a* and ****", False),
    (FORMAT + "multiple_sections", {"section_spliter": "Part", "num_sections": 2},
     "Part 1\na\nPart 2\nb", True),
    (FORMAT + "multiple_sections", {"section_spliter": "Part", "num_sections": 2}, "Part 1", False),
    (FORMAT + "constrained_response", {}, "Well. My answer is no.", True),
    (FORMAT + "constrained_response", {}, "My answer is not.", False),
    (FORMAT + "json_format", {}, JSON, True),
    (FORMAT + "json_format", {}, f"```json\n{JSON}\n```", True),
    (FORMAT + "json_format", {}, f"Here: {JSON}", False),
    (FORMAT + "title", {}, "<<The Sea>>\nBlue.", True),
    (FORMAT + "title", {}, "<< >>\nBlue.", False),
    (FORMAT + "title", {}, "<The Sea>", False),
    ("combination:two_responses", {}, "a\n******\nb", True),
    ("combination:two_responses", {}, "a\n******\na", False),
    ("combination:two_responses", {}, "a", False),
    ("combination:two_responses", {}, "a****** ******b", False),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Why so?"}, "why so? Because.", True),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Why so?"}, "Because. Why so?", False),
    ("startend:end_checker", {"end_phrase": "The end."}, 'Done. "THE END."\n', True),
    ("startend:end_checker", {"end_phrase": "The end."}, "The end. Or not.", False),
    ("startend:quotation", {}, ' "a\nb" ', True),
    ("startend:quotation", {}, '"a" b', False),
    ("startend:quotation", {}, '"', False),
    ("change_case:capital_word_frequency",
     {"capital_frequency": 2, "capital_relation": "at least"}, "I say NO", True),
    ("change_case:capital_word_frequency",
     {"capital_frequency": 2, "capital_relation": "less than"}, "I say NO", False),
    ("change_case:english_capital", {}, "ALL OF IT!", True),
    ("change_case:english_capital", {}, "All", False),
    ("change_case:english_lowercase", {}, "all of it, 3", True),
    ("change_case:english_lowercase", {}, "All", False),
    ("punctuation:no_comma", {}, "a; b", True),
    ("punctuation:no_comma", {}, "a, b", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "text", "wanted"), CASES)
def test_instructions(name: str, settings: dict[str, Any], text: str, wanted: bool) -> None:
    assert follows(name, settings, text) is wanted
    assert not follows(name, settings, " ")


def test_every_instruction_has_both_cases() -> None:
    seen = {(name, wanted) for name, _, _, wanted in CASES}
    assert seen == {(name, wanted) for name in INSTRUCTIONS for wanted in (True, False)}


def test_instructions_that_are_not_supported_do_not_count() -> None:
    details = {
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation", "language:other"],
        "kwargs": [{"num_words": None}, {}, {}],
    }
    assert adherence(details, "Sure.") == 0.5 and adherence(details, "Sure, it is.") == 0
    assert adherence({"instruction_id_list": ["language:other"], "kwargs": [{}]}, "a") is None


def test_one_instruction_twice_counts_twice() -> None:
    name = "keywords:existence"
    kwargs = [{"keywords": ["a"]}, {"keywords": ["b"]}]
    assert adherence({"instruction_id_list": [name, name], "kwargs": kwargs}, "a") == 0.5


def test_unknown_instructions_and_missing_settings() -> None:
    with pytest.raises(BacoError, match="Did you mean 'punctuation:no_comma'"):
        follows("punctuation:no_commas", {}, "a")
    with pytest.raises(BacoError, match="settings with 'num_words'"):
        follows(LENGTH + "number_words", {"num_words": None}, "a")
    with pytest.raises(BacoError, match="'less than' or 'at least'"):
        follows(LENGTH + "number_words", {"num_words": 1, "relation": "exactly"}, "a")


def test_sentences() -> None:
    assert len(sentences("One. Two! Three? ... ")) == 3
    assert sentences("") == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("#### 1,234", 1234),
        ("first 7, then\n#### 18 dollars #### 19 ", 19),
        ("The answer is 3/4 of it, not 9.", Fraction(3, 4)),
        ("So \\boxed{-7}. That was step 9.", -7),
        ("He pays $18.50.", Fraction(37, 2)),
        ("10-3=7", 7),
        ("5 - 3 leaves -2", -2),
        ("It costs -$5", -5),
        ("**42**", 42),
        ("100,000,000 apples", 10**8),
        ("in lists 1,23", 23),
        (".5 of it", Fraction(1, 2)),
        ("about 5%", 5),
        ("Answer: $70,000 a year, 365 days", 70_000),
        ("twelve", None),
        ("1/0", None),
        ("", None),
    ],
)
def test_numbers(text: str, wanted: Any) -> None:
    assert number(text) == wanted


def test_numbers_are_compared_by_value() -> None:
    details = {"answer": "18.0 in all\n#### 18"}
    assert same_number(details, "That makes $18.00.")
    assert not same_number(details, "That makes $18.01.")
    assert not same_number(details, "I cannot say.")
