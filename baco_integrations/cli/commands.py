"""Commands that speak of their own options, and groups whose errors are sentences.

Invariant: an option that cannot be heeded is refused rather than dropped, and an error of the
library names options where the library names parameters.
"""

from __future__ import annotations

import inspect
import re
import shutil
from collections import Counter
from inspect import cleandoc
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from ..core.errors import BacoError, ParameterError
from .errors import guarded
from .options import SIGNATURES

PYTHON_NAMES = {
    "messages": "prompt",
    "preset": "pair",
    "methods": "method",
    "method": "router",
    "qualities": "quality",
    "run": "folder",
}
"""Parameters of the library that have another name at a command."""
TEXTS = {"stop", "system", "title"}
"""Options whose values may hold commas."""
TABLE_WIDTH = 78


class Commands(TyperGroup):
    """A group of commands; the options of one are made only when it is called or asked for help."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; expected errors end it with one line and an exit code."""
        with guarded():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments name, with all of its options."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.complete() if isinstance(command, Command) else command, rest


class Command(TyperCommand):
    """A command that takes ``a,b`` for two values, and refuses two where one belongs."""

    def complete(self) -> Any:
        """Return this command with the options for settings that it takes (see `takes`)."""
        function: Any = inspect.unwrap(self.callback) if self.callback else None
        if function not in SIGNATURES:
            return self
        function.__signature__ = SIGNATURES[function]()
        whole = typer.Typer(add_completion=False, rich_markup_mode=self.rich_markup_mode)
        more: Any = {"epilog": self.epilog, "no_args_is_help": self.no_args_is_help}
        whole.command(self.name, cls=type(self), **more)(function)
        return get_command(whole)

    def make_parser(self, ctx: Any) -> Any:
        """Return a parser that checks how often each option is given."""
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            values, rest, order = parse(args)
            for param, times in Counter(order).items():
                if param.param_type_name == "option" and not param.is_flag:
                    values[param.name] = separate_values(ctx, param, values[param.name], times)
            return values, rest, order

        parser.parse_args = parse_args
        return parser

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors name its options where the library names parameters."""
        try:
            return super().invoke(ctx)
        except BacoError as error:
            raise BacoError(name_options(error, self.params)) from error

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print help, its paragraphs filled; where it is narrow, tables would cut long words."""
        given = self.help, self.epilog, self.rich_markup_mode
        self.help = re.sub(r"(?<!\n)\n(?!\n)", " ", cleandoc(self.help or ""))
        if shutil.get_terminal_size().columns < TABLE_WIDTH:
            self.epilog = re.sub(r"\[/?cyan\]", "", self.epilog or "")
            self.rich_markup_mode = None
        try:
            super().format_help(ctx, formatter)
        finally:
            self.help, self.epilog, self.rich_markup_mode = given


def separate_values(ctx: Any, param: Any, value: Any, times: int) -> Any:
    """Return an option's values, each on its own; several where one belongs are refused."""
    text = param.name in TEXTS
    if param.multiple:
        # A method's settings have commas too: `p-punc:first=aligned,boundary=false`.
        return value if text else [p for each in value for p in re.split(r",(?![^,:]*=)", each)]
    if times > 1 or (not text and re.fullmatch(r"[\d.]+(,[\d.]+)+", value)):
        several = " `baco compare` takes several." if param.name == "gamma" else ""
        ctx.fail(f"{label(param)} takes one value.{several}")
    return value


def name_options(error: BacoError, params: list[Any]) -> str:
    """Write an error's message with a command's options in the place of parameters."""
    own = {each.name: label(each) for each in params if each.name}
    own |= {each: own[name] for each, name in PYTHON_NAMES.items() if name in own}
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


def label(param: Any) -> str:
    """Name an option or an argument as it is shown in help."""
    option = param.param_type_name == "option"
    return max(param.opts, key=len) if option else str(param.metavar or param.name).upper()
