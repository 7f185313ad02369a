"""How the tests of the command line run commands."""

import subprocess
import sys
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from baco_integrations.cli import app

ASK = ("generate", "Name a place to visit.", "--seed", "5")


COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]


def baco(*args: str, code: int = 0, **more: Any) -> Any:
    """Run a command in this process; colours and width are the test's, not the machine's."""
    env = {"NO_COLOR": None, "FORCE_COLOR": None, "COLUMNS": "80"} | more.pop("env", {})
    result = CliRunner().invoke(app, args, env=env, **more)
    assert result.exit_code == code, result.output
    return result


def process(*args: str, **more: Any) -> subprocess.Popen[str]:
    """Start a command as a process."""
    command = [sys.executable, "-c", "from baco_integrations.cli import app; app()", *args]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    return subprocess.Popen(command, **pipes, text=True, **more)  # type: ignore[call-overload]


def options(*names: str) -> dict[str, Any]:
    """Return a command's options by their parameters' names."""
    command: Any = get_command(app)
    for name in names:
        command = command.commands[name]
    return {option.name: option for option in command.complete().params}
