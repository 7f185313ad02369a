"""Categories: what lists say of answers, and that the lists are lists."""

from __future__ import annotations

import pytest

from baco_integrations.core.errors import ParameterError
from baco_integrations.evaluation import (
    CategoryOracle,
    Prompt,
    Question,
    category_prompts,
    find_scorer,
)
from baco_integrations.evaluation.categories import categories, forms, read

ALL = categories()


@pytest.mark.parametrize(
    ("category", "answer", "member"),
    [
        ("fruit", "Apple", "apple"),
        ("fruit", "  an APPLE.\n", "apple"),
        ("fruit", "**Apples**", "apple"),
        ("fruit", "“Kiwifruit”!", "kiwi"),
        ("fruit", "Strawberries", "strawberry"),
        ("fruit", "Mangoes", "mango"),
        ("fruit", "pineapple", "pineapple"),  # not an apple
        ("fruit", "Starfruit", "star fruit"),
        ("fruit", "Açaí", "acai"),
        ("vegetable", "brussels sprouts", "brussels sprout"),
        ("country", "Côte d’Ivoire", "Ivory Coast"),
        ("country", "the U.S.A.", "United States of America"),
        ("country", "Papua New Guinea", "Papua New Guinea"),  # not Guinea
        ("country", "Bosnia & Herzegovina", "Bosnia and Herzegovina"),
        ("capital", "Brasilia", "Brasília"),
        ("capital", "REYKJAVIK", "Reykjavík"),
        ("capital", "Washington, D.C.", "Washington"),
        ("bird", "Geese", "goose"),
        ("bird", "blue jay", "blue jay"),
        ("tree", "Oak tree", "oak"),
        ("cheese", "Gouda cheese", "gouda"),
        ("river", "The River Thames", "Thames"),
        ("programming language", "C++", "C++"),
        ("programming language", "C#", "C#"),
        ("play by Shakespeare", "_A Midsummer Night's Dream_", "A Midsummer Night's Dream"),
        ("president of the United States", "President Lincoln", "Abraham Lincoln"),
        ("composer", "Antonin Dvorak", "Antonín Dvořák"),
        ("Greek letter", "Ω", "omega"),
        ("book of the Bible", "2 Samuel", "2 Samuel"),
        ("item of clothing", "a pair of jeans", "jeans"),
        ("language", "Chinese", "Mandarin"),
        ("month", "May", "May"),
    ],
)
def test_clean_answers(category: str, answer: str, member: str) -> None:
    assert ALL[category].judge(answer) == (True, True, member)


@pytest.mark.parametrize(
    ("category", "answer", "member"),
    [
        ("fruit", "I would say an apple.", "apple"),
        ("fruit", "Apple, as it keeps well", "apple"),
        ("fruit", "1. Apple\n2. Banana\n3. Cherry", "apple"),
        ("fruit", "Apple\n\nQ: Name a vegetable.\nA: Leek", "apple"),
        ("fruit", "Apple, apple, apple", "apple"),
        ("book of the Bible", "1. John\n2. Mark", "John"),  # a list, not an epistle
        ("capital", "Paris, France", "Paris"),
        ("river", "Nile - Africa", "Nile"),
        ("country", "Ivory Coast (Côte d'Ivoire)", "Ivory Coast"),
    ],
)
def test_valid_answers_that_go_on(category: str, answer: str, member: str) -> None:
    assert ALL[category].judge(answer) == (True, False, member)


@pytest.mark.parametrize(
    ("category", "answer"),
    [
        ("fruit", ""),
        ("fruit", " \n"),
        ("fruit", "..."),
        ("fruit", "Carrot"),
        ("fruit", "Apple or banana"),
        ("fruit", "apple, pear"),
        ("fruit", "Here is a fruit:\nApple"),
        ("fruit", "grapevine"),
        ("fruit", "the applecart"),
        ("fruit", "Name one thing that looks like an apple."),
        ("fruit", "Q: What is an apple?"),
        ("capital", "Sydney"),
        ("US state", "New York City"),
        ("country", "New England"),
        ("country", "I ran to go home"),  # neither Iran nor Togo
        ("month", "You may choose"),
        ("president of the United States", "Benjamin Franklin"),
        ("president of the United States", "Jeb Bush"),
        ("board game", "I'm sorry, but I cannot go on"),
        ("chemical element", "carbon dioxide"),
    ],
)
def test_answers_that_are_not_valid(category: str, answer: str) -> None:
    assert ALL[category].judge(answer) == (False, False, None)


def test_names_in_singular_and_plural_as_one_word_or_several() -> None:
    assert forms("cherry") == {"cherry", "cherries", "cherrys"}
    assert {"peaches", "peach"} < forms("peach") and "leaves" in forms("leaf")
    assert {"blue jay", "bluejay", "blue jays", "bluejays"} == forms("Blue-Jay")


def test_every_category_has_two_wordings_and_enough_members() -> None:
    prompts = category_prompts()
    assert len(ALL) >= 40 and len(prompts) == 2 * len(ALL)
    assert len({p.id for p in prompts}) == len({p.text for p in prompts}) == len(prompts)
    for category in ALL.values():
        assert len(set(category.names.values()) - {None}) >= 10, category.name
        assert all(text[-1] == "." for text in category.wordings), category.name
    # Half of the prompts are half of each wording, and every category once.
    half = prompts[::2]
    assert len({prompt.kind for prompt in half}) == len(half)


def test_a_name_of_two_members_is_an_error() -> None:
    assert read("x\nOne.\nTwo.\nx y = z;\nw").names["xy"] == "x y"
    with pytest.raises(ValueError, match="x: 'ant' and 'aunt' are both 'ants'"):
        read("x\nOne.\nTwo.\nant; aunt = ants")


@pytest.mark.parametrize("name", ALL)
def test_every_name_is_a_clean_answer_that_names_its_member(name: str) -> None:
    category = ALL[name]
    for form, member in category.names.items():
        assert category.judge(form.capitalize()) == (member is not None, member is not None, member)


def test_the_lists_measure_answers() -> None:
    prompt = category_prompts()[0]
    assert CategoryOracle().judge(prompt.id, "Figs").content == "fig"
    scorer = find_scorer([prompt])
    question = Question(prompt.id, prompt.text)
    answers = ["Fig", "figs, which are sweet", "Fog"]
    assert [quality(question, answers) for quality in scorer.qualities.values()] == [
        [1, 1, 0],
        [1, 0, 0],
    ]
    assert list(scorer.similarity(question, answers).classes) == [0, 0, -1]
    with pytest.raises(ParameterError, match="nor categories"):
        find_scorer([Prompt(prompt.id, "Name a fig.")])


def test_answers_of_one_word_have_a_scale_although_shuffling_does_nothing_to_them() -> None:
    prompt = category_prompts()[0]
    record = {"prompt": prompt.text, "method": "aligned", "knob": None, "temperature": 1.0}
    row = {"id": prompt.id, "generations": ["Fig", "Pear"], "seed": 0, **record}
    scores = find_scorer([prompt]).measure([row])
    assert scores.quality[0, 0].tolist() == [1, 1] and scores.shuffled.tolist() == [0, 0]
    assert scores.valid_distinct.tolist() == [[2]]
