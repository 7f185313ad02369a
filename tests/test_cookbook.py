"""Every script of the cookbook runs, on the embedded pair, without a warning."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = sorted((Path(__file__).parents[1] / "cookbook").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script(script: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(script), run_name="__main__")
    said = capfd.readouterr()
    assert said.out.count("\n") >= 5
    assert said.err == ""
