"""What cookbook/cluster.md shows: its commands and code run, and its table is the printed one."""

from __future__ import annotations

import re
import shlex
import warnings
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from baco_integrations import ModelPair
from baco_integrations.tiny import WEIGHTS
from tests.benchmarks.sizing import table
from tests.commands import baco
from tests.remote.endpoints.completion_server import listening, server_of
from tests.server.serving import serving

PAGE = (Path(__file__).parents[1] / "cookbook" / "cluster.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_its_table_is_the_printed_one() -> None:
    assert table() in PAGE


def test_its_commands_print_something() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        assert baco(*words[1:]).stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RemotePair", "BlackBoxPair"])
def test_its_code_runs(name: str) -> None:
    [code] = [block for block in blocks("python") if f"import {name}" in block]
    pair = ModelPair.tiny()
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(listening(server_of(pair, side))) for side in ("base", "aligned")
        )
        running = stack.enter_context(serving({"tiny": pair}))
        for shown, here in {
            "http://one:8000/v1": one,
            "http://two:8000/v1": two,
            "http://chat:8000/v1": running.api,
            '"model": "Qwen/Qwen2.5-7B"': f'"files": "{WEIGHTS / "base"}"',
            '"model": "Qwen/Qwen2.5-7B-Instruct"': f'"files": "{WEIGHTS / "aligned"}"',
            "Qwen/Qwen2.5-0.5B": str(WEIGHTS / "base"),
            "some-chat": "tiny@router=aligned",
        }.items():
            code = code.replace(shown, here)
        warnings.simplefilter("ignore", UserWarning)
        with redirect_stdout(StringIO()) as said:
            exec(code, {"__name__": "__page__"})
    assert said.getvalue().strip()
