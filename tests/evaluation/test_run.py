"""Runs: their records, and that an interrupted one goes on to the same bytes."""

from __future__ import annotations

import json
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from baco_integrations import BacoError, ModelPair
from baco_integrations.evaluation import (
    METHODS,
    Judge,
    Prompt,
    Sweep,
    collect,
    read_records,
    tiny_prompts,
)
from baco_integrations.evaluation.run import Outcome
from tests.evaluation.worlds import PROMPTS, cities

KEYS = (
    *("id", "prompt", "model", "generations", "method", "knob", "temperature", "seed"),
    *("base_share", "switches", "tokens", "forwards", "seconds"),
)
SMALL: dict[str, Any] = {
    "methods": ("p-punc", "aligned", "ensemble", "in-context"),
    "sweep": Sweep(3),
    "seeds": (0,),
    "n": 2,
    "rows": 1,  # batches of two prompts
}


def small(out: Path, **changes: Any) -> Outcome:
    return collect(cities(), PROMPTS, out, **{**SMALL, **changes})


def content(folder: Path) -> bytes:
    return (folder / "generations.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    outcome = small(folder)
    assert outcome[:3] == (48, 48, 0)
    return folder


def test_records_say_all_that_was_agreed(whole: Path) -> None:
    records = read_records(whole)
    assert len(records) == 4 * 3 * len(PROMPTS)
    assert all(tuple(record) == KEYS and record["seconds"] is not None for record in records)
    assert all(len(record["generations"]) == 2 for record in records)
    by_method = {name: [r for r in records if r["method"] == name] for name in SMALL["methods"]}
    assert {r["base_share"] for r in by_method["aligned"]} == {0.0}
    assert {r["forwards"] for r in by_method["in-context"]} == {1.0}
    assert {r["forwards"] for r in by_method["ensemble"]} == {2.0}
    assert {r["switches"] for r in by_method["ensemble"]} == {None}
    assert {r["knob"] for r in by_method["p-punc"]} == {0.0, 0.5, 1.0}
    assert {r["tokens"] for r in records} == {6}  # a city, a full stop and an end, twice
    gamma_1 = [r for r in by_method["p-punc"] if r["knob"] == 1]
    assert {r["base_share"] for r in gamma_1} == {0.333333}  # the city
    assert {r["switches"] for r in gamma_1} == {33.3333}


def test_gamma_0_weight_0_and_aligned_are_one(tmp_path: Path) -> None:
    whole = tmp_path / "run"
    small(whole, sweep=Sweep(5), seeds=(0, 1), rows=64)
    at = {
        method: {
            (r["id"], r["seed"]): r["generations"]
            for r in read_records(whole)
            if (r["method"], r["knob"], r["temperature"]) == (method, knob, 1.3)
        }
        for method, knob in (("p-punc", 0.0), ("ensemble", 0.0), ("aligned", None))
    }
    assert at["p-punc"] == at["ensemble"] == at["aligned"]
    zero, one = ([v for (_, seed), v in at["aligned"].items() if seed == s] for s in (0, 1))
    assert zero != one


def test_the_same_settings_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    small(tmp_path / "again")
    assert content(tmp_path / "again") == content(whole)
    assert small(tmp_path / "again")[:3] == (48, 0, 0)
    assert content(tmp_path / "again") == content(whole)


@pytest.mark.parametrize("lines", [0, 1, 2, 25, 47])
@pytest.mark.parametrize("torn", [0, 25])
def test_a_killed_run_goes_on_to_the_same_bytes(
    whole: Path, tmp_path: Path, lines: int, torn: int
) -> None:
    """Killed in the middle of a line, or between lines, of either file."""
    kept = content(whole).splitlines(keepends=True)
    for name in ("run.json", "errors.jsonl"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    (tmp_path / "generations.jsonl").write_bytes(b"".join(kept[:lines]) + kept[lines][:torn])
    timing = (whole / "timing.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "timing.jsonl").write_bytes(b"".join(timing[:lines]) + timing[lines][:torn])
    assert small(tmp_path)[:3] == (48, 48 - lines, 0)
    assert content(tmp_path) == content(whole)
    assert all(record["seconds"] is not None for record in read_records(tmp_path))


@pytest.mark.parametrize("calls", [1, 7, 20])
def test_a_run_that_broke_goes_on_to_the_same_bytes(
    whole: Path, tmp_path: Path, calls: int
) -> None:
    left = calls

    def stop(done: int, total: int, what: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(tmp_path, progress=stop)
    assert content(whole).startswith(content(tmp_path)) and content(tmp_path) != content(whole)
    small(tmp_path)
    assert content(tmp_path) == content(whole)


def test_real_models_in_single_precision_go_on_to_the_same_bytes(tmp_path: Path) -> None:
    """Batches are answered again as a whole, so that rounding is the same too."""
    settings: dict[str, Any] = {
        "methods": ("h-fc", "ensemble"),
        "sweep": Sweep(1),
        "seeds": (3,),
        "n": 3,
        "max_tokens": 12,
        "rows": 3,
        "sources": True,
    }
    collect(ModelPair.tiny(), tiny_prompts(6), tmp_path / "a", **settings)
    lines = content(tmp_path / "a").splitlines(keepends=True)
    assert len(lines) == 12 and "sources" in json.loads(lines[0])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "generations.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:40])
    collect(ModelPair.tiny(), tiny_prompts(6), tmp_path / "b", **settings)
    assert content(tmp_path / "b") == content(tmp_path / "a")


def test_sources_are_the_text_in_runs(tmp_path: Path) -> None:
    small(tmp_path, methods=("p-punc", "ensemble"), sources=True)
    for record in read_records(tmp_path):
        assert ("sources" in record) is (record["method"] == "p-punc")
        for text, runs in zip(record["generations"], record.get("sources", ()), strict=False):
            assert "".join(piece for _, piece in runs) == text
            assert {source for source, _ in runs} <= {"base", "aligned"}


def test_a_prompt_that_fails_costs_no_other(whole: Path, tmp_path: Path) -> None:
    asked = [PROMPTS[0], Prompt("long", "x" * 9000), Prompt("half", "A \ud835"), PROMPTS[1]]
    settings = {**SMALL, "methods": ("aligned", "in-context")}
    assert collect(cities(), asked, tmp_path, **settings)[:3] == (12, 12, 12)
    errors = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
    told = {(row["id"], row["error"].split(", got")[0]) for row in errors}
    assert {name for name, _ in told} == {"long", "half"}
    assert {text[:35] for _, text in told} == {
        "PromptError: messages must be short",
        "PromptError: messages[0]['content']",
    }
    assert collect(cities(), asked, tmp_path, **settings)[:3] == (12, 0, 12)
    wanted = [r for r in read_records(whole) if r["id"] == "p1" and r["method"] == "aligned"]
    got = [r for r in read_records(tmp_path) if r["id"] == "p1" and r["method"] == "aligned"]
    assert [r["generations"] for r in got] == [r["generations"] for r in wanted]


def test_answers_that_hold_half_a_character(tmp_path: Path) -> None:
    halved = GenericFakeChatModel(messages=cycle([AIMessage("Oslo \ud835")]))
    collect(halved, PROMPTS[:1], tmp_path, methods=("plain",), seeds=(0,), n=2, sweep=Sweep(1))
    assert {tuple(record["generations"]) for record in read_records(tmp_path)} == {
        ("Oslo \ud835",) * 2
    }


def test_other_settings_need_another_folder(whole: Path) -> None:
    with pytest.raises(BacoError, match=r"the same seeds, n\b"):
        small(whole, seeds=(5,), n=3)
    with pytest.raises(BacoError, match="the same prompts"):
        collect(cities(), PROMPTS[:2], whole, **SMALL)


def test_a_file_that_something_else_has_changed(whole: Path, tmp_path: Path) -> None:
    lines = content(whole).splitlines(keepends=True)
    (tmp_path / "generations.jsonl").write_bytes(lines[0] + b"{oops\n" + lines[1])
    with pytest.raises(BacoError, match=r"generations.jsonl, line 2, must be JSON"):
        small(tmp_path)
    with pytest.raises(BacoError, match="a run's folder or file"):
        read_records(tmp_path / "none")


def test_the_judge_is_a_method_like_others(tmp_path: Path) -> None:
    judge = Judge(lambda prompt, text: "base" if not text else "aligned", name="first word")
    small(tmp_path, methods=("judge",), judge=judge)
    records = read_records(tmp_path)
    assert {r["method"] for r in records} == {"judge"} and len(records) == 12
    assert {r["base_share"] for r in records} == {0.333333}
    assert "first word" in (tmp_path / "run.json").read_text()
    with pytest.raises(BacoError, match="judge must be given"):
        small(tmp_path / "other", methods=("judge",))


def test_nothing_is_opened_for_bad_settings(tmp_path: Path) -> None:
    for changes in ({"methods": ("p-punk",)}, {"methods": ("judge",)}, {"n": 0}):
        with pytest.raises(BacoError):
            small(tmp_path / "new", **changes)
    twice = [PROMPTS[0], PROMPTS[0]]
    for prompts in ([], twice):
        with pytest.raises(BacoError, match="prompts with different ids"):
            collect(cities(), prompts, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_all_methods_run(tmp_path: Path) -> None:
    outcome = collect(cities(), PROMPTS[:1], tmp_path, sweep=Sweep(2), seeds=(0,), n=2)
    assert outcome[:3] == (2 * (len(METHODS) - 1), 2 * (len(METHODS) - 1), 0)
