"""How commands are read, and how they end when something goes wrong.

Invariant: an expected error, or Ctrl-C, is one line on stderr, in the words of the command line,
and an exit code; an option that cannot be heeded is refused rather than dropped.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import cleandoc
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..core.errors import BacoError, ParameterError

_PYTHON = {
    "messages": "prompt",
    "device_map": "device",
    "preset": "pair",
    "n": "samples",
    "methods": "method",
    "method": "router",
    "qualities": "quality",
    "run": "folder",
}
"""Parameters of the library that have another name on the command line."""
_TABLE_WIDTH = 78


class Guarded(TyperGroup):
    """Commands whose expected errors are sentences; BACO_DEBUG=1 shows their tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command: exit code 2 for an error of ours, 1 for a file's, 130 for Ctrl-C."""
        for stream in (sys.stdout, sys.stderr):
            # A pipe that knows no such character gets a question mark instead of a traceback.
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        debug = bool(os.environ.get("BACO_DEBUG"))
        with _quiet(not debug):
            try:
                return super().invoke(ctx)
            except BacoError as error:
                if debug:
                    raise
                say(str(error))
                raise typer.Exit(2) from None
            except BrokenPipeError:
                raise  # whoever read has seen enough; typer ends quietly
            except OSError as error:
                if debug:
                    raise
                where = f": {error.filename}" if error.filename is not None else ""
                say(f"{error.strerror or error}{where}")
                raise typer.Exit(1) from None
            except RuntimeError as error:
                # An extension may put an error of its own in the place of Ctrl-C's.
                if "KeyboardInterrupt" not in str(error):
                    raise
                say("the same command starts anew, or goes on where it was.", "Stopped", ";")
                raise typer.Exit(130) from None
            except KeyboardInterrupt as stop:
                say(str(stop) or "nothing is lost; the same command starts anew.", "Stopped", ";")
                raise typer.Exit(130) from None


class Command(TyperCommand):
    """A command that speaks of its own options, and takes none of them in vain."""

    def make_parser(self, ctx: Any) -> Any:
        """Return a parser that takes ``a,b`` for two values, and refuses two where one belongs."""
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            values, rest, order = parse(args)
            for param, times in Counter(order).items():
                if param.param_type_name == "option" and not param.is_flag:
                    values[param.name] = _listed(ctx, param, values[param.name], times)
            return values, rest, order

        parser.parse_args = parse_args
        return parser

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors name its options where the library names parameters."""
        try:
            return super().invoke(ctx)
        except BacoError as error:
            raise BacoError(self._in_its_words(error)) from error

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print help, its paragraphs filled; where it is narrow, tables would cut long words."""
        given = self.help, self.epilog, self.rich_markup_mode
        self.help = re.sub(r"(?<!\n)\n(?!\n)", " ", cleandoc(self.help or ""))
        if shutil.get_terminal_size().columns < _TABLE_WIDTH:
            self.epilog = re.sub(r"\[/?cyan\]", "", self.epilog or "")
            self.rich_markup_mode = None
        try:
            super().format_help(ctx, formatter)
        finally:
            self.help, self.epilog, self.rich_markup_mode = given

    def _in_its_words(self, error: BacoError) -> str:
        own = {each.name: _label(each) for each in self.params if each.name}
        own |= {each: own[name] for each, name in _PYTHON.items() if name in own}
        text = str(error)
        if isinstance(error, ParameterError):
            name = error.parameter.partition("[")[0]
            text = own.get(name, error.parameter) + text.removeprefix(error.parameter)
        # Words of English, such as "base", are parameters only where a value is given to them.
        known = "|".join(map(re.escape, own))
        text = re.sub(rf"\b({known})='([^']*)'", lambda m: f"{own[m[1]]} {m[2]}", text)
        text = re.sub(rf"\b({known})=", lambda m: f"{own[m[1]]} ", text)
        python = "|".join(name for name in own if "_" in name)
        return re.sub(rf"(?<!-)\b({python})\b", lambda m: own[m[1]], text) if python else text


def _label(param: Any) -> str:
    option = param.param_type_name == "option"
    return max(param.opts, key=len) if option else str(param.metavar or param.name).upper()


def _listed(ctx: Any, param: Any, value: Any, times: int) -> Any:
    """Return the values that were given, each on its own; text that is shown or matched stays."""
    text = param.name in _TEXTS
    if param.multiple:
        # A method's settings have commas too: `p-punc:first=aligned,boundary=false`.
        parts = [part for each in value for part in re.split(r",(?![^,:]*=)", each)]
        return value if text else parts
    if times > 1 or (not text and re.fullmatch(r"[\d.]+(,[\d.]+)+", value)):
        several = " `baco compare` takes several." if param.name == "gamma" else ""
        ctx.fail(f"{_label(param)} takes one value.{several}")
    return value


_TEXTS = {"stop", "system", "title"}


@contextmanager
def stoppable(how: str = "the same command goes on where it was.") -> Iterator[None]:
    """Say after Ctrl-C how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how) from None


@contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    """Keep what libraries warn of and log from standing between our lines."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        if wanted:
            warnings.simplefilter("ignore")
            logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)


def say(message: str, kind: str = "Error", mark: str = ":") -> None:
    """Print an error or a note on stderr; one line, unless a terminal is too narrow for it."""
    from rich.text import Text

    from .display import console

    err = console(stderr=True)
    label = Text(f"{kind}{mark} ", "bold red" if kind == "Error" else "bold yellow")
    err.print(label.append(message, "default not bold"), soft_wrap=not err.is_terminal)
