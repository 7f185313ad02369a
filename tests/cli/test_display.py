"""How answers look, in colour, without it, and without a terminal."""

import io
from typing import Any

from rich.console import Console
from rich.text import Text

from baco_integrations.cli.display import Column, SafeConsole, console, flow, paint, print_columns
from baco_integrations.core.outputs import TokenStep
from baco_integrations.core.routing import Source
from tests.commands import ASK, baco

COLOUR = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": None}


def steps(*tokens: tuple[str, Source]) -> list[TokenStep]:
    return [TokenStep(0, text, source, 1, 1, 1, 1, 0, False) for text, source in tokens]


PICK = steps(
    ("I pick", "aligned"), (" Lis", "base"), ("", "base"), ("bon", "base"), (".", "aligned"),
    (" ", "base"), ("Yes", "base"), ("\n", "aligned"), ("No", "base"),
)  # fmt: skip


def flowed(**settings: Any) -> str:
    out = Console(file=io.StringIO(), **{"width": 80, "no_color": False} | settings)
    flow(paint(PICK, out), out)
    return out.file.getvalue()  # type: ignore[attr-defined]


def test_a_trace_follows_the_environment() -> None:
    args = (*ASK, "--trace", "--router", "base")
    coloured, underlined = (baco(*args, env=COLOUR | more) for more in ({}, {"NO_COLOR": "1"}))
    assert "\x1b[38;5;166m" in coloured.stdout
    assert "\x1b[4m" in underlined.stdout and "38;5" not in underlined.stdout
    assert baco(*args).stdout.startswith("[")
    assert "100%" in coloured.stderr and "seed 5" in coloured.stderr


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
