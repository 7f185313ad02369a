"""What cookbook/one_model.md shows: its commands and code run."""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from baco_integrations.tiny import WEIGHTS
from tests.commands import baco

PAGE = (Path(__file__).parents[1] / "cookbook" / "one_model.md").read_text()
PAGE = PAGE.replace("org/any-instruct", str(WEIGHTS / "aligned"))


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return found


def test_its_code_runs() -> None:
    with redirect_stdout(StringIO()) as said:
        exec(block("python"), {"__name__": "__page__"})
    assert "one-model One model is both sides: base is shown" in said.getvalue()
    assert len(re.findall(r"^\d+% base: \w", said.getvalue(), re.MULTILINE)) == 4


def test_its_commands_run() -> None:
    lines = block("bash").splitlines()
    assert len(lines) == 3
    for line in lines:
        assert baco(*shlex.split(line)[1:]).stdout
