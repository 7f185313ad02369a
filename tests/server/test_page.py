"""What cookbook/serve.md shows, runs, against the server that it starts."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from typer.testing import CliRunner

from baco_integrations.cli import app
from tests.server.page import ADDRESS, PAGE, block, blocks

BIN = Path(sys.executable).parent
RUN = [code for code in blocks("python") if "litellm" not in code]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start what the page starts, at a free port; it ends in good order."""
    command = block("baco serve").replace("8000", "0")
    server = subprocess.Popen(
        [BIN / "baco", *shlex.split(command)[1:]], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if found := re.search(r"^Serving: (\S+) \(playground\)", line):
                yield found[1]
                break
    finally:
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        server.stderr.close()
        assert server.wait(60) == 0


def test_the_page_is_short() -> None:
    assert len(PAGE.read_text().splitlines()) < 200


def test_every_way_to_start_it_is_one() -> None:
    text = PAGE.read_text().replace("\nkeys", " keys")  # where a line is broken
    commands = re.findall(r"baco serve( --[^`\n]*)", text)
    assert len(commands) >= 3
    for command in commands:
        shown = CliRunner().invoke(app, ["serve", *shlex.split(command), "--help"])
        assert shown.exit_code == 0, shown.output


@pytest.mark.slow
def test_it_answers_curl(address: str) -> None:
    code = block("curl").replace(ADDRESS, address)
    said = subprocess.run(["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True)
    assert said.returncode == 0 and '"id":"tiny"' in said.stdout
    assert said.stdout.endswith("data: [DONE]\n\n")


@pytest.mark.slow
@pytest.mark.parametrize("code", RUN, ids=lambda code: code.splitlines()[0])
def test_python_blocks(address: str, code: str) -> None:
    with redirect_stdout(StringIO()) as said:
        run = compile(code.replace(ADDRESS, address), str(PAGE), "exec", dont_inherit=True)
        exec(run, {"__name__": "__page__"})
    assert said.getvalue().strip()
