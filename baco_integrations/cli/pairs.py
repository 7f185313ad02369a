"""`baco pairs` and `baco check`: which two models make a pair."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..pair.presets import PRESETS, Preset
from . import options

if TYPE_CHECKING:
    from ..pair.report import PairReport


def pairs(as_json: options.Json = False) -> None:
    """List the pairs that have a short name.

    Sizes are those of one model; memory is what the weights of both take in
    bfloat16.
    """
    from rich.text import Text

    from .screen import console, print_json, quiet_table

    if as_json:
        print_json({"pairs": [_plain(preset) for preset in PRESETS.values()]})
        return
    table = quiet_table("name")
    table.add_column("base\n[dim]aligned", no_wrap=True)
    table.add_column("each\n[dim]memory", justify="right", no_wrap=True)
    table.add_column("notes", ratio=1)
    table.add_row(
        "[bold]tiny",
        "comes with the package",
        "1.5M",
        "for a first look, and tests",
        end_section=True,
    )
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
    console().print(table)


def _size(preset: Preset) -> str:
    millions = preset.billions * 1000
    return f"{millions:.0f}M" if millions < 1000 else f"{preset.billions:g}B"


def _gibibytes(preset: Preset) -> float:
    return 2 * 2 * preset.billions * 1e9 / 2**30


def _plain(preset: Preset) -> dict[str, Any]:
    return {**vars(preset), "template_kwargs": dict(preset.template_kwargs)}


def check(
    base: Annotated[str, typer.Argument(help="The base model, an id or a folder.")],
    aligned: Annotated[str, typer.Argument(help="Its aligned counterpart.")],
    as_json: options.Json = False,
) -> None:
    """Tell whether two models make a pair, without reading or fetching their weights.

    The exit code is 0 if they do and 1 if they do not.
    """
    from .screen import busy, print_json

    with busy("Reading tokenizers and configurations"):
        from ..pair.model_pair import ModelPair

        report = ModelPair.check(base, aligned)
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)
    raise typer.Exit(0 if report.compatible else 1)


def _show(report: PairReport) -> None:
    from rich.text import Text

    from ..pair.memory import readable
    from .screen import STYLES, console, quiet_table

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
    if report.compatible:
        out.print("[bold green]✓[/] The two make a pair.")
