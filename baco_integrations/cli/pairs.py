"""`baco pairs` and `baco check`: which two models make a pair."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ParameterError, nearest
from ..models.presets import PRESETS, Preset
from . import options

if TYPE_CHECKING:
    from rich.console import Console

    from ..models.check import PairReport


def pairs(as_json: options.Json = False) -> None:
    """List the pairs that have a short name.

    Parameters are those of one model; memory is what the weights of both
    models take together in bfloat16, without caches.
    """
    from .display import console, print_json

    if as_json:
        print_json({"pairs": [_plain(preset) for preset in PRESETS.values()]})
        return
    out = console()
    (_print_table if out.width >= _TABLE_WIDTH else _print_list)(out)
    out.print(
        f"\n{_OF_ONE}: of one model. {_OF_BOTH}: the weights of both together, in bfloat16; "
        "caches come on top.",
        style="dim",
    )


_OF_ONE, _OF_BOTH, _TABLE_WIDTH = "parameters", "memory", 78


def _print_table(out: Console) -> None:
    from rich.text import Text

    from .display import quiet_table

    table = quiet_table("name")
    table.columns[0].no_wrap = True
    table.add_column("base\n[dim]aligned", no_wrap=True)
    table.add_column(f"{_OF_ONE}\n[dim]{_OF_BOTH}", justify="right", no_wrap=True)
    table.add_column("notes", ratio=1, overflow="fold")
    table.add_row(*_TINY, end_section=True)
    for _, members in groupby(PRESETS.values(), key=lambda preset: preset.family):
        note = None
        for preset in members:
            table.add_row(
                Text.assemble(
                    (preset.name, "bold"), ("\nneeds a login" if preset.gated else "", "dim")
                ),
                f"{preset.base}\n[dim]{preset.aligned}",
                f"{_size(preset)}\n[dim]{_gibibytes(preset):.1f} GiB",
                "" if preset.note == note else preset.note,
            )
            note = preset.note
        table.add_section()
    out.print(table)


def _print_list(out: Console) -> None:
    """Put what a table has side by side below each other, so that names stay whole."""
    name, what, size, note = _TINY
    out.print(f"{name}  {size} {_OF_ONE}\n[dim]  {what}; {note}")
    for preset in PRESETS.values():
        out.print(
            f"[bold]{preset.name}[/]  {_size(preset)} {_OF_ONE}, {_gibibytes(preset):.1f} GiB"
            + (", needs a login" if preset.gated else "")
            + f"\n  {preset.base}\n  [dim]{preset.aligned}",
            soft_wrap=True,
        )


_TINY = ("[bold]tiny[/]", "comes with the package", "1.6M", "for a first look, and tests")


def _size(preset: Preset) -> str:
    millions = preset.billions * 1000
    return f"{millions:.0f}M" if millions < 1000 else f"{preset.billions:g}B"


def _gibibytes(preset: Preset) -> float:
    return 2 * 2 * preset.billions * 1e9 / 2**30


def _plain(preset: Preset) -> dict[str, Any]:
    return {**vars(preset), "template_kwargs": dict(preset.template_kwargs)}


def check(
    base: Annotated[
        str, typer.Argument(help="The base model, an id or a folder; or the name of a pair.")
    ],
    aligned: Annotated[
        str | None,
        typer.Argument(help="Its aligned counterpart; none beside the name of a pair."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Tell whether two models make a pair, without reading or fetching their weights.

    The exit code is 0 if they do and 1 if they do not.
    """
    from .display import busy, print_json

    if aligned is None:
        base, aligned = _models(base)
    for name in (base, aligned):
        if name.lower() in ("tiny", *PRESETS) and not Path(name).exists():
            remedy = f"Run: baco check {name.lower()}."
            raise ParameterError("aligned", "left out beside the name of a pair", aligned, remedy)

    with busy("Reading tokenizers and configurations"):
        from ..models.pair import ModelPair

        report = ModelPair.check(base, aligned)
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)
    raise typer.Exit(0 if report.compatible else 1)


def _models(name: str) -> tuple[str, str]:
    """Return the two models of a named pair."""
    if name.lower() == "tiny":
        from ..tiny import WEIGHTS

        return str(WEIGHTS / "base"), str(WEIGHTS / "aligned")
    found = PRESETS.get(name.lower())
    if found is None:
        hint = nearest(name, ("tiny", *PRESETS))
        remedy = f"{hint}For models of your own: baco check BASE ALIGNED."
        raise ParameterError("base", "a pair's name where it stands alone", name, remedy)
    return found.base, found.aligned


def _show(report: PairReport) -> None:
    from rich.text import Text

    from ..models.memory import readable
    from .display import STYLES, console, quiet_table

    out = console()
    table = quiet_table("")
    for side in ("base", "aligned"):
        table.add_column(Text(side, f"bold {STYLES[side]}"), overflow="fold")
    sides = (report.base, report.aligned)
    rows = {
        "model": [side.model for side in sides],
        "architecture": [side.architecture for side in sides],
        "parameters": [f"{side.parameters:,}" for side in sides],
        "vocabulary": [f"{side.vocabulary:,}" for side in sides],
        "context": [f"{side.context:,}" for side in sides],
        "ends a turn with": [" ".join(side.end_tokens) for side in sides],
        "chat template": ["yes" if side.template else "no" for side in sides],
    }
    for name, cells in rows.items():
        table.add_row(Text(name, "dim"), *map(Text, cells))
    out.print(table, "")
    out.print(f"{report.shared_vocabulary:,} tokens mean the same to both.")
    sizes = [f"{readable(size)} in {name}" for name, size in report.bytes.items()]
    out.print(f"Weights of both: {', '.join(sizes)}.")
    for note in report.notes:
        out.print(Text(f"Note: {note}"))
    for problem in report.problems:
        out.print(Text.assemble(("✗ ", "bold red"), problem))
    if report.compatible and report.one_model:
        out.print("[bold yellow]![/] One model can be decoded as a pair, with what the note says.")
    elif report.compatible:
        out.print("[bold green]✓[/] The two make a pair.")
