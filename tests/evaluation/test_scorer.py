from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from baco_integrations.core.errors import ParameterError
from baco_integrations.evaluation import (
    Prompt,
    Question,
    RewardQuality,
    Settings,
    evaluate,
    find_scorer,
    tiny_prompts,
)
from baco_integrations.evaluation.report import render
from baco_integrations.evaluation.scorer import duration, pair_settings
from tests.evaluation.synthetic import proper, records

QUICK = Settings(resamples=20, splits=2)


def write(folder: Path, rows: Any) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "generations.jsonl").write_text(text)
    return folder


def good(question: Question, answers: list[str]) -> list[float]:
    return [proper(question, answer) for answer in answers]


def test_tiny_prompts_have_an_oracle() -> None:
    prompt = tiny_prompts(1)[0]
    scorer = find_scorer([prompt])
    answers = ["I would suggest Bergen.", "I would suggest Lisbon", "I would suggest Oz."]
    (quality,) = scorer.qualities.values()
    question = Question(prompt.id, prompt.text)
    assert quality(question, answers) == [1, 0, 0]
    assert list(scorer.similarity(question, answers).classes) == [0, 1, -1]
    # The same ids with other words are somebody else's prompts.
    with pytest.raises(ParameterError, match="quality"):
        find_scorer([Prompt(prompt.id, "Name a number.")])


def test_what_others_bring() -> None:
    prompts = [Prompt("a", "Name a city.")]
    question = Question("a", "Name a city.")
    judge = FakeListChatModel(responses=["10"])
    scorer = find_scorer(prompts, DeterministicFakeEmbedding(size=8), judge)
    assert scorer.qualities["task quality"](question, ["Oslo"]) == [1]
    assert scorer.similarity(question, ["Oslo", "Oslo", "Rome"]).vectors.shape[1] >= 8
    assert scorer.described["task quality"] == "FakeListChatModel"
    reward = RewardQuality(lambda prompt, answers: [0.0] * len(answers))
    own = find_scorer(prompts, quality=reward).qualities["task quality"]
    assert own(question, ["Oslo"]) == [0.5]
    with pytest.raises(ParameterError, match="a chat model of LangChain, or a function"):
        find_scorer(prompts, quality="gpt")


def test_own_prompts_without_a_judge_are_told_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="--quality my_judge:model"):
        evaluate(write(tmp_path, records(prompts=2)))


def test_a_model_that_is_no_pair_sets_its_own_scales(tmp_path: Path) -> None:
    given = [{**row, "method": "plain"} for row in records(["base"], prompts=3)]
    given += [{**row, "method": "in-context"} for row in records(["rand"], prompts=3)]
    result = evaluate(write(tmp_path, given), quality=good, settings=QUICK)
    assert result["about"]["base"] == result["about"]["aligned"] == "plain"
    without = [row for row in given if row["method"] != "plain"]
    with pytest.raises(ParameterError, match="--method base --method aligned"):
        evaluate(write(tmp_path, without), quality=good, settings=QUICK)


def test_reports_name_folders_without_the_way_to_them() -> None:
    identity = {"base": "/home/me/base", "aligned": "org/aligned", "adapter": None, "name": "x"}
    assert pair_settings({"settings": {"model": identity}}) == {
        "base": "base",
        "aligned": "org/aligned",
        "name": "x",
    }
    assert pair_settings({"settings": {"model": "chat"}}) == pair_settings({}) == {}


def test_durations() -> None:
    assert [duration(s) for s in (3.4, 89, 120, 4000)] == ["3 s", "89 s", "2 min", "1 h 7 min"]


def manifest(prompts: int, command: str | None) -> dict[str, Any]:
    """What the run.json says of a run of base and aligned, at two temperatures, with two seeds."""
    points = [[None, 0.5], [None, 1.0]]
    settings = {"methods": {"base": points, "aligned": points}, "seeds": [0, 1], "n": 5}
    asked = [{"id": f"q{x}", "text": f"Which city in month {x}?"} for x in range(prompts)]
    return {"settings": settings, "prompts": asked, "command": command}


def test_an_unfinished_run_says_so_first(tmp_path: Path) -> None:
    rows = list(records(["base", "aligned"], prompts=3))
    (tmp_path / "run.json").write_text(json.dumps(manifest(4, "baco eval sweep --out here")))
    result = evaluate(write(tmp_path, rows), quality=good, settings=QUICK)
    told = result["unfinished"]
    assert next(iter(result)) == "unfinished" and result["findings"][0] == told
    assert "120 of 160 answers are there" in told and "Go on with: baco eval sweep" in told
    page = render(result)
    first = page.index("<strong>No conclusions yet.")
    assert first < page.index(told) < page.index("<h1>") and "largest Coverage" not in page

    # What failed is not missing: nobody would answer it again.
    gone = [{**row, "id": "q3"} for row in rows if row["id"] == "q0"]
    failed = [
        {**{k: row[k] for k in ("id", "method", "knob", "temperature", "seed")}} for row in gone
    ]
    (tmp_path / "errors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in failed))
    assert "unfinished" not in evaluate(tmp_path, quality=good, settings=QUICK)


@pytest.mark.parametrize("kept", [0, 3, 13])
def test_too_little_for_a_report_says_how_to_go_on(tmp_path: Path, kept: int) -> None:
    (tmp_path / "run.json").write_text(json.dumps(manifest(3, None)))
    write(tmp_path, list(records(["base", "aligned"], prompts=3))[:kept])
    with pytest.raises(ParameterError, match=r"Go on with: collect\(\.\.\.\) with the same"):
        evaluate(tmp_path, quality=good, settings=QUICK)


def test_measures_are_tried_out() -> None:
    def broken(question: Question, answers: list[str]) -> list[float]:
        raise ZeroDivisionError("by nobody")

    prompt = Prompt("p1", "Name a city.")
    find_scorer([prompt], quality=good).try_out(prompt)
    said = r"got 'ZeroDivisionError: by nobody'\. broken failed at the prompt 'p1'"
    with pytest.raises(ParameterError, match=rf"task quality.*{said}"):
        find_scorer([prompt], quality=broken).try_out(prompt)
    for useless in (
        lambda question: [1],
        lambda question, answers: None,
        lambda q, a: ["good"] * 2,
    ):
        with pytest.raises(ParameterError, match="failed at the prompt 'p1'"):
            find_scorer([prompt], quality=useless).try_out(prompt)
    with pytest.raises(ParameterError, match="a number from 0 to 1 for each answer, got 7"):
        find_scorer([prompt], quality=lambda q, a: [7] * len(a)).try_out(prompt)
    with pytest.raises(ParameterError, match="similarity"):
        find_scorer([prompt], lambda texts: 1 / 0, good).try_out(prompt)
