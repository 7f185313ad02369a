"""A report in the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ParameterError

if TYPE_CHECKING:
    from rich.console import Console

    from ..evaluation.tables import Table
    from .display import Column

Result = Mapping[str, Any]


def read_result(run: Path) -> tuple[Path, dict[str, Any]]:
    """Return where a run's result is, and the result.

    Args:
        run: A run's folder, or a report's JSON.

    Raises:
        ParameterError: There is no result.
    """
    file = run / "report.json" if run.is_dir() else run
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if "methods" not in result:
            raise ValueError("it is no report")
    except (OSError, ValueError) as error:
        allowed = "a run's folder with a report, or a report's JSON"
        remedy = f"{error}. Make one: baco eval report RUN."
        raise ParameterError("RUN", allowed, str(run), remedy) from error
    return file, result


def show_result(result: Result, out: Console) -> None:
    """Print what was found, examples, and the main table; of an unfinished run, that it is not."""
    from rich.text import Text

    from ..evaluation.findings import findings, headline
    from ..evaluation.tables import main_table
    from .display import legend, print_columns

    unfinished = "unfinished" in result
    if unfinished:
        out.print(Text(f"No conclusions yet. {headline(result)}", "bold"), "", sep="\n")
    out.print(Text(result["about"].get("title") or "Breadth and quality", "bold"))
    if not unfinished:
        out.print(Text(headline(result)))
    for example in result["examples"][:1]:
        out.print("", Text(example["prompt"], "bold"), "", sep="\n")
        print_columns([example_column(result, shown, out) for shown in example["answers"]], out)
        out.print(legend(out), "", sep="\n")
    print_table(main_table(result), out)
    for sentence in () if unfinished else findings(result):
        out.print(Text(f"- {sentence}"))


def example_column(result: Result, shown: Mapping[str, Any], out: Console) -> Column:
    """Return one method's answers as a column, marked by source where it is known."""
    from rich.text import Text

    from ..evaluation.tables import setting
    from ..evaluation.words import in_words
    from .display import Column, paint_pieces

    kinds = {method["name"]: method["kind"] for method in result["methods"]}
    texts = []
    for answer, runs in zip(shown["answers"], shown["sources"] or shown["answers"], strict=True):
        text = Text(answer)
        if shown["sources"] and runs:
            *before, (source, last) = runs
            text = Text().join(paint_pieces([*before, (source, last.rstrip())], out))
        texts.append(("•", text))
    title = Text(in_words(shown["method"]), "bold")
    return Column(title, texts, setting(shown, kinds[shown["method"]]))


def print_table(table: Table, out: Console) -> None:
    """Print a table, with the interval of its first column; the best of a column is bold."""
    from rich.text import Text

    from .display import quiet_table

    first, *others = table.columns
    printed = quiet_table(first, title=Text(table.caption, "dim"), title_justify="left")
    for column in others:
        printed.add_column(column, justify="right")
    for row in table.rows:
        texts = [Text(cell.text, "bold" if cell.kind == "best" else "") for cell in row.cells]
        texts[0].append(f" ({row.cells[0].below})" if row.cells[0].below else "", "not bold dim")
        printed.add_row(Text(row.name), *texts)
    out.print(printed, "")
