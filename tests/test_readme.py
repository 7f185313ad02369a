"""What the README shows, runs."""

from __future__ import annotations

import re
from ast import literal_eval
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import metadata
from io import StringIO
from pathlib import Path

import pytest

from baco_integrations.models.presets import PRESETS
from baco_integrations.tiny.oracle import judge
from baco_integrations.tiny.requests import recognised

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@cache
def said(code: str) -> str:
    """Run a block, and return what it prints."""
    with redirect_stdout(StringIO()) as out:
        exec(compile(code, str(README), "exec", dont_inherit=True), {"__name__": "__readme__"})
    return out.getvalue()


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_python_blocks(code: str) -> None:
    assert said(code) or "assert" in code


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


def test_the_first_answers_are_good_and_differ() -> None:
    lines = said(block("SamplingParams(gamma")).splitlines()
    places = [valid("Name a place to visit.", line.partition(": ")[2]) for line in lines]
    assert len(set(places)) == 4 and None not in places
    first, several, _ = said(block("StrOutputParser()")).splitlines()
    assert valid("Suggest a gift for a friend.", first)
    gifts = [valid("Suggest a gift for my sister.", text) for text in literal_eval(several)]
    assert len(set(gifts)) == 4 and None not in gifts


def test_models_of_ones_own_come_near_the_top_and_nothing_is_loaded_for_them() -> None:
    text = README.read_text()
    assert text.index("## Two commands") < text.index("## With your own") < text.index("## First")
    assert said(block("device_map=")) == "org/model|org/model-instruct\n"


def test_every_extra_is_named() -> None:
    table = README.read_text().split("| extra |")[1].split("\n\n")[0]
    named = set(re.findall(r"`([\w-]+)`(?=[^|\n]*\|[^|\n]*\|)", table))
    assert named == set(metadata("baco-integrations").get_all("Provides-Extra") or ()) - {"test"}


def test_sizes_in_the_memory_table_are_those_of_the_presets() -> None:
    rows = re.findall(r"^\| ([\d.]+B) \| ([\d.]+) \|", README.read_text(), re.MULTILINE)
    assert len(rows) == 6
    for size, memory in rows:
        billions = PRESETS[f"qwen2.5-{size.lower()}"].billions
        assert float(memory) == pytest.approx(2 * 2 * billions * 1e9 / 2**30, abs=0.06)
