"""The command line as its users meet it: mostly in this process, some in one apart."""

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

from baco_integrations import BacoError, Decoder, ModelPair, SamplingParams, ScriptedPair
from baco_integrations.cli import app
from baco_integrations.cli.chat import Chat
from baco_integrations.cli.display import Column, SafeConsole, console, flow, paint, print_columns
from baco_integrations.cli.errors import Command, Guarded, stoppable
from baco_integrations.core.outputs import TokenStep
from baco_integrations.core.params import DEFAULT_GAMMA
from baco_integrations.core.routing import Source
from baco_integrations.models.presets import PRESETS
from baco_integrations.models.scripted import END, Context
from baco_integrations.tiny import WEIGHTS
from baco_integrations.tiny.train import Recipe
from tests.families import make_pair_folder

ASK = ("generate", "Name a place to visit.", "--seed", "5")
COLOUR = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": None}
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


# Help.


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


def defaults(command: str) -> dict[str, Any]:
    return {option.name: option.show_default for option in COMMANDS[command].params}


def test_help_repeats_the_defaults_of_the_library() -> None:
    for command in ("generate", "chat", "compare", "demo"):
        shown = defaults(command)
        assert float(shown["gamma"]) == DEFAULT_GAMMA
        for name, field in SamplingParams.model_fields.items():
            if isinstance(shown.get(name), str) and name not in ("gamma", "seed"):
                assert shown[name] == str(field.default)
    recipe = defaults("train-tiny")
    assert int(recipe["base_steps"]) == Recipe.base_steps
    assert int(recipe["aligned_steps"]) == Recipe.aligned_steps


# Generate.


def test_json_is_one_object_and_nothing_else() -> None:
    answer = json.loads(baco(*ASK, "--json").stdout)
    assert answer["seed"] == 5
    assert answer["finish_reason"] in ("stop", "length")
    assert 0 <= answer["base_share"] <= 1
    assert answer["usage"]["total_tokens"] == (
        answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    )
    assert "steps" not in answer
    traced = json.loads(baco(*ASK, "--json", "--trace").stdout)
    assert "".join(step["text"] for step in traced.pop("steps")) == answer["text"]
    assert traced == answer


def test_several_answers() -> None:
    answers = json.loads(baco(*ASK, "-n", "3", "--json").stdout)["completions"]
    assert [answer["sample"] for answer in answers] == [0, 1, 2]
    plain = baco(*ASK, "-n", "3").stdout
    assert all(f"--- {number} of 3\n" in plain for number in (1, 2, 3))
    assert all(answer["text"] in plain for answer in answers)


def test_a_prompt_from_standard_input() -> None:
    piped = baco("generate", "-", "--seed", "5", input="Name a place to visit.\n")
    assert piped.stdout == baco(*ASK).stdout


def test_options_reach_the_decoder() -> None:
    answer = json.loads(
        baco(*ASK, "--json", "--router", "aligned", "--max-tokens", "2", "--system", "Hi.").stdout
    )
    assert (answer["router"], answer["finish_reason"], answer["base_share"]) == (
        ("aligned", "length", 0)
    )
    assert (
        answer["usage"]["prompt_tokens"]
        > json.loads(baco(*ASK, "--json").stdout)["usage"]["prompt_tokens"]
    )


def test_quantised() -> None:
    answer = json.loads(baco(*ASK, "--json", "--trace", "--quantization", "8bit").stdout)
    whole = json.loads(baco(*ASK, "--json", "--trace").stdout)
    first, of_whole = (each["steps"][0]["p_aligned"] for each in (answer, whole))
    assert first != of_whole
    assert first == pytest.approx(of_whole, abs=0.05)


def test_a_trace_follows_the_environment() -> None:
    args = (*ASK, "--trace", "--router", "base")
    coloured, underlined = (baco(*args, env=COLOUR | more) for more in ({}, {"NO_COLOR": "1"}))
    assert "\x1b[38;5;166m" in coloured.stdout
    assert "\x1b[4m" in underlined.stdout and "38;5" not in underlined.stdout
    assert baco(*args).stdout.startswith("[")
    assert "100%" in coloured.stderr and "seed 5" in coloured.stderr


def steps(*tokens: tuple[str, Source]) -> list[TokenStep]:
    return [TokenStep(0, text, source, 1, 1, 1, 0, False) for text, source in tokens]


PICK = steps(
    ("I pick", "aligned"), (" Lis", "base"), ("", "base"), ("bon", "base"), (".", "aligned"),
    (" ", "base"), ("Yes", "base"), ("\n", "aligned"), ("No", "base"),
)  # fmt: skip


def flowed(**settings: Any) -> str:
    out = Console(file=io.StringIO(), **{"width": 80, "no_color": False} | settings)
    flow(paint(PICK, out), out)
    return out.file.getvalue()  # type: ignore[attr-defined]


def test_marks_of_sources() -> None:
    terminal = {"force_terminal": True, "color_system": "256"}
    orange, blue, plain = "\x1b[38;5;166m", "\x1b[38;5;32m", "\x1b[0m"
    assert flowed() == "I pick [Lisbon]. [Yes]\n[No]\n"
    assert flowed(**terminal) == (
        f"{blue}I pick{plain} {orange}Lis{plain}{orange}bon{plain}{blue}.{plain} "
        f"{orange}Yes{plain}\n{orange}No{plain}\n"
    )
    line = "\x1b[4m"
    assert flowed(**terminal, no_color=True) == (
        f"I pick {line}Lis{plain}{line}bon{plain}. {line}Yes{plain}\n{line}No{plain}\n"
    )


def test_words_are_not_broken_on_a_terminal() -> None:
    terminal = {"force_terminal": True, "color_system": None}
    assert flowed(**terminal, width=11) == "I pick\n[Lisbon].\n[Yes]\n[No]\n"
    assert flowed(width=11) == flowed()


# Errors.


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
    running = process("train-tiny", "--out", str(tmp_path))
    while not (tmp_path / "tokenizer.json").exists():
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


# Side by side.


def test_compare_gives_a_column_to_each_gamma() -> None:
    args = ("compare", "Name a place to visit.", "-n", "3", "--seed", "1")
    gammas = ("--gamma", "0.2", "--gamma", "0.8")
    columns = json.loads(baco(*args, *gammas, "--json").stdout)["columns"]
    assert [(column["router"], column["gamma"]) for column in columns] == [
        ("base", None),
        ("aligned", None),
        ("p-punc", 0.2),
        ("p-punc", 0.8),
    ]
    for column in columns:
        texts = {answer["text"].strip() for answer in column["completions"]}
        assert column["distinct"] == len(texts)
    assert [columns[0]["base_share"], columns[1]["base_share"]] == [1, 0]
    wide, narrow = (baco(*args, *gammas, env={"COLUMNS": width}).stdout for width in ("120", "80"))
    assert any("base alone" in line and "gamma 0.8" in line for line in wide.splitlines())
    assert not any("base alone" in line and "gamma 0.8" in line for line in narrow.splitlines())
    assert max(map(len, narrow.splitlines())) <= 80


@pytest.mark.slow
def test_the_demo_is_repeatable_and_fits() -> None:
    first = baco("demo", "--samples", "2").stdout
    assert first == baco("demo", "--samples", "2").stdout
    assert max(map(len, first.splitlines())) <= 80
    assert first.count("/2 valid") == 9
    assert "seed 0" in first and "What to see: in 6 answers each" in first
    assert first != baco("demo", "--samples", "2", "--seed", "1").stdout


# Pairs.


def test_pairs_lists_all() -> None:
    listed = json.loads(baco("pairs", "--json").stdout)["pairs"]
    assert [pair["name"] for pair in listed] == list(PRESETS)
    shown = baco("pairs").stdout
    for preset in PRESETS.values():
        assert all(part in shown for part in (preset.name, preset.base, preset.aligned))


def test_check_says_by_its_exit_code_whether_two_models_make_a_pair(tmp_path: Path) -> None:
    base, aligned = str(WEIGHTS / "base"), str(WEIGHTS / "aligned")
    assert "make a pair" in baco("check", base, aligned).stdout
    assert json.loads(baco("check", base, aligned, "--json").stdout)["compatible"]
    _, other = make_pair_folder(tmp_path, "llama")
    assert "do not share one text vocabulary" in " ".join(
        baco("check", base, str(other), code=1).stdout.split()
    )
    assert not json.loads(baco("check", base, str(other), "--json", code=1).stdout)["compatible"]


def test_a_pair_of_folders(tmp_path: Path) -> None:
    base, aligned = make_pair_folder(tmp_path, "llama")
    args = ("--base", str(base), "--aligned", str(aligned), "--max-tokens", "4", "--json")
    assert json.loads(baco("generate", "Hi", *args).stdout)["usage"]["completion_tokens"] <= 4


# Workshop.


@pytest.mark.slow
def test_bench_prints_ratios(tmp_path: Path) -> None:
    plot = tmp_path / "speed.png"
    args = ("bench", "--pair", "tiny", "--tokens", "3", "--samples", "2", "--rounds", "1")
    result = json.loads(baco(*args, "--json", "--plot", str(plot)).stdout)["results"][0]
    assert result["pair"] == "tiny" and result["ratios"]["lockstep_to_harmonic_sum"] > 0
    assert all(found["same_text"] for found in result["lookahead"].values())
    assert 1 < result["lookahead"]["0.9"]["forwards_per_token"] <= 2
    assert 0 < result["overhead"] < 1 and result["first_token"]["prompt_tokens"] > 50
    assert result["memory"]["weights"] == ModelPair.tiny().memory_bytes()
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "one of each model" in baco(*args).stdout
    started = time.monotonic()
    endless = ("bench", "--pair", "tiny", "--rounds", "100000")  # told before anything is measured
    for bad in ("x.txt", str(tmp_path / "none" / "x.png")):
        assert "ends in .png" in baco(*endless, "--plot", bad, code=2).stderr
    assert time.monotonic() - started < 60


def test_train_tiny_passes_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def train(out: Path, seed: int, recipe: Recipe, *, threads: int, progress: bool) -> None:
        calls.append((out, seed, recipe, threads, progress))
        if len(calls) > 1:
            raise BacoError("another training")

    monkeypatch.setattr("baco_integrations.tiny.train.train", train)
    args = ("train-tiny", "--out", str(tmp_path), "--seed", "2", "--base-steps", "7")
    assert str(tmp_path / "aligned") in baco(*args).stdout
    assert calls == [(tmp_path, 2, Recipe(base_steps=7), 1, False)]
    assert "another training" in baco(*args, code=2).stderr
    (tmp_path / "training.json").touch()
    assert "holds a training already" in baco(*args, "--no-resume", code=2).stderr


# Chat.


@pytest.mark.slow
def test_chat_over_a_pipe() -> None:
    lines = "Name a place to visit.\n/gamma 7\n/trace on\n/retry\n/quit\nnever read\n"
    running = process("chat", "--seed", "5", env=os.environ | {"NO_COLOR": "1"})
    answers, rest = running.communicate(lines, timeout=60)
    assert running.returncode == 0
    assert answers.splitlines()[0] == baco(*ASK).stdout.splitlines()[0]
    assert len(answers.splitlines()) >= 2
    assert rest.startswith("Error: gamma must be") and "seed 6" in rest


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    """Answers with the number of the message, and stops for Ctrl-C where the message asks."""

    def speak(context: Context) -> dict[str, float]:
        if "break" in context.prompt.splitlines()[-1] and not pressed:
            pressed.append(True)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.3)
        return {END: 1.0} if context.tokens else {f" #{context.prompt.count('user: ')}": 1.0}

    pressed: list[bool] = []
    pair = ScriptedPair(speak, speak, vocabulary=[" #1", " #2", " #3"])
    with Decoder(pair) as opened:
        yield opened


def talk(decoder: Decoder, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    script = iter(lines)

    def read(prompt: str = "") -> str:
        try:
            return next(script)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    Chat(decoder, SamplingParams(seed=1, max_tokens=2), None, trace=False).run()


def test_a_chat_remembers_retries_and_forgets(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(decoder, monkeypatch, "/retry", "hi", "", "and?", "/retry", "/reset", "hi", "/quit", "no")
    said = capsys.readouterr()
    assert said.out.split() == ["#1", "#2", "#2", "#1"]
    assert "no message to answer yet" in said.err and "starts anew" in said.err


def test_ctrl_c_cancels_an_answer_and_not_the_chat(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(decoder, monkeypatch, "hi", "break", "/retry", "on")
    said = capsys.readouterr()
    assert "/retry asks again" in said.err
    assert said.out.split() == ["#1", "#2", "#3"]


def test_a_bad_value_leaves_the_old_one(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = ("/gamma 2", "/gamma much", "/router q", "/temperature -1", "/seed 1.5", "/trace maybe")
    talk(decoder, monkeypatch, "/gamma 0.3", *bad, "/gama 1", "/gamma", "/router h", "/help")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Error: ") == len(bad) + 1
    assert said.count("p-punc gamma 0.3 · temperature 0.7 · next seed 1") == 2
    assert "h gamma 0.3" in said and "Did you mean '/gamma'?" in said and "/retry" in said


# Options.


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
            "given alone, or --base and --aligned together, got '--base mine'",
        ),
        (("check", "tiny", "tiny"), "Run: baco check tiny."),
        (("check", "qwen2.5-7"), "Did you mean 'qwen2.5-7b'? For models of your own"),
        (("bench", "--dtype", "float64"), "--dtype must be left out without --base"),
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
    command: Any = COMMANDS["generate"]
    told = "It did not fit: load with dtype='bfloat16' or device_map='auto', or lower max_tokens."
    with pytest.raises(BacoError) as caught, command.make_context("generate", ["Hi"]) as context:
        command.callback = lambda **_: exec("raise error", {"error": BacoError(told)})
        command.invoke(context)
    assert str(caught.value) == (
        "It did not fit: load with --dtype bfloat16 or --device auto, or lower --max-tokens."
    )


@pytest.mark.parametrize("twice", [("--gamma", "0.3,0.9"), ("--gamma", "0.3", "--gamma", "0.9")])
def test_several_values_are_taken_or_refused(twice: tuple[str, ...]) -> None:
    columns = json.loads(baco("compare", ASK[1], "-n", "1", *twice, "--json").stdout)["columns"]
    assert [column["gamma"] for column in columns[2:]] == [0.3, 0.9]
    refused = " ".join(baco(*ASK, *twice, code=2).stderr.split())
    assert "--gamma takes one value" in refused and "`baco compare` takes several" in refused


def test_texts_keep_their_commas() -> None:
    answer = json.loads(baco(*ASK, "--stop", "x,y", "--system", "1,2", "--json").stdout)
    assert answer["text"]
    refused = baco(*ASK, "--system", "a", "--system", "b", code=2).stderr
    assert "--system takes one value" in refused


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--gamma", "0.3", "--router", "punc"), "Note: --gamma has no effect with --router punc"),
        (("--temperature", "0", "--top-k", "3"), "where nothing is drawn: --top-k"),
        (("--temperature", "0", "-n", "2"), "Answers at --temperature 0 are all the same"),
    ],
)
def test_options_without_effect_are_noted(args: tuple[str, ...], said: str) -> None:
    assert said in baco(*ASK, *args).stderr


def test_the_base_prompt_is_an_option() -> None:
    args = (*ASK, "--router", "base", "--json", "--trace", "--max-tokens", "1")
    first = [
        json.loads(baco(*args, "--base-prompt", way).stdout)["steps"][0]["p_base"]
        for way in ("qa", "urial")
    ]
    assert first[0] != first[1]
    for command in ("generate", "chat", "compare"):
        assert "base_prompt" in defaults(command)


# How commands end.


def ending(error: BaseException, **env: str) -> Any:
    """Run a command that raises an error."""
    ends = typer.Typer(cls=Guarded, pretty_exceptions_enable=False)

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
    extension = ending(RuntimeError("KeyboardInterrupt: "))
    assert extension.exit_code == 130 and extension.stderr.startswith("Stopped; ")
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
    assert inside in baco("train-tiny", "--out", inside, code=1).stderr


def test_libraries_keep_quiet_between_our_lines() -> None:
    assert ending(BacoError("no")).stderr == "Error: no\n"


# The tiny pair.


def test_the_tiny_pair_says_once_what_it_knows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = "knows only requests for ideas"
    assert limits not in baco(*ASK).stderr
    for command in ("generate", "compare"):
        assert baco(command, "What is 2 + 2?", "-n", "1").stderr.count(limits) == 1
    with Decoder(ModelPair.tiny()) as decoder:
        talk(decoder, monkeypatch, "What is 2 + 2?", "/reset", "And 3 + 3?")
    assert capsys.readouterr().err.count(limits) == 1


def test_compare_judges_what_the_tiny_pair_knows() -> None:
    args = ("compare", ASK[1], "-n", "4", "--seed", "1")
    for column in json.loads(baco(*args, "--json").stdout)["columns"]:
        verdicts = [answer["verdict"] for answer in column["completions"]]
        assert column["valid"] == verdicts.count("ok")
        assert min(column["valid"], 1) <= column["valid_distinct"] <= column["valid"]
    shown = baco(*args).stdout
    assert "✗" in shown and "✓" in shown and "4/4 valid, 1 distinct" in shown
    assert "valid" not in baco("compare", "What is 2 + 2?", "-n", "1").stdout


# What is shown.

HOSTILE = "\x1b[2J\x1b]52;c;aGk=\x07\x1b]8;;http://x\x1b\\a\x9b31m\x08\x00\x7f\rb\n\tc"


def test_texts_do_not_command_a_terminal() -> None:
    terminal = SafeConsole(file=io.StringIO(), force_terminal=True, color_system=None, width=80)
    flow(paint(steps((HOSTILE, "base")), terminal), terminal)
    terminal.print(Text(HOSTILE), soft_wrap=True)
    terminal.print(f"[bold]{HOSTILE}[/]")
    column = Column(Text("x"), [("•", Text(HOSTILE))], "y")
    print_columns([column], terminal)
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert not {*map(chr, (*range(32), *range(127, 160)))} - {"\n", "\t"} & {*shown}
    assert "␛[2J" in shown and "b\n        c" in shown
    pipe = SafeConsole(file=io.StringIO(), force_terminal=False)
    flow([Text(HOSTILE)], pipe)
    assert "\x1b]52" in pipe.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(console(), SafeConsole)


def test_a_seed_is_told_once() -> None:
    told = baco(*ASK, "-n", "3", "--trace").stderr
    assert told.count("seed") == 1 and "seed 5" in told and told.count("base gave") == 3


@pytest.mark.parametrize("width", ["40", "60", "80", "120"])
def test_names_of_pairs_are_whole_at_any_width(width: str) -> None:
    shown = baco("pairs", env={"COLUMNS": width}).stdout
    words = set(shown.split())
    for preset in PRESETS.values():
        assert {preset.name, preset.base, preset.aligned} <= words
    assert "…" not in shown
    assert "the weights of both together, in bfloat16" in " ".join(shown.split())


def test_check_takes_the_name_of_a_pair() -> None:
    assert "make a pair" in baco("check", "tiny").stdout
    assert "make a pair" in baco("check", "Tiny").stdout


def test_check_says_what_one_model_twice_means() -> None:
    base = str(WEIGHTS / "base")
    shown = " ".join(baco("check", base, base).stdout.split())
    assert "both sides are the same model" in shown and "✓" not in shown
    told = json.loads(baco("check", base, base, "--json").stdout)
    assert told["compatible"] and "less variety to gain" in told["notes"][-1]


def test_help_in_a_chat_tells_what_is_set(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(decoder, monkeypatch, "/gamma 0.25", "/trace on", "/help", "/router punc", "/help")
    said = capsys.readouterr().err
    for value in ("0.25", "p-punc", "0.7", "1", "on", "punc", "without effect"):
        assert f"(now {value})" in said
