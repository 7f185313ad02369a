"""Every notebook of the cookbook runs on the embedded pair, and says what its saved output says."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode

from tests.notebooks import COOKBOOK, SOURCES, execute

RENEW = "run `python -m tests.notebooks`, and look at what has changed"
UNSTABLE = re.compile(r"0x[0-9a-f]{6}|/(?:home|root|tmp|usr|work)/|\d+(?:\.\d+)? ?(?:s|ms)\b(?! )")


def saved(source: Path) -> NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_notebook(source: Path) -> None:
    assert execute(source).cells == saved(source).cells, RENEW


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_saved_output(source: Path) -> None:
    notebook = saved(source)
    nbformat.validate(notebook)
    assert source.with_suffix(".ipynb").stat().st_size < 40_000
    cells = jupytext.read(source).cells
    assert [each.source for each in notebook.cells] == [each.source for each in cells], RENEW
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", ())]
    assert outputs
    assert not [each for each in outputs if each.get("name") == "stderr"]
    assert not UNSTABLE.search("".join(map(str, outputs)))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_notebook_takes_a_pair(source: Path) -> None:
    assert re.search(r"^# %%\nPAIR = ", source.read_text(), re.MULTILINE)


def test_index_names_all_that_is_there() -> None:
    shown = {file.name for file in COOKBOOK.iterdir() if file.suffix in {".ipynb", ".md"}}
    linked = set(re.findall(r"\]\(([^)#]+)", (COOKBOOK / "README.md").read_text()))
    assert shown - {"README.md"} <= linked
    assert all((COOKBOOK / target).exists() for target in linked)
    assert {file.stem for file in SOURCES} == {file.stem for file in COOKBOOK.glob("*.ipynb")}
