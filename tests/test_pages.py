"""What cookbook/good_to_know.md and cookbook/real_numbers.md show, runs, and was measured."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.benchmarks import categories, own_prompts
from tests.commands import baco
from tests.pages import ROOT, blocks, commands, said, text, with_models

PAGES = "cookbook/good_to_know.md", "cookbook/real_numbers.md"
BLOCKS = [code for page in PAGES for code in blocks(page, "python")]


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[-1])
def test_python_blocks(code: str) -> None:
    assert said(code) or "assert" in code


@pytest.mark.parametrize("words", [each for page in PAGES for each in commands(page, "baco")])
def test_their_commands_are_there(words: list[str]) -> None:
    assert baco(*words[1:], *(["--help"] if "--help" not in words else [])).stdout


def test_the_command_behind_the_numbers_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [[_, script, *words], _] = commands(PAGES[1], "python")
    assert Path(categories.__file__) == ROOT / script
    smaller = {"smollm2": "org/any-instruct", "runs/table": str(tmp_path), "53": "2"}
    words = [with_models(smaller.get(word, word)) for word in words]
    monkeypatch.setattr(sys, "argv", [script, *words])
    categories.main()
    assert "| p-punc (few-shot) | 0.6 | 0.7 |" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text(page)):
        path, _, anchor = target.partition("#")
        file = ROOT / Path(page).parent / path
        assert file.exists(), target
        titles = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE) if anchor else []
        slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not anchor or anchor in slugs, target


def test_the_labels_give_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [_, [_, *words]] = commands(PAGES[1], "python")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", words)
    own_prompts.main()
    assert capsys.readouterr().out.split("|---|---|---|---|\n")[1] in text(PAGES[1])


def rows(page: str) -> list[list[str]]:
    """Return the rows of a page's tables that have intervals."""
    lines = [line.strip(" |") for line in text(page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")] for line in lines if " [" in line]


def test_real_numbers_are_those_of_the_results() -> None:
    measured = rows("tests/benchmarks/RESULTS.md")
    shown = rows(PAGES[1])
    assert len(shown) == 21
    for row in shown:
        [found] = [other for other in measured if is_part(row, other)]
        assert found[0] == row[0]


def is_part(row: list[str], whole: list[str]) -> bool:
    """Whether a row's cells stand in another one, in this order."""
    left = iter(whole)
    return all(cell in left for cell in row)


def test_the_readme_quotes_the_page() -> None:
    page, readme = (" ".join(text(name).split()) for name in (PAGES[1], "README.md"))
    [quoted] = re.findall(r"On SmolLM2 135M as both sides, (.*?) \(\[real", readme)
    numbers = re.findall(r"\d+ %|\d\.\d\d", quoted)
    assert numbers == ["62 %", "2.26", "32 %", "0.92", "12 %", "25 %"]
    assert "| aligned | 0.25 [" in page and "| p-punc, gamma 0.6 | 0.12 [" in page
    assert "62 % valid answers where aligned has 32 %" in page
    assert "2.26 different ones of 5 where aligned has 0.92" in page
