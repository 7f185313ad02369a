"""What the README shows, runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_python_blocks(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, str(README), "exec", dont_inherit=True), {"__name__": "__readme__"})
    assert capsys.readouterr().out or "assert" in code


def test_how_it_is_built_is_short() -> None:
    section = README.read_text().split("## How it is built")[1].split("\n## ")[0]
    assert len(section.strip().splitlines()) <= 50
