"""How commands end when something goes wrong: one line on stderr, and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from ..core.errors import BacoError


class Guarded(TyperGroup):
    """Commands whose expected errors are sentences; BACO_DEBUG=1 shows their tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command: exit code 2 for an error of ours, 130 for Ctrl-C."""
        for stream in (sys.stdout, sys.stderr):
            # A pipe that knows no such character gets a question mark instead of a traceback.
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(str(message), "Note")
            try:
                return super().invoke(ctx)
            except BacoError as error:
                if os.environ.get("BACO_DEBUG"):
                    raise
                say(str(error))
                raise typer.Exit(2) from None
            except BrokenPipeError:
                raise  # whoever read has seen enough; typer ends quietly
            except OSError as error:
                say(f"{error.strerror or error}")
                raise typer.Exit(1) from None
            except KeyboardInterrupt:
                raise typer.Exit(130) from None


def say(message: str, kind: str = "Error") -> None:
    """Print an error or a note on stderr; one line, unless a terminal is too narrow for it."""
    from rich.text import Text

    from .screen import console

    err = console(stderr=True)
    label = Text(f"{kind}: ", "bold red" if kind == "Error" else "bold yellow")
    err.print(label.append(message, "default not bold"), soft_wrap=not err.is_terminal)
