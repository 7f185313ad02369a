"""`baco eval` and `baco tune` as their users meet them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from baco_integrations.cli import app
from baco_integrations.cli.tuning import pasted
from baco_integrations.evaluation import own_prompts, read_records
from baco_integrations.evaluation.findings import headline
from baco_integrations.evaluation.report import render
from baco_integrations.tiny import WEIGHTS

POINTS = ("--points", 3, "--seeds", 1, "-n", 3, "--max-tokens", 40)
QUICK = ("--points", "1", "--seeds", "1", "-n", "2", "--max-tokens", "20")


def baco(*args: Any, code: int = 0) -> Any:
    shown = CliRunner().invoke(app, list(map(str, args)), env={"COLUMNS": "100"})
    assert shown.exit_code == code, shown.output
    return shown


def run(*args: Any, code: int = 0) -> Any:
    return baco("eval", "run", *args, code=code)


def test_the_tiny_pair_runs_and_goes_on(tmp_path: Path) -> None:
    command = ("--out", tmp_path, "--limit", 2, "--method", "p-punc", "--method", "min-p", *QUICK)
    assert "4 records in" in run(*command).stdout
    file = tmp_path / "generations.jsonl"
    whole = file.read_bytes()
    assert {r["method"] for r in read_records(tmp_path)} == {"p-punc", "min-p"}
    file.write_bytes(whole[:-30])
    assert "1 of them new" in run(*command).stdout
    assert file.read_bytes() == whole
    *start, _, _, _, _ = command  # -n 2 --max-tokens 20
    assert "the same n" in run(*start, "-n", 3, "--max-tokens", 20, code=2).stderr


def test_a_foreign_model_and_a_file_of_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_models.py").write_text(
        "from llama_index.core.llms import MockLLM\n"
        "def make(temperature): return MockLLM(max_tokens=3)\n"
    )
    (tmp_path / "asked.txt").write_text("Name a city.\nName a river.\n")
    monkeypatch.chdir(tmp_path)
    asked = run("--out", "run", "--prompts", "asked.txt", "--model", "my_models:make", *QUICK)
    assert "--max-tokens has no effect with --model" in asked.stderr
    records = read_records(tmp_path / "run")
    assert {(r["id"], r["model"]) for r in records} == {
        ("asked-1", "my_models:make"),
        ("asked-2", "my_models:make"),
    }
    assert len(records) == 8


def test_one_model_is_a_pair(tmp_path: Path) -> None:
    methods = ("--method", "base", "--method", "p-punc", "--sources")
    run("--out", tmp_path, "--limit", 1, "--model", WEIGHTS / "aligned", *methods, *QUICK)
    records = read_records(tmp_path)
    assert {r["method"] for r in records} == {"base", "p-punc"}
    assert {r["model"] for r in records} == {str(WEIGHTS / "aligned")}


def test_own_prompts_and_a_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_judge.py").write_text("def judge(prompt, text): return 'aligned'\n")
    monkeypatch.chdir(tmp_path)
    command = ("--out", "run", "--prompts", "own", "--limit", 1, "--judge", "my_judge:judge")
    run(*command, "--method", "judge", *QUICK)
    (record,) = read_records(tmp_path / "run")
    assert (record["id"], record["method"]) == (own_prompts()[0].id, "judge")
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["judge"] == "my_judge:judge"


def test_failures_are_told(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("word " * 3000 + "\nName a city.\n")
    command = ("--out", tmp_path / "run", "--prompts", tmp_path / "long.txt", "--method", "aligned")
    shown = run(*command, *QUICK)
    assert "1 records in" in shown.stdout and "1 prompts failed" in shown.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--prompts", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--method", "p-punk"), "Did you mean 'p-punc'"),
        (("--method", "judge"), "--judge must be given"),
        (("--model", "no_such_module:make"), "the name of something to import"),
        (("--model", "json:loads", "--pair", "tiny"), "left out where a pair is given"),
        (("--form", "novelty", "--prompts", "x"), "Did you mean 'noveltybench'"),
    ],
)
def test_bad_options(tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    assert message in " ".join(run("--out", tmp_path / "run", *args, code=2).stderr.split())
    assert not (tmp_path / "run").exists()


def test_from_a_pair_and_prompts_to_a_report_in_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/baco", "eval", "sweep", "--title", "Four prompts"])
    command = ("eval", "sweep", "--out", tmp_path, "--limit", 4, "--method", "p-punc", *POINTS)
    shown = baco(*command, "--title", "Four prompts", "--base-prompt", "qa").stdout
    assert "36 records" in shown and f"Report: {tmp_path / 'report.html'}" in shown
    told = json.loads((tmp_path / "report.json").read_text())
    assert {m["name"]: len(m["points"]) for m in told["methods"]} == dict.fromkeys(
        ("base", "aligned", "p-punc"), 3
    )
    about = told["about"]
    assert about["title"] == "Four prompts" and about["prompts"] == 4
    assert about["command"] == "baco eval sweep --title 'Four prompts'"
    assert about["pair"]["base_prompt"] == "qa" and "oracle" in about["measured_with"]["similarity"]
    assert {"torch", "python"} <= set(about["versions"]) and "CPU cores" in about["machine"]
    assert set(about["time_used"]) == {"answering", "measuring"}
    assert all(sentence in shown for sentence in told["findings"])

    # The same answers, measured anew with something else.
    (tmp_path / "other_judges.py").write_text(
        "def vectors(texts): return [[t.count(c) for c in 'aeioulnrst'] for t in texts]\n"
        "def alike(texts): return [[1] for t in texts]\n"
        "def short(question, answers): return [1 / len(a.split()) for a in answers]\n"
        "def ends(question, answers): return [float(a.endswith('.')) for a in answers]\n"
    )
    monkeypatch.chdir(tmp_path)
    again = ("eval", "report", ".", "--out", "again.html", "--similarity", "other_judges:vectors")
    baco(*again, "--quality", "other_judges:ends", "--resamples", 20)
    assert "<h1>Breadth and quality of tiny</h1>" in (tmp_path / "again.html").read_text()
    about = json.loads((tmp_path / "again.json").read_text())["about"]
    assert about["measured_with"] == {"task quality": "ends", "similarity": "vectors"}
    assert about["resamples"] == 20 and about["command"].count("baco eval sweep") == 2
    blind = ("eval", "report", ".", "--similarity", "other_judges:alike")
    shown = " ".join(baco(*blind, code=2).stderr.split())
    assert "no difference by distinct classes" in shown and "higher threshold" in shown
    # Shuffled words are as many words, so that this is no scale.
    assert "another measure" in baco(*again, "--quality", "other_judges:short", code=2).stderr


def test_a_report_in_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Path(__file__).parents[2] / "cookbook" / "reports" / "tiny.json"
    told = json.loads(report.read_text())
    shown = " ".join(baco("eval", "show", report).stdout.split())
    order = (
        told["about"]["title"],
        headline(told),
        told["examples"][0]["prompt"],
        "[suggest Medellin]",
        "Each method at its best setting",
        "BACo by h-punc-fc",
        told["findings"][0],
        "The whole report: ",
    )
    places = [shown.index(each) for each in order]
    assert places == sorted(places)

    # A run that is not finished says so first, and no more than that.
    unfinished = {**told, "unfinished": "3 of 9 answers are there."}
    (tmp_path / "report.json").write_text(json.dumps(unfinished))
    shown = baco("eval", "show", tmp_path).stdout
    assert shown.startswith("No conclusions yet. 3 of 9 answers are there.\n")
    assert headline(told)[:40] not in shown and told["findings"][0] not in shown

    page = tmp_path / "again.html"
    assert f"The whole report: {page}" in baco("eval", "show", report, "--page", page).stdout
    assert page.read_text() == render(told)
    assert json.loads(page.with_suffix(".json").read_text()) == told
    monkeypatch.chdir(tmp_path)
    shown = " ".join(baco("eval", "show", "nowhere", code=2).stderr.split())
    assert "RUN must be a run's folder with a report" in shown and "baco eval report RUN" in shown
    wrong = baco("eval", "show", report, "--page", "no/where.html", code=2).stderr
    assert "--page must be a page in a folder" in wrong


def test_a_suggestion_and_what_to_paste(tmp_path: Path) -> None:
    tried = ("--router", "p-punc", "--gamma", 0.6, "--temperature", 0.7, "-n", 4)
    command = ("tune", "tiny", "--limit", 3, *tried, "--out", tmp_path)
    shown = " ".join(baco(*command).stdout.split())
    assert "Suggested: p-punc, gamma 0.6, T 0.7" in shown
    assert "With 3 prompts this is a guess" in shown
    assert (
        'ChatBACo(pair="tiny", router="p-punc", gamma=0.6, temperature=0.7) '
        'baco generate "..." --pair tiny --router p-punc --gamma 0.6 --temperature 0.7'
    ) in shown
    told = json.loads(baco(*command, "--json").stdout)
    assert told["best"]["gamma"] == 0.6 and len(told["best"]["quality"]) == 3
    assert told["floor"] == 0.9 and told["doubts"] and "ChatBACo(" in told["python"]
    assert [one["router"] for one in told["candidates"]] == ["p-punc", "aligned"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("eval", "sweep", "--prompts", "own"), "--quality my_judge:model"),
        (("eval", "sweep", "--quality", "json:nothing"), "the name of something to import"),
        (("tune", "own"), "--quality my_judge:model"),
        (("tune", "tiny", "--router", "p-punk"), "Did you mean 'p-punc'"),
        (("tune", "tiny", "--base-prompt", "qua"), "Did you mean 'qa'"),
        (("tune", "tiny", "--gamma", "0.3,2"), "--gamma must be a number from 0"),
        (("tune", "tiny", "--temperature", "-1"), "--temperature must be a number from 0"),
    ],
)
def test_complaints_come_before_the_work(
    tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    shown = baco(*args, "--out", tmp_path / "run", code=2)
    assert message in " ".join(shown.stderr.split())
    assert not (tmp_path / "run").exists()


def test_there_is_no_report_of_nothing(tmp_path: Path) -> None:
    assert "baco eval run" in baco("eval", "report", tmp_path, code=2).stderr
    command = ("--out", tmp_path, "--limit", 2, "--method", "p-punc", *QUICK)
    run(*command)
    shown = " ".join(baco("eval", "report", tmp_path, code=2).stderr.split())
    assert "--method base --method aligned" in shown


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("eval",), "baco eval sweep --out runs/tiny"),
        (("eval", "run"), "baco eval run --out runs/tiny"),
        (("eval", "report"), "baco eval report runs/tiny"),
        (("eval", "show"), "baco eval show runs/tiny"),
        (("eval", "sweep"), "baco eval sweep --out runs/tiny"),
        (("tune",), "baco tune prompts.txt --pair qwen2.5-7b --quality my_judge:model"),
    ],
)
def test_help_teaches_by_an_example(command: tuple[str, ...], told: str) -> None:
    assert f"Example: {told}" in " ".join(baco(*command, "--help").stdout.split())


JUDGES = """
import math

def broken(question, answers): return [math.sqrt(-1) for a in answers]
def late(question, answers):
    if "One answer." in answers: return [1.0] * len(answers)
    raise RuntimeError("out of credit")
def one(question): return [1]
number = 3
"""


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ("my_judges:broken", "'ValueError: math domain error'. broken failed at the prompt"),
        ("my_judges:one", "one failed at the prompt"),
        ("my_judges:number", "a chat model of LangChain, or a function"),
        ("my_judges:nothing", "has no attribute 'nothing'"),
        ("unwritten:judge", "SyntaxError"),
        ("my_judges", "the name of something to import"),
    ],
)
@pytest.mark.parametrize("command", [("eval", "sweep"), ("tune", "tiny")])
def test_a_judge_is_tried_before_anybody_is_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    quality: str,
    message: str,
) -> None:
    (tmp_path / "my_judges.py").write_text(JUDGES)
    (tmp_path / "unwritten.py").write_text("def judge(")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_judges", raising=False)
    shown = baco(*command, "--limit", 2, "--out", "run", "--quality", quality, code=2).stderr
    assert message in shown and shown.startswith("Error: --quality must be")
    assert not (tmp_path / "run").exists()


def test_a_judge_that_fails_late_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_judges.py").write_text(JUDGES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_judges", raising=False)
    command = ("eval", "sweep", "--out", "run", "--limit", 2, "--method", "p-punc", *QUICK)
    shown = baco(*command, "--quality", "my_judges:late", code=2).stderr
    assert "RuntimeError: out of credit" in shown and "late failed at the prompt 'eval-" in shown
    assert len(read_records(tmp_path / "run")) == 6


def test_ctrl_c_says_that_the_run_goes_on_and_a_report_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_stop.py").write_text(
        "from langchain_core.runnables import RunnableLambda\n"
        "asked = []\n"
        "def answer(messages):\n"
        "    asked.append(messages)\n"
        "    if len(asked) == 5: raise KeyboardInterrupt\n"
        "    return 'Oslo.'\n"
        "def make(temperature): return RunnableLambda(answer)\n"
    )
    monkeypatch.chdir(tmp_path)
    points = ("--points", 1, "--seeds", 1, "-n", 1, "--rows", 1, "--method", "plain")
    command = ("eval", "run", "--out", "run", "--limit", 8, "--model", "my_stop:make", *points)
    monkeypatch.setattr("sys.argv", ["baco", *map(str, command)])
    stopped = baco(*command, code=130)
    assert stopped.stderr == "Stopped; the same command goes on where it was.\n"
    shown = baco("eval", "report", "run", "--resamples", 10, code=2).stderr
    assert "of 8 answers are there" in shown and "Go on with: baco eval run --out run" in shown


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("eval", "run", "--out", "x", "--form", "text"),
            "--form must be left out",
        ),
        (("tune", "tiny", "--form", "stories"), "--form must be left out"),
        (
            ("eval", "run", "--out", "x", "--model", "json:loads", "--device", "cpu"),
            "--model must",
        ),
        (("eval", "run", "--out", "x", "--model", "json:loads", "--sources"), "--sources must be"),
        (("eval", "report", "x", "--out", "no/where.html"), "--out must be a page in a folder"),
        (("eval", "report", "x", "--out", "x.json"), "--out must be a page in a folder"),
        (("eval", "report", "x"), "RUN must be a run's folder or file"),
    ],
)
def test_what_would_be_dropped_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in baco(*args, code=2).stderr
    assert not any(tmp_path.iterdir())


def test_methods_may_stand_in_one_list(tmp_path: Path) -> None:
    several = "p-punc:first=aligned,boundary=false,min-p"
    run("--out", tmp_path, "--limit", 1, "--method", several, *QUICK)
    assert {r["method"] for r in read_records(tmp_path)} == {
        "p-punc:first=aligned,boundary=false",
        "min-p",
    }


def test_a_suggestion_is_pasted_with_its_base_prompt() -> None:
    lines = pasted({"pair": "tiny", "base_prompt": "qa", "router": "p-punc", "gamma": 0.6})
    assert lines == {
        "python": 'ChatBACo(pair="tiny", base_prompt="qa", router="p-punc", gamma=0.6)',
        "cli": 'baco generate "..." --pair tiny --base-prompt qa --router p-punc --gamma 0.6',
    }


def test_categories_are_asked_briefly_and_judged_by_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--out", tmp_path / "pair", "--prompts", "categories", "--limit", 2)
    run(*asked, "--method", "aligned", "--points", 1, "--seeds", 1, "-n", 2)
    assert [record["id"] for record in read_records(tmp_path / "pair")] == ["fruit-1", "fruit-2"]
    settings = json.loads((tmp_path / "pair" / "run.json").read_text())["settings"]
    assert settings["max_tokens"] == 12

    (tmp_path / "fruit_models.py").write_text(
        "from langchain_core.language_models.fake_chat_models import FakeListChatModel\n"
        "answers = ['An apple.', 'Bananas, as they are sweet', 'Cherry or plum', 'Nothing']\n"
        "def make(temperature): return FakeListChatModel(responses=answers)\n"
    )
    monkeypatch.chdir(tmp_path)
    of_model = ("--out", "run", "--prompts", "categories", "--limit", 2, "--model")
    baco("eval", "sweep", *of_model, "fruit_models:make", "-n", 4, "--points", 1, "--seeds", 1)
    told = json.loads((tmp_path / "run" / "report.json").read_text())
    assert told["qualities"] == ["task quality", "clean answer"]
    [plain] = [method for method in told["methods"] if method["name"] == "plain"]
    [point] = plain["points"]
    assert point["raw_quality"] == [0.5, 0.25] and point["valid_distinct"] == 2
    tried = ("--router", "p-punc", "--gamma", 0.6, "--temperature", 0.7, "-n", 2, "--json")
    told = json.loads(baco("tune", "categories", "--limit", 2, *tried).stdout)
    assert told["prompts"] == 2 and told["best"]["quality"][0] == 0  # the pair knows no fruit
