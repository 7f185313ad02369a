"""What the README shows, runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from baco_integrations.pair.presets import PRESETS
from baco_integrations.pair.tiny.oracle import judge
from baco_integrations.pair.tiny.world import recognised

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_python_blocks(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, str(README), "exec", dont_inherit=True), {"__name__": "__readme__"})
    assert capsys.readouterr().out or "assert" in code


def test_how_it_is_built_is_short() -> None:
    section = README.read_text().split("## How it is built")[1].split("\n## ")[0]
    assert len(section.strip().splitlines()) <= 50


def block(words: str) -> str:
    [found] = [code for code in BLOCKS if words in code]
    return found


def valid(question: str, answer: str) -> str | None:
    request = recognised([{"role": "user", "content": question}])
    assert request is not None
    return judge(request, answer).content


def test_the_first_answers_are_good_and_differ(capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("SamplingParams(gamma"), {})
    lines = capsys.readouterr().out.splitlines()
    places = [valid("Name a place to visit.", line.partition(": ")[2]) for line in lines]
    assert len(set(places)) == 4 and None not in places
    names: dict[str, Any] = {}
    exec(block("StrOutputParser()"), names)
    capsys.readouterr()
    friend, sister = ("Suggest a gift for a friend.", "Suggest a gift for my sister.")
    assert valid(friend, names["chain"].invoke({"whom": "a friend"}))
    gifts = [valid(sister, text) for text in names["chain"].batch([{"whom": "my sister"}] * 4)]
    assert len(set(gifts)) == 4 and None not in gifts


def test_models_of_ones_own_come_near_the_top_and_nothing_is_loaded_for_them() -> None:
    text = README.read_text()
    assert text.index("## Two commands") < text.index("## With your own") < text.index("## First")
    code = block("device_map=")
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["llm"].base == "org/model"


def test_sizes_in_the_memory_table_are_those_of_the_presets() -> None:
    rows = re.findall(r"^\| ([\d.]+B) \| ([\d.]+) \|", README.read_text(), re.MULTILINE)
    assert len(rows) == 6
    for size, memory in rows:
        billions = PRESETS[f"qwen2.5-{size.lower()}"].billions
        assert float(memory) == pytest.approx(2 * 2 * billions * 1e9 / 2**30, abs=0.06)
