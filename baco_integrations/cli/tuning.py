"""`baco tune`: which router, gamma and temperature suit prompts of one's own."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import eval_options as c
from .errors import stoppable
from .options import LOADING, MODELS, Json, given_settings, named_models, open_pair, takes

if TYPE_CHECKING:
    from ..evaluation.statistics import Interval
    from ..evaluation.tuning import Suggestion

SHOWN = 8
"""Settings in the table."""


@takes(
    *("router", "gamma", "temperature", "max_tokens"),
    *(c.FORM, c.ROWS, *MODELS, *LOADING, *c.MEASURES),
    router=["p-punc", "h-punc", "p-fc"],
    gamma=[0.3, 0.6, 0.9],
    temperature=[0.3, 0.7, 1.0],
    n=8,
    seed=0,
)
def tune(
    prompts: Annotated[str, typer.Argument(help=c.PROMPTS, metavar="PROMPTS")],
    floor: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the aligned model's quality to keep.")
    ] = 0.9,
    limit: Annotated[int, typer.Option(min=1, help="So many prompts at most, evenly spread.")] = 30,
    out: Annotated[
        Path | None,
        typer.Option(help="Keep the answers in this folder; the same command then goes on."),
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Suggest router, gamma and temperature for prompts of your own, given a floor of quality.

    A small run at several settings; of those whose quality is above the floor
    with confidence, the one with most valid, different answers is suggested,
    with intervals, and with how often it would be on other such prompts.
    """
    from ..evaluation.methods import Grid
    from ..evaluation.tuning import tune as suggest
    from .display import bar, print_json

    asked = c.find_prompts(prompts, given["form"], limit)
    measures = c.load_measures(given, asked)
    pair = open_pair(given)
    kept = [] if out else ["nothing is kept; with --out FOLDER the same command would go on."]
    with stoppable(*kept), bar("Answering") as progress:
        found = suggest(
            pair,
            asked,
            floor=floor,
            routers=tuple(given["router"]),
            grid=Grid(tuple(given["gamma"]), tuple(given["temperature"])),
            out=out,
            progress=progress,
            **c.answer_settings(given, prompts, ("n", "max_tokens", "seed", "rows")),
            **measures,
        )
    models = {} if named_models(given) else {"pair": "tiny"}
    models |= given_settings(given, ("pair", "model", "base", "aligned", "base_prompt"))
    lines = pasted({**models, **found.best.settings})
    if as_json:
        print_json({**rounded(asdict(found)), **lines})
    else:
        show(found, lines)


def pasted(settings: dict[str, Any]) -> dict[str, str]:
    """Return settings as they are pasted into Python and into a shell."""
    python = ", ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
    flags = ((f"--{name.replace('_', '-')}", str(value)) for name, value in settings.items())
    words = shlex.join(word for flag in flags for word in flag)
    return {"python": f"ChatBACo({python})", "cli": f'baco generate "..." {words}'}


def rounded(value: Any) -> Any:
    """Return plain data with its figures to four places; tuples become lists, as in JSON."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def show(found: Suggestion, lines: dict[str, str]) -> None:
    """Print the suggestion, how sure it is, and what else was tried; then `lines`, one per line."""
    from rich.padding import Padding
    from rich.text import Text

    from ..evaluation.tuning import describe
    from .display import console, quiet_table

    out = console()
    best, aligned = found.best, found.aligned
    out.print(Text.assemble("Suggested: ", (describe(best), "bold")))
    out.print(
        f"Valid, different answers of {found.k}: {with_ends(best.valid_distinct)}; aligned alone "
        f"{with_ends(aligned.valid_distinct)}.\n"
        f"Quality: {with_ends(best.quality, 2)}; aligned alone {with_ends(aligned.quality, 2)}, "
        f"of which {found.floor:.0%} had to be kept.\n"
        f"It comes out first in {best.agreement:.0%} of the resamples of {found.prompts} prompts."
    )
    for doubt in found.doubts:
        out.print(Text.assemble(("Doubt: ", "bold yellow"), doubt))
    table = quiet_table("Setting", "valid, different", "quality", "first in")
    for one in found.candidates[:SHOWN]:
        name = describe(one) + ("" if one.safe else "  (below the floor)")
        cells = (with_ends(one.valid_distinct), with_ends(one.quality, 2))
        table.add_row(name, *cells, f"{one.agreement:.0%}")
    out.print(Padding(table, (1, 0)))
    for line in lines.values():
        out.print(Text(line), soft_wrap=True)


def with_ends(found: Interval, places: int = 1) -> str:
    """Write an interval as its value and its two ends."""
    value, low, high = (f"{number:.{places}f}" for number in found)
    return f"{value} [{low}, {high}]"
