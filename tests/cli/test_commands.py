"""Help, errors and the ends of commands."""

import logging
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from baco_integrations import BacoError
from baco_integrations.cli.commands import Command, Commands
from baco_integrations.cli.errors import stoppable
from baco_integrations.tiny import WEIGHTS
from tests.commands import ASK, COMMANDS, baco, process


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from baco_integrations.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: print(*{'torch', 'transformers', 'pydantic', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
    assert all(command in done.stdout for command in COMMANDS)


def test_version() -> None:
    assert re.fullmatch(r"baco \d+\.\d+\.\d+\n", baco("--version").stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_by_an_example(command: str) -> None:
    shown = " ".join(baco(command, "--help").stdout.split())
    assert f"Example: baco {command}" in shown
    assert "--help" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loses_no_words_where_it_is_narrow(command: str) -> None:
    shown = [baco(command, "--help", env={"COLUMNS": width}).stdout for width in ("60", "80")]
    assert not any("…" in text or "[cyan]" in text for text in shown)


def test_paragraphs_of_help_are_filled() -> None:
    wide = baco("compare", "-h", env={"COLUMNS": "120"}).stdout
    assert "use the same seed. Where the tiny pair" in wide


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((*ASK, "--gamma", "3"), "gamma must be"),
        ((*ASK, "--router", "p-pun"), "Did you mean 'p-punc'?"),
        ((*ASK, "--pair", "qwen2.5-7"), "Did you mean 'qwen2.5-7b'?"),
        ((*ASK, "--quantization", "8bits"), "Did you mean '8bit'?"),
        ((*ASK, "--base", "somewhere"), "--base and --aligned together"),
        (("generate", ""), "some text"),
        (("tune", "tiny", "--router", "p-pun"), "--router must be one of"),
        (("check", str(WEIGHTS / "base"), "no/such/folder"), "no folder"),
    ],
)
def test_errors_are_one_line_on_stderr(args: tuple[str, ...], said: str) -> None:
    result = baco(*args, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert said in result.stderr


@pytest.mark.parametrize("args", [("eval", "sweep", "--out"), ("tune", "tiny", "--out")])
def test_a_missing_extra_is_told_before_anybody_is_asked(
    args: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    said = baco(*args, str(tmp_path / "run"), code=2).stderr
    assert "pip install 'baco-integrations[eval]'" in said
    assert not (tmp_path / "run").exists()


def test_the_traceback_comes_on_request() -> None:
    with pytest.raises(BacoError):
        baco(*ASK, "--gamma", "3", env={"BACO_DEBUG": "1"}, catch_exceptions=False)


@pytest.mark.slow
def test_ctrl_c_ends_a_command_quietly(tmp_path: Path) -> None:
    running = process("eval", "run", "--out", str(tmp_path), "--limit", "30")
    while not (tmp_path / "generations.jsonl").exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert re.fullmatch(r"Stopped; the same command .*goes on where it was\.\n", said), said


def test_a_closed_pipe_ends_a_command_quietly() -> None:
    running = process("pairs", "--json")
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == ""
    running.communicate()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("generate", " "), "PROMPT must be some text"),
        (("generate", "word " * 2000), "PROMPT must be shorter than"),
        ((*ASK, "--device", "toaster"), "--device must be a device such as 'cpu'"),
        ((*ASK, "--max-tokens", "0"), "--max-tokens must be a whole number"),
        ((*ASK, "--top-k", "-1"), "--top-k must be"),
        ((*ASK, "--base-prompt", "qua"), "--base-prompt must be"),
        (("compare", "Hi", "-n", "0"), "--samples must be"),
        (
            (*ASK, "--base", "mine"),
            "--model alone, or --base and --aligned together, got '--base mine'",
        ),
        (("check", "tiny", "tiny"), "Run: baco check tiny."),
        (("check", "qwen2.5-7"), "Did you mean 'qwen2.5-7b'? For models of your own"),
        (
            ("extract", "a", "b", "--out", "c", "--no-report", "--prompts", "d"),
            "--prompts must be left out with --no-report",
        ),
    ],
)
def test_errors_name_options_and_not_parameters(args: tuple[str, ...], said: str) -> None:
    shown = baco(*args, code=2).stderr
    assert said in shown
    assert not re.search(
        r"device_map|max_tokens|messages must|base_prompt|from_pretrained|\w=", shown
    )


def test_values_in_remedies_are_written_as_options() -> None:
    command = COMMANDS["generate"].complete()
    told = "It did not fit: load with dtype='bfloat16' or device_map='auto', or lower max_tokens."
    with pytest.raises(BacoError) as caught, command.make_context("generate", ["Hi"]) as context:
        command.callback = lambda **_: exec("raise error", {"error": BacoError(told)})
        command.invoke(context)
    assert str(caught.value) == (
        "It did not fit: load with --dtype bfloat16 or --device auto, or lower --max-tokens."
    )


def ending(error: BaseException, **env: str) -> Any:
    """Run a command that raises an error."""
    ends = typer.Typer(cls=Commands, pretty_exceptions_enable=False)

    @ends.command(cls=Command)
    def stop() -> None:
        warnings.warn("a library is worried", FutureWarning, stacklevel=1)
        logging.getLogger("library").warning("a library is worried")
        raise error

    ends.callback()(lambda: None)
    return CliRunner().invoke(ends, ["stop"], env=env)


def test_ctrl_c_says_how_to_go_on() -> None:
    plain = ending(KeyboardInterrupt())
    assert (plain.exit_code, plain.stdout) == (130, "")
    assert plain.stderr == "Stopped; nothing is lost; the same command starts anew.\n"
    with pytest.raises(KeyboardInterrupt) as caught, stoppable():
        raise KeyboardInterrupt
    told = ending(caught.value)
    assert told.stderr == "Stopped; the same command goes on where it was.\n"


def test_a_file_error_names_the_file(tmp_path: Path) -> None:
    gone = ending(FileNotFoundError(2, "No such file or directory", "prompts.jsonl"))
    assert (gone.exit_code, gone.stderr) == (1, "Error: No such file or directory: prompts.jsonl\n")
    assert ending(OSError("disk on fire")).stderr == "Error: disk on fire\n"
    (tmp_path / "file").touch()
    inside = str(tmp_path / "file" / "pair")
    assert inside in baco("eval", "run", "--out", inside, code=1).stderr


def test_libraries_keep_quiet_between_our_lines() -> None:
    assert ending(BacoError("no")).stderr == "Error: no\n"
