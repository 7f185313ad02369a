"""`baco chat`."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from baco_integrations import Decoder, ModelPair, SamplingParams, ScriptedPair
from baco_integrations.cli.chat import Chat
from baco_integrations.models.scripted import END, Context
from tests.commands import ASK, baco, process


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


@pytest.mark.filterwarnings("ignore:router 'punc'")  # commands run without warnings
def test_help_in_a_chat_tells_what_is_set(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(decoder, monkeypatch, "/gamma 0.25", "/trace on", "/help", "/router punc", "/help")
    said = capsys.readouterr().err
    for value in ("0.25", "p-punc", "0.7", "1", "on", "punc", "without effect"):
        assert f"now {value} " in said


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
