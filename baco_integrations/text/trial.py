"""Grammars are tried in a child process, which may crash or be stopped, before they are used.

Invariant: no grammar reaches the engine in this process that it has not taken in a child, and no
caller waits longer than it may. Children wait for the next grammar while there is none, and end
with this process; a forked process has children of its own.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, NamedTuple

from llguidance import LLMatcher

_LOG = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that all grammars of a request may take together."""

LIMITS: dict[str, Any] = {
    # Of what may come next; many optional properties make many. A step then takes some 50 ms.
    "max_items_in_row": 20_000,
    "step_max_items": 500_000,
    "verbose_errors": False,
}
"""The engine's own limits, in the child as here."""

CRASHED = "it has crashed, on something that is too large or nests too deep"
MOST_CHILDREN = 6
# Nothing is imported before, lest it come from the working directory.
BOOTSTRAP = (
    "import sys; script, *sys.path[:] = sys.argv[1:]; "
    "import runpy; runpy.run_path(script, run_name='__main__')"
)
"""What a child runs to begin with."""

_UNTIL: ContextVar[float] = ContextVar("until", default=math.inf)


class OutOfTimeError(Exception):
    """A grammar takes longer than it may."""


class Answer(NamedTuple):
    """What became of a grammar.

    Attributes:
        said: What the engine says is wrong with it; empty if nothing is.
        admits: Whether the text that was asked about follows it.
        seconds: How long it took.
    """

    said: str
    admits: bool
    seconds: float


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """Set a deadline for `ask` in this context, by `time.monotonic`; `PATIENCE` seconds at most."""
    token = _UNTIL.set(min(deadline, time.monotonic() + PATIENCE))
    try:
        yield
    finally:
        _UNTIL.reset(token)


def remaining() -> float:
    """Return how many seconds are left in this context.

    Raises:
        OutOfTimeError: None is.
    """
    left = min(_UNTIL.get() - time.monotonic(), PATIENCE)
    if left <= 0:
        raise OutOfTimeError
    return left


def complaint(rule: str) -> str:
    """Return why the engine refuses a rule in Lark's syntax, empty if it takes it; see `ask`."""
    return reason(ask(LLMatcher.grammar_from_lark(f"%llguidance {{}}\nstart: {rule}")).said)


def admits(rule: str, text: str) -> bool:
    """Tell whether a text follows a rule in Lark's syntax; see `ask`."""
    return ask(LLMatcher.grammar_from_lark(f"%llguidance {{}}\nstart: {rule}"), text).admits


def reason(message: str) -> str:
    """Return what one of the engine's messages says is wrong, without where it looked."""
    lines = message.strip().splitlines() or [""]
    line = next((line for line in lines if line.startswith("error: ")), lines[0])
    return re.sub(r"^(error: |at \d+\(\d+\): )(failed to compile JSON schema: )?", "", line)


def ask(grammar: str, text: str | None = None) -> Answer:
    """Have a grammar tried.

    Args:
        grammar: The grammar, as the engine takes it.
        text: A text that may follow it; with one, only `Answer.admits` is answered.

    Raises:
        OutOfTimeError: It takes too long.
    """
    # Neither is remembered: a child may have been killed from outside, and start another time.
    try:
        return answer(grammar, text)
    except EOFError:
        return Answer(CRASHED, False, 0.0)
    except OSError as error:
        warn_untried(str(error))
        return Answer("", True, 0.0)


@lru_cache(maxsize=128)
def answer(grammar: str, text: str | None) -> Answer:
    """Return a child's answer, or raise `EOFError` if it crashed, `OSError` if there is none."""
    line = json.dumps((grammar, text, LIMITS)).encode() + b"\n"
    began = time.monotonic()
    with CHILDREN.lent() as child:
        answered = child.ask(line, remaining())
    if not answered:
        raise EOFError
    said, admits = json.loads(answered)
    return Answer(said, admits, time.monotonic() - began)


@cache
def warn_untried(why: str) -> None:
    """Warn, once for each reason, that grammars are not tried."""
    _LOG.warning("Grammars are compiled without a trial, as no process can be started: %s", why)


class Child:
    """A process that tries grammars, one at a time.

    Raises:
        OSError: It cannot be started.
        OutOfTimeError: That takes too long.
    """

    def __init__(self) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise OSError("this interpreter cannot be started anew")
        script = str(Path(__file__).with_name("trial_child.py"))
        patience = remaining()
        self.process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP, script, *map(str, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if not self.ask(b"", patience):
            raise OSError("it ends as it begins")

    @property
    def alive(self) -> bool:
        """Whether it can be asked more."""
        return self.process.poll() is None

    def ask(self, line: bytes, seconds: float) -> bytes:
        """Return the answer to a line, nothing if the process crashed on it.

        Raises:
            OutOfTimeError: It takes longer than so many seconds.
        """
        assert self.process.stdin and self.process.stdout
        deadline = time.monotonic() + seconds
        timer = threading.Timer(seconds, self.process.kill)
        timer.daemon = True
        timer.start()
        answered = b""
        try:
            with suppress(BrokenPipeError):
                self.process.stdin.write(line)
                self.process.stdin.flush()
                answered = self.process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()  # it kills now or never: another one may have this child next
            if not answered.endswith(b"\n"):
                self.end()
        if answered.endswith(b"\n"):
            return answered
        if time.monotonic() >= deadline:
            raise OutOfTimeError
        return b""

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.disown()

    def disown(self) -> None:
        """Leave the child process to the parent process, without ending it."""
        self.process.returncode = 0
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what is in the buffer of a broken pipe
                assert pipe is not None
                pipe.close()


class Children:
    """The child processes, each lent to one caller at a time; the last returned is lent first."""

    def __init__(self) -> None:
        self._places: LifoQueue[Child | None] = LifoQueue()
        self.forget()

    @property
    def idle(self) -> list[Child]:
        """The children that nobody has, dead ones among them."""
        return [child for child in self._places.queue if child]

    def forget(self) -> None:
        """Start without children in a forked process, whose copied locks may never be released."""
        for child in self.idle:
            child.disown()
        self._places = LifoQueue()
        for _ in range(MOST_CHILDREN):
            self._places.put(None)

    @contextmanager
    def lent(self) -> Iterator[Child]:
        """Lend an idle child, or a new one, for the time of a ``with`` block."""
        try:
            child = self._places.get(timeout=remaining())
        except Empty:
            raise OutOfTimeError from None
        try:
            if child and not child.alive:
                child.end()
                child = None
            child = child or Child()
            yield child
        finally:
            self._places.put(child)

    def end(self) -> None:
        """End those that nobody has."""
        for child in self.idle:
            child.end()


CHILDREN = Children()
atexit.register(CHILDREN.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CHILDREN.forget)
