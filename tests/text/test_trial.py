"""Grammars that crash the engine or take for ever harm a child process, and nobody else."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLMatcher

from baco_integrations.text import trial
from baco_integrations.text.trial import CRASHED, LIMITS, OutOfTimeError, ask, until


def rule(text: str) -> str:
    return LLMatcher.grammar_from_lark(f"%llguidance {{}}\nstart: {text}")


def schema(**keywords: Any) -> str:
    return rule(f"%json {json.dumps(keywords)}")


DEADLY = schema(const=-(2**63))
ENDLESS = schema(type="integer", multipleOf=1000003)


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    for cached in (trial.answer, trial.warn_untried):
        cached.cache_clear()
    yield
    trial.answer.cache_clear()


def no_zombies() -> bool:
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:  # there is no child at all
        return True


def test_what_the_engine_takes_has_no_complaint() -> None:
    assert ask(schema(enum=[1, 2])).said == ""
    assert "strng" in ask(schema(type="strng")).said
    assert ask(schema(enum=[1, 2]), "2").admits and not ask(schema(enum=[1, 2]), "3").admits
    assert ask("\ud800").said  # what cannot be handed over is an answer too


def test_a_crash_is_an_answer() -> None:
    for _ in range(2):
        assert ask(DEADLY).said == CRASHED
        assert trial.answer.cache_info().currsize == 0  # a sound grammar may be tried again
        assert ask(schema(enum=[1, 2])).said == ""
        trial.answer.cache_clear()
    assert no_zombies()


def test_what_takes_too_long_is_stopped() -> None:
    began = time.monotonic()
    for _ in range(2):
        with until(time.monotonic() + 0.3), pytest.raises(OutOfTimeError):
            ask(ENDLESS)
    with until(time.monotonic() - 1), pytest.raises(OutOfTimeError):
        ask(schema(type="null"))
    assert time.monotonic() - began < trial.PATIENCE and no_zombies()
    assert ask(schema(type="null")).said == ""


def test_nobody_waits_for_another_one_unless_many_run() -> None:
    with ExitStack() as stack:
        for _ in range(trial.MOST_CHILDREN):
            assert ask(schema(type="null")).said == ""
            trial.answer.cache_clear()
            stack.enter_context(trial.CHILDREN.lent())
        with until(time.monotonic() + 0.05), pytest.raises(OutOfTimeError):
            ask(schema(type="null"))
    assert ask(schema(type="null")).said == ""


def test_limits_of_what_may_come_next_show_on_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"k{number}": True for number in range(200)}
    grammar = schema(type="object", properties=many)
    assert ask(grammar).said == ""
    monkeypatch.setitem(LIMITS, "max_items_in_row", 500)
    trial.answer.cache_clear()
    assert "500" in ask(grammar).said


def test_a_child_that_is_gone_is_replaced() -> None:
    assert ask(schema(type="null")).said == ""
    (child, *_) = trial.CHILDREN.idle
    child.process.send_signal(signal.SIGINT)  # as Ctrl-C does, and the parent may go on
    assert ask(schema(type="boolean")).said == "" and child.alive
    child.process.kill()
    child.process.wait()
    assert ask(schema(type="string")).said == ""


def test_a_child_ends_with_its_parent_even_when_busy() -> None:
    child = trial.Child()
    assert child.process.stdin and child.process.stdout
    child.process.stdin.write(json.dumps((ENDLESS, None, LIMITS)).encode() + b"\n")
    child.process.stdin.close()
    assert child.process.wait(10) == 0
    child.disown()


def test_a_forked_process_has_children_of_its_own() -> None:
    assert ask(schema(type="null")).said == ""
    process = os.fork()
    if not process:
        os._exit(bool(trial.CHILDREN.idle) or bool(ask(schema(type="boolean")).said))
    assert os.waitpid(process, 0)[1] == 0
    assert ask(schema(type="string")).said == ""


@pytest.mark.parametrize("times", [0, 1, 2])
def test_time_that_runs_out_leaves_no_child_behind(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, started, start = [9.0] * times, [], subprocess.Popen
    children = trial.Children()

    def remaining() -> float:
        if not left:
            raise OutOfTimeError
        return left.pop()

    def noted(*given: Any, **settings: Any) -> Any:
        started.append(start(*given, **settings))
        return started[-1]

    monkeypatch.setattr(trial, "CHILDREN", children)
    monkeypatch.setattr(trial, "remaining", remaining)
    monkeypatch.setattr(subprocess, "Popen", noted)
    with pytest.raises(OutOfTimeError):
        ask(schema(type="null"))
    assert [child.process for child in children.idle] == started
    assert len(started) == (times > 1)
    children.end()


def test_a_child_imports_nothing_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "runpy", "queue", "llguidance"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit")
    children = trial.Children()
    monkeypatch.setattr(trial, "CHILDREN", children)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.chdir(tmp_path)
    assert ask(schema(type="null")).said == "" and children.idle
    children.end()


@pytest.mark.parametrize("way", ["none", "frozen", "refused", "broken"])
def test_where_noprocess_can_be_started_grammars_are_taken_on_trust(
    way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trial, "CHILDREN", trial.Children())
    if way == "none":
        monkeypatch.setattr(sys, "executable", None)
    elif way == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif way == "refused":
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    else:
        monkeypatch.setattr(trial, "BOOTSTRAP", "import nothing_of_this_name")
    with caplog.at_level(logging.WARNING):
        assert ask(schema(type="null")).said == ask(schema(type="boolean")).said == ""
    assert ["without a trial" in message for message in caplog.messages] == [True]
