"""How a command ends when something goes wrong.

Invariant: an expected error, or Ctrl-C, is one line on stderr and an exit code. BACO_DEBUG=1 shows
tracebacks, and what libraries warn of.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NoReturn

import typer

from ..core.errors import BacoError


@contextmanager
def guarded() -> Iterator[None]:
    """End with exit code 2 for an error of ours, 1 for a file's, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        # A pipe that knows no such character gets a question mark instead of a traceback.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    debug = bool(os.environ.get("BACO_DEBUG"))
    try:
        with nullcontext() if debug else quiet():
            yield
    except BacoError as error:
        if debug:
            raise
        end(str(error), 2)
    except BrokenPipeError:
        raise  # the reader has closed the pipe; typer ends quietly
    except OSError as error:
        if debug:
            raise
        where = f": {error.filename}" if error.filename is not None else ""
        end(f"{error.strerror or error}{where}", 1)
    except KeyboardInterrupt as stop:
        end(str(stop) or "nothing is lost; the same command starts anew.", 130, "Stopped;")


def end(message: str, code: int, label: str = "Error:") -> NoReturn:
    """Say a message and leave with an exit code."""
    say(message, label)
    raise typer.Exit(code) from None


def say(message: str, label: str = "Error:") -> None:
    """Print an error or a note on stderr; one line, unless a terminal is too narrow for it."""
    from rich.text import Text

    from .display import console

    err = console(stderr=True)
    told = Text(f"{label} ", "bold red" if label == "Error:" else "bold yellow")
    err.print(told.append(message, "default not bold"), soft_wrap=not err.is_terminal)


@contextmanager
def stoppable(how: str = "the same command goes on where it was.") -> Iterator[None]:
    """Say after Ctrl-C how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries warn of and log from standing between our lines."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)
