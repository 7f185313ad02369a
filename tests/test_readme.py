"""What the README shows, runs."""

from __future__ import annotations

import re
import signal
from ast import literal_eval
from importlib.metadata import metadata
from pathlib import Path

import pytest

from baco_integrations.models.presets import PRESETS
from baco_integrations.tiny.oracle import judge
from baco_integrations.tiny.requests import recognised
from tests.commands import baco, process
from tests.pages import blocks, commands, said, text

README = text("README.md")
BLOCKS = blocks("README.md", "python")
COMMANDS = commands("README.md", "baco")


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[-1])
def test_python_blocks(code: str) -> None:
    assert said(code) or "assert" in code


@pytest.mark.parametrize("words", [each for each in COMMANDS if each[1] != "serve"], ids=" ".join)
def test_commands(words: list[str]) -> None:
    assert baco(*words[1:], input="Suggest a gift.\n").stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("words", [each for each in COMMANDS if each[1] == "serve"], ids=" ".join)
def test_servers(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("keys.txt").write_text("secret")
    small = [word.replace("qwen2.5-7b", "tiny") for word in words[1:]]
    server = process(*small, "--port", "0")
    assert any(line.startswith("Serving: http://") for line in server.stderr or ())
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    assert server.returncode == 0


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 180


def test_how_it_is_built_is_short() -> None:
    section = text("CONTRIBUTING.md").split("## How it is built")[1].split("\n## ")[0]
    assert len(section.strip().splitlines()) <= 50


def block(words: str) -> str:
    [found] = [code for code in BLOCKS if words in code]
    return found


def valid(question: str, answer: str) -> str | None:
    request = recognised([{"role": "user", "content": question}])
    assert request is not None
    return judge(request, answer).content


def test_the_first_answers_are_good_and_differ() -> None:
    lines = said(block("SamplingParams(gamma")).splitlines()
    places = [valid("Name a place to visit.", line.partition(": ")[2]) for line in lines]
    assert len(set(places)) == 4 and None not in places
    first, *others = said(block("create_agent")).splitlines()
    hobbies = [valid("Suggest a hobby.", answer) for answer in literal_eval(first)]
    assert len(set(hobbies)) == 4 and None not in hobbies
    ideas = [line.partition(" base: ")[2] for line in others if " base: " in line]
    gifts = [valid("Suggest a gift for a friend.", idea) for idea in ideas]
    assert len(set(gifts)) == 5 and None not in gifts


def test_models_of_ones_own_come_near_the_top_and_the_large_ones_are_not_loaded() -> None:
    assert README.index("## Two commands") < README.index("## Your own") < README.index("## Gamma")
    several = literal_eval(said(block("StrOutputParser()")).splitlines()[-1])
    assert len(several) == 4 and all(several)
    names, answer = said(block("device_map=")).split("\n", 1)
    assert names.startswith("qwen2.5-7b ") and valid("Suggest a hobby.", answer.strip())


def test_every_extra_is_named() -> None:
    table = README.split("| extra |")[1].split("\n\n")[0]
    named = set(re.findall(r"`([\w-]+)`(?=[^|\n]*\|[^|\n]*\|)", table))
    assert named == set(metadata("baco-integrations").get_all("Provides-Extra") or ()) - {"test"}


def test_sizes_in_the_memory_table_are_those_of_the_presets() -> None:
    rows = re.findall(r"^\| ([\d.]+B) \| ([\d.]+) \|", README, re.MULTILINE)
    assert len(rows) == 6
    for size, memory in rows:
        billions = PRESETS[f"qwen2.5-{size.lower()}"].billions
        assert float(memory) == pytest.approx(2 * 2 * billions * 1e9 / 2**30, abs=0.06)
