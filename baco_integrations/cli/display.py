"""How things look: consoles, the colours of the two sides, columns, and JSON that stays alone.

Invariant: it is always visible which model gave a token: by colour; by underlining where colour is
not wanted; by brackets where there is no terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any, NamedTuple

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..core.outputs import Completion, TokenStep

STYLES = {"base": "color(166)", "aligned": "color(32)"}
"""Orange and blue: apart for every kind of eye, and readable on dark and on light."""
MAX_WIDTH, MIN_COLUMN, MAX_WORD = 120, 26, 16
"""Characters: of all columns together, of one column, and of what is kept waiting as one word."""

# What a terminal would take for a command is shown as a sign instead: models and files may say
# anything. Lines and tabs stay, and a carriage return, which only ends lines here, goes.
_SIGNS = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    **dict.fromkeys(range(0x7F, 0xA0), 0xFFFD),
    ord("\r"): None,
}


class SafeConsole(Console):
    """A console that prints control characters in texts as visible signs, if on a terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render; control characters remain only in rich's own control segments."""
        signs = _SIGNS if self.is_terminal else {}
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else text.translate(signs), style, control)


def console(stderr: bool = False) -> Console:
    """Return a console for answers, or for everything else."""
    return SafeConsole(stderr=stderr, highlight=False)


@contextmanager
def busy(what: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that work is going on; yield a function that shows which part of it."""
    err = console(stderr=True)
    if not err.is_terminal:
        yield lambda detail: None
        return
    with err.status(f"[dim]{what} ...", spinner_style="dim") as status:
        yield lambda detail: status.update(f"[dim]{what}: {detail} ...")


@contextmanager
def bar(what: str) -> Iterator[Callable[..., None]]:
    """Show a progress bar on a terminal; yield a function of the done, the total and a label."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    err = console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as shown:
        task = shown.add_task(what, total=None)

        def progress(done: int, total: int, of: str = what) -> None:
            shown.update(task, completed=done, total=total, description=of)

        yield progress


def print_json(document: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(document, indent=2))


def paint(steps: Iterable[TokenStep], out: Console) -> Iterator[Text]:
    """Mark who gave each token as the tokens come."""
    return paint_pieces(((step.source, step.text) for step in steps), out)


def paint_pieces(pieces: Iterable[Sequence[str]], out: Console) -> Iterator[Text]:
    """Mark who gave each piece of a text, ``(source, text)``, as the pieces come."""
    brackets, opened = out.color_system is None, False
    styles = {"base": "underline", "aligned": ""} if out.no_color else STYLES
    for source, piece in pieces:
        word = piece.lstrip()
        text = Text(piece[: len(piece) - len(word)])
        from_base = source == "base"
        if brackets and from_base != opened and (word or (opened and text)):
            text = text + "[" if from_base else Text("]") + text
            opened = from_base
        yield text.append(word, styles[source])
    if opened:
        yield Text("]")


def flow(texts: Iterable[Text], out: Console) -> None:
    """Print text as it comes; on a terminal, a word that does not fit begins a new line."""
    if not out.is_terminal:
        for text in texts:
            out.out(text.plain, end="", highlight=False)
    else:
        column = 0
        for word in join_words(texts):
            if word.plain.startswith(" ") and column + word.cell_len > out.width:
                word = Text("\n").append_text(word[1:])
            out.print(word, end="", soft_wrap=True)
            _, broken, line = word.plain.rpartition("\n")
            column = (cell_len(line) + (0 if broken else column)) % out.width
    out.print()


def join_words(texts: Iterable[Text]) -> Iterator[Text]:
    """Join pieces up to the next white space; what has none, as in Chinese, is not kept waiting."""
    word = Text()
    for text in texts:
        if text.plain[:1].isspace() or word.cell_len > MAX_WORD:
            yield word
            word = Text()
        word.append_text(text)
    yield word


def painted(completion: Completion, out: Console) -> Text:
    """Return a whole answer with its marks; where one side gave all of it, only colour is shown."""
    if completion.router in STYLES and (out.color_system is None or out.no_color):
        return Text(completion.text.rstrip())
    text = Text().join(paint(completion.steps, out))
    text.rstrip()
    return text


def legend(out: Console) -> Text:
    """Say what the marks mean."""
    if out.color_system is None:
        return Text("tokens from [base] and aligned")
    base, aligned = ("underline", "") if out.no_color else STYLES.values()
    return Text.assemble("tokens from ", ("base", base), " and ", ("aligned", aligned))


def how(completion: Completion) -> str:
    """Say in a few words how an answer was decoded."""
    gamma = "" if completion.gamma is None else f" gamma {completion.gamma:g}"
    label = ", approximate" if completion.approximate else ""
    return f"{completion.router}{gamma}{label}"


def summary(completion: Completion) -> str:
    """Say in a line how an answer was decoded."""
    return (
        f"{how(completion)} · base gave {completion.base_share:.0%} of {len(completion.steps)} "
        f"tokens · {completion.switches} switches"
    )


def column_title(completion: Completion) -> Text:
    """Name a column by how its answers were decoded."""
    if completion.router in STYLES:
        return Text(f"{completion.router} alone", f"bold {STYLES[completion.router]}")
    return Text(f"BACo, {how(completion)}", "bold")


class Column(NamedTuple):
    """One way of decoding, and what came of it: answers, each with a mark of one character."""

    title: Text
    answers: Sequence[tuple[str, Text]]
    footer: str


def print_columns(columns: Sequence[Column], out: Console) -> None:
    """Print columns side by side; on a narrow terminal, in several tables."""
    width = min(out.width, MAX_WIDTH)
    tables = ceil(len(columns) / max(width // MIN_COLUMN, 1))
    each = ceil(len(columns) / tables)
    for start in range(0, len(columns), each):
        table = quiet_table(width=width, show_footer=True)
        cells = []
        for column in columns[start : start + each]:
            table.add_column(column.title, Text(column.footer, "bold"), ratio=1)
            cells.append(Table.grid(padding=(0, 1, 0, 0)))
            for mark, answer in column.answers:  # wrapped lines stand apart from the marks
                cells[-1].add_row(mark, answer)
        table.add_row(*cells)
        out.print(table, "")


def quiet_table(*headers: str, **settings: Any) -> Table:
    """Return a table of few lines, flush with the text around it."""
    quiet: Any = {"box": box.HORIZONTALS, "show_edge": False, "pad_edge": False}
    return Table(*headers, border_style="dim", **quiet, **settings)
