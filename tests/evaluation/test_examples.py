from __future__ import annotations

from baco_integrations.evaluation.examples import examples
from tests.evaluation.synthetic import records
from tests.evaluation.test_result import result, scored


def shown(base: str, aligned: str, without: str = "") -> list[list[str]]:
    methods = [method for method in result()["methods"] if method["name"] != without]
    found = examples(scored(records()), base, aligned, methods)
    return [[each["method"] for each in example["answers"]] for example in found]


def test_base_aligned_and_the_default_router_answer_three_prompts() -> None:
    assert shown("base", "aligned") == [["base", "aligned", "p-punc"]] * 3
    assert shown("base", "aligned", without="p-punc") == [["base", "aligned", "h"]] * 3


def test_a_model_that_stands_for_both_sides_answers_once() -> None:
    assert shown("aligned", "aligned") == [["aligned", "p-punc"]] * 3
