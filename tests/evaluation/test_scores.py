from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from baco_integrations.core.errors import ParameterError
from baco_integrations.evaluation import OracleQuality, OracleSimilarity, measure
from baco_integrations.evaluation.metrics import NAMES, diversity
from baco_integrations.evaluation.records import Point
from baco_integrations.evaluation.scores import Scores
from baco_integrations.evaluation.similarity import Question
from tests.evaluation.synthetic import city, proper, records

SIMILARITY = OracleSimilarity(city)
QUALITY = {"task quality": OracleQuality(proper)}


def test_every_cell_is_its_records() -> None:
    given = list(records(["aligned", "h"], prompts=3))
    scores = measure(given, SIMILARITY, QUALITY)
    assert scores.methods == ("aligned", "h") and scores.k == 5 and scores.seeds == (0, 1)
    point, prompt = Point("h", 0.8, 1.0), "q2"
    own = [
        r for r in given if (r["method"], r["knob"], r["temperature"], r["id"]) == (*point, prompt)
    ]
    assert len(own) == 2
    where = scores.points.index(point), scores.prompts.index(prompt)
    rows, valid, found = [], [], []
    for record in own:
        answers = record["generations"]
        rows.append(diversity(answers, *SIMILARITY(Question(prompt, ""), answers)))
        good = [answer for answer in answers if proper(Question(prompt, ""), answer)]
        valid.append(len(good) / 5)
        found.append(len({city(Question(prompt, ""), answer) for answer in good}))
    assert scores.diversity[where] == pytest.approx(np.mean(rows, 0))
    assert scores.quality[where] == pytest.approx(np.mean(valid))
    assert scores.valid[where] == pytest.approx(np.mean(valid))
    assert scores.valid_distinct[where] == np.mean(found)
    assert scores.costs["tokens"][where[0]] == 30
    assert scores.diversity.shape == (6, 3, len(NAMES))


def test_the_lower_anchors() -> None:
    scores = measure(records(["aligned"], prompts=2), SIMILARITY, QUALITY)
    same = ["I would go to Oslo."] * 5
    assert scores.identical == pytest.approx(diversity(same, *SIMILARITY(Question("", ""), same)))
    assert 0 <= scores.shuffled[0] < 1  # five words rarely fall back into their order


def test_objects_are_records_too_and_a_later_record_replaces_an_earlier_one() -> None:
    given = list(records(["aligned"], prompts=2))
    wrong = {**given[0], "generations": ["x"] * 5}
    scores = measure([wrong, *(SimpleNamespace(**r) for r in given)], SIMILARITY, QUALITY)
    assert (scores.valid == 1).all()


def test_incomplete_prompts_are_left_out_for_all() -> None:
    given = list(records(["aligned", "base"], prompts=3))
    cut = [r for r in given if (r["id"], r["method"], r["seed"]) != ("q1", "base", 1)]
    scores = measure(cut, SIMILARITY, QUALITY)
    assert scores.prompts == ("q0", "q2") and scores.left_out == 1
    with pytest.raises(ParameterError, match="complete for at least one prompt"):
        measure(
            [r for r in given if (r["seed"] == 0) or r["method"] == "base"], SIMILARITY, QUALITY
        )


def error(given: Any, quality: Any = QUALITY) -> str:
    with pytest.raises(ParameterError) as caught:
        measure(given, SIMILARITY, quality)
    return str(caught.value)


def test_what_cannot_be_measured_is_refused() -> None:
    given = list(records(["aligned"], prompts=1))
    assert "at least one record" in error([])
    assert "with the method 'aligned'" in error(list(records(["base"])))
    assert "one number of generations" in error(
        [{**r, "generations": ["x"] * (3 + r["seed"])} for r in given]
    )
    assert "records with 'knob'" in error([{k: v for k, v in given[0].items() if k != "knob"}])
    assert "qualities must be at least one" in error(given, {})
    assert "number from 0 to 1" in error(given, {"reward": OracleQuality(lambda q, a: 3.5)})
    assert "2 numbers for" in error(given, {"reward": lambda question, answers: [0.5] * 2})


def test_each_answer_is_judged_once_for_all_methods() -> None:
    seen: list[str] = []

    def judge(question: Question, answer: str) -> float:
        seen.append(question.id + answer)
        return proper(question, answer)

    scores: Scores = measure(records(prompts=2), SIMILARITY, {"task quality": OracleQuality(judge)})
    assert len(seen) == len(set(seen)) < len(scores.points) * 2 * 2 * 5
