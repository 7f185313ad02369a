"""One page that shows a result: no script, nothing loaded from elsewhere, all text escaped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from .figures import figures
from .findings import OF_TINY, findings, headline
from .tables import folded_tables, main_table, setting
from .words import in_words, meanings

Result = Mapping[str, Any]
LONGEST_EXAMPLE = 280
"""Characters of an answer among the examples."""


def write_report(result: Result, path: str | Path) -> Path:
    """Write a result as a page, and as JSON beside it.

    Args:
        result: A result of `compare`.
        path: Where the page goes, such as ``report.html``. Its figures need matplotlib; without
            it the page says so in their place.

    Returns:
        Where the JSON went: the same path with the ending ``.json``.
    """
    page, data = Path(path), Path(path).with_suffix(".json")
    page.write_text(render(result), encoding="utf-8")
    data.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return data


def render(result: Result) -> str:
    """Return a result as a self-contained page of HTML."""
    from jinja2 import Environment, StrictUndefined

    here = files(__package__)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"in_words": in_words, "shown_pieces": shown_pieces}
    template = environment.from_string((here / "report.html").read_text(encoding="utf-8"))
    style = (here / "report.css").read_text(encoding="utf-8")
    page = template.render(
        result=result,
        about=result["about"],
        style=style,
        figures=figures(result),
        headline=headline(result),
        findings=findings(result),
        main=main_table(result),
        folded=folded_tables(result),
        meanings=meanings(method["name"] for method in result["methods"]),
        setting=setting,
        of_tiny=OF_TINY,
    )
    return page.lstrip()


def shown_pieces(
    text: str, runs: Sequence[Sequence[str]] | None
) -> Iterator[tuple[bool, str, str]]:
    """Yield the beginning of an answer in pieces: whether it is base's, its white space, its words.

    Args:
        text: The answer.
        runs: The answer as ``[source, text]``, if it is known who gave which part.
    """
    left = LONGEST_EXAMPLE
    for source, piece in runs or [("", text)]:
        shown = piece if len(piece) <= left else piece[: max(left, 0)].rpartition(" ")[0]
        left -= len(piece)
        words = shown.lstrip()
        yield source == "base", shown[: len(shown) - len(words)], words
    if left < 0:
        yield False, " ", "…"
