"""Grammars are tried in a child process, which may crash or be stopped, before they are believed.

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
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

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
_MOST = 6
# Nothing is imported before, lest it come from the working directory.
_RUN = (
    "import sys; script, *sys.path[:] = sys.argv[1:]; "
    "import runpy; runpy.run_path(script, run_name='__main__')"
)

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
    """Let whatever is asked in this context take until then, by `time.monotonic`."""
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


def ask(grammar: str, text: str | None = None) -> Answer:
    """Have a grammar tried.

    Args:
        grammar: The grammar, as the engine takes it.
        text: A text that may follow it; asked about one, only `Answer.admits` is told.

    Raises:
        OutOfTimeError: It takes too long.
    """
    # Neither is remembered: a child may have been killed from outside, and start another time.
    try:
        return _answer(grammar, text)
    except EOFError:
        return Answer(CRASHED, False, 0.0)
    except OSError as error:
        _warn(str(error))
        return Answer("", True, 0.0)


@lru_cache(maxsize=128)
def _answer(grammar: str, text: str | None) -> Answer:
    line = json.dumps((grammar, text, LIMITS)).encode() + b"\n"
    began = time.monotonic()
    with _CHILDREN.lent() as child:
        told = child.tell(line, remaining())
    if not told:
        raise EOFError
    said, admits = json.loads(told)
    return Answer(said, admits, time.monotonic() - began)


@cache
def _warn(why: str) -> None:
    _LOG.warning("Grammars are compiled without a trial, as no process can be started: %s", why)


class _Child:
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
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUN, script, *map(str, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if not self.tell(b"", patience):
            raise OSError("it ends as it begins")

    @property
    def alive(self) -> bool:
        """Whether it can be told more."""
        return self._process.poll() is None

    def tell(self, line: bytes, seconds: float) -> bytes:
        """Return the answer to a line, nothing if the process crashed on it.

        Raises:
            OutOfTimeError: It takes longer than so many seconds.
        """
        assert self._process.stdin and self._process.stdout
        deadline = time.monotonic() + seconds
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        told = b""
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.write(line)
                self._process.stdin.flush()
                told = self._process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()  # it kills now or never: another one may have this child next
            if not told.endswith(b"\n"):
                self.end()
        if not told.endswith(b"\n") and time.monotonic() >= deadline:
            raise OutOfTimeError
        return told if told.endswith(b"\n") else b""

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self.disown()

    def disown(self) -> None:
        """Leave the process to the one that this one was forked from."""
        self._process.returncode = 0
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what is in the buffer of a broken pipe
                assert pipe is not None
                pipe.close()


class _Children:
    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew in a forked process, where locks may be held for ever."""
        for child in getattr(self, "_idle", ()):
            child.disown()
        self._idle: list[_Child] = []
        self._room = threading.BoundedSemaphore(_MOST)

    @contextmanager
    def lent(self) -> Iterator[_Child]:
        """Lend a child that nobody else has."""
        if not self._room.acquire(timeout=remaining()):
            raise OutOfTimeError
        try:
            child = self._waiting() or _Child()
            try:
                yield child
            finally:  # one that has ended is passed over
                self._idle.append(child)
        finally:
            self._room.release()

    def _waiting(self) -> _Child | None:
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                child = self._idle.pop()
                if child.alive:
                    return child
                child.end()
        return None

    def end(self) -> None:
        """End those that wait."""
        while child := self._waiting():
            child.end()


_CHILDREN = _Children()
atexit.register(_CHILDREN.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_CHILDREN.forget)
