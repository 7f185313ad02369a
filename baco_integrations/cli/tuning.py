"""`baco tune`: which router, gamma and temperature suit prompts of one's own."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import eval_options as c
from . import options
from .errors import stoppable

if TYPE_CHECKING:
    from ..evaluation.statistics import Interval
    from ..evaluation.tuning import Suggestion

_SHOWN = 8  # settings in the table


def tune(
    prompts: Annotated[
        str,
        typer.Argument(
            help="'tiny' (the embedded world), 'own' (100 of ours), or a file.", metavar="PROMPTS"
        ),
    ],
    floor: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the aligned model's quality to keep.")
    ] = 0.9,
    form: c.Form = "auto",
    limit: Annotated[int, typer.Option(min=1, help="So many prompts at most, evenly spread.")] = 30,
    router: Annotated[
        list[str] | None,
        typer.Option(
            help="A router to try; may be given several times.",
            show_default="p-punc, h-punc, p-fc",
        ),
    ] = None,
    gamma: Annotated[
        list[float] | None,
        typer.Option(help="A gamma to try, likewise.", show_default="0.3, 0.6, 0.9"),
    ] = None,
    temperature: Annotated[
        list[float] | None,
        typer.Option(help="A temperature to try, likewise.", show_default="0.3, 0.7, 1.0"),
    ] = None,
    n: c.Samples = 8,
    max_tokens: c.MaxTokens = 256,
    seed: Annotated[int, typer.Option(help="Repeats the answers.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Keep the answers in this folder; the same command then goes on."),
    ] = None,
    rows: c.Rows = None,
    pair: options.Pair = None,
    base: options.Base = None,
    aligned: options.Aligned = None,
    base_prompt: options.BasePrompt = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    similarity: c.Similarity = None,
    quality: c.Quality = None,
    as_json: options.Json = False,
) -> None:
    """Suggest router, gamma and temperature for prompts of your own, given a floor of quality.

    A small run at several settings; of those whose quality is above the floor
    with confidence, the one with most valid, different answers is suggested,
    with intervals, and with how often it would be on other such prompts.
    """
    from ..evaluation.methods import Grid
    from ..evaluation.tuning import GRID, ROUTERS
    from ..evaluation.tuning import tune as suggested
    from .display import print_json

    asked = c.find_prompts(prompts, form, limit)
    given = c.find_measures(similarity, quality, asked)
    speaker = options.open_pair(
        pair, base, aligned, dtype=dtype, device=device, base_prompt=base_prompt
    )
    kept = [] if out else ["nothing is kept; with --out FOLDER the same command would go on."]
    with stoppable(*kept), c.bar("Answering") as progress:
        found = suggested(
            speaker,
            asked,
            floor=floor,
            routers=tuple(router or ROUTERS),
            grid=Grid(tuple(gamma or GRID.knobs), tuple(temperature or GRID.temperatures)),
            n=n,
            max_tokens=max_tokens,
            seed=seed,
            out=out,
            rows=rows,
            progress=progress,
            **given,
        )
    models = {"base": base, "aligned": aligned} if base else {"pair": pair or "tiny"}
    lines = _lines(found.best.settings, models, base_prompt)
    if as_json:
        print_json({**_plain(asdict(found)), **lines})
    else:
        _show(found, lines)


def _lines(
    settings: dict[str, Any], models: dict[str, Any], base_prompt: str | None
) -> dict[str, str]:
    """Return the suggestion as it is pasted into Python and into a shell."""
    told = models | ({"base_prompt": base_prompt} if base_prompt else {}) | settings
    python = ", ".join(f"{name}={json.dumps(value)}" for name, value in told.items())
    words = shlex.join(
        part for name, value in told.items() for part in (f"--{name.replace('_', '-')}", str(value))
    )
    return {"python": f"ChatBACo({python})", "cli": f'baco generate "..." {words}'}


def _plain(value: Any) -> Any:
    """Turn intervals into lists, which is what JSON would do, with figures to four places."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def _show(found: Suggestion, lines: dict[str, str]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from ..evaluation.tuning import describe
    from .display import console, quiet_table

    out = console()
    best, aligned = found.best, found.aligned
    out.print(Text.assemble("Suggested: ", (describe(best), "bold")))
    out.print(
        f"Valid, different answers of {found.k}: {_with_ends(best.valid_distinct)}; aligned alone "
        f"{_with_ends(aligned.valid_distinct)}.\n"
        f"Quality: {_with_ends(best.quality, 2)}; aligned alone {_with_ends(aligned.quality, 2)}, "
        f"of which {found.floor:.0%} had to be kept.\n"
        f"It comes out first in {best.agreement:.0%} of the resamples of {found.prompts} prompts."
    )
    for doubt in found.doubts:
        out.print(Text.assemble(("Doubt: ", "bold yellow"), doubt))
    table = quiet_table("Setting", "valid, different", "quality", "first in")
    for one in found.candidates[:_SHOWN]:
        name = describe(one) + ("" if one.safe else "  (below the floor)")
        cells = (_with_ends(one.valid_distinct), _with_ends(one.quality, 2))
        table.add_row(name, *cells, f"{one.agreement:.0%}")
    out.print(Padding(table, (1, 0)))
    for line in lines.values():
        out.print(Text(line), soft_wrap=True)


def _with_ends(found: Interval, places: int = 1) -> str:
    value, low, high = (f"{number:.{places}f}" for number in found)
    return f"{value} [{low}, {high}]"
