"""`baco pairs` and `baco check`: which two models make a pair."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import ParameterError, nearest
from ..models.presets import PRESETS, Preset
from . import options

if TYPE_CHECKING:
    from ..models.check import PairReport


def pairs(as_json: options.Json = False) -> None:
    """List the pairs that have a short name.

    Parameters are those of one model; memory is what the weights of both
    models take together in bfloat16, without caches.
    """
    from .display import console, print_json

    if as_json:
        plain = [{**vars(p), "template_kwargs": dict(p.template_kwargs)} for p in PRESETS.values()]
        print_json({"pairs": plain})
        return
    lines = ["[bold]tiny[/]  1.6M parameters", "  comes with the package, for a first look"]
    for family, members in groupby(PRESETS.values(), key=lambda preset: preset.family):
        presets = list(members)
        note = f": {presets[0].note}" if presets[0].note else ""
        lines.append(f"\n[dim]{family}{note}[/]")
        for preset in presets:
            lines.append(f"[bold]{preset.name}[/]  {size(preset)}")
            lines += [f"  {preset.base}", f"  [dim]{preset.aligned}[/]"]
    out = console()
    out.print("\n".join(lines), soft_wrap=True)
    out.print(
        "\nparameters: of one model. memory: the weights of both together, in bfloat16; "
        "caches come on top.",
        style="dim",
    )


def size(preset: Preset) -> str:
    """Write how large a pair is, and whether it takes a login."""
    millions = preset.billions * 1000
    parameters = f"{millions:.0f}M" if millions < 1000 else f"{preset.billions:g}B"
    gibibytes = 2 * 2 * preset.billions * 1e9 / 2**30
    login = ", needs a login" if preset.gated else ""
    return f"{parameters} parameters, {gibibytes:.1f} GiB memory{login}"


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
        base, aligned = models_of(base)
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
        show(report)
    raise typer.Exit(0 if report.compatible else 1)


def models_of(name: str) -> tuple[str, str]:
    """Return the two models of a named pair.

    Raises:
        ParameterError: There is no such pair.
    """
    if name.lower() == "tiny":
        from ..tiny import WEIGHTS

        return str(WEIGHTS / "base"), str(WEIGHTS / "aligned")
    found = PRESETS.get(name.lower())
    if found is None:
        hint = nearest(name, ("tiny", *PRESETS))
        remedy = f"{hint}For models of your own: baco check BASE ALIGNED."
        raise ParameterError("base", "a pair's name where it stands alone", name, remedy)
    return found.base, found.aligned


def show(report: PairReport) -> None:
    """Print what the two models are, and whether they make a pair."""
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
