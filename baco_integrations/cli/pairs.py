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
        str,
        typer.Argument(
            help="The base model: id, folder or GGUF file; or the name of a pair; or one instruct"
            " model."
        ),
    ],
    aligned: Annotated[
        str | None,
        typer.Argument(help="Its aligned counterpart; none beside a pair or one model."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Tell whether two models make a pair, without reading or fetching their weights.

    One model alone is both sides: base is shown a plain prompt, aligned the
    chat template. A GGUF file on the hub is fetched whole.
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
    """Return the two models of a named pair; of one model's folder or id, that model twice.

    Raises:
        ParameterError: There is neither.
    """
    if "/" in name or Path(name).is_dir():
        return name, name
    if name.lower() == "tiny":
        from ..tiny import WEIGHTS

        return str(WEIGHTS / "base"), str(WEIGHTS / "aligned")
    found = PRESETS.get(name.lower())
    if found is None:
        hint = nearest(name, ("tiny", *PRESETS))
        remedy = f"{hint}For models of your own: baco check BASE ALIGNED."
        allowed = "a pair's name, a folder or ORG/MODEL where it stands alone"
        raise ParameterError("base", allowed, name, remedy)
    return found.base, found.aligned


def show(report: PairReport) -> None:
    """Print what the two models are, and whether they make a pair."""
    from rich.text import Text

    from ..models.memory import readable
    from .display import STYLES, console, quiet_table

    out = console()
    table = quiet_table("")
    sides = {"base": report.base, "aligned": report.aligned}
    both = report.kind == "one-model"
    if both:
        sides = {"both sides": report.aligned}
    for name in sides:
        table.add_column(Text(name, f"bold {STYLES.get(name, '')}"), overflow="fold")
    rows = {
        "model": [side.model for side in sides.values()],
        "architecture": [side.architecture for side in sides.values()],
        "parameters": [f"{side.parameters:,}" for side in sides.values()],
        "vocabulary": [f"{side.vocabulary:,}" for side in sides.values()],
        "context": [f"{side.context:,}" for side in sides.values()],
        "ends a turn with": [" ".join(side.end_tokens) for side in sides.values()],
        "chat template": ["yes" if side.template else "no" for side in sides.values()],
    }
    for name, cells in rows.items():
        table.add_row(Text(name, "dim"), *map(Text, cells))
    out.print(table, "")
    out.print(f"{report.shared_vocabulary:,} tokens mean the same to both.")
    weights = [f"{readable(size)} in {name}" for name, size in report.bytes.items()]
    out.print(f"Weights{', once' if both else ' of both'}: {', '.join(weights)}.")
    for note in report.notes:
        out.print(Text(f"Note: {note}"))
    for problem in report.problems:
        out.print(Text.assemble(("✗ ", "bold red"), problem))
    if report.compatible and both:
        mark = "[bold green]✓[/]" if report.aligned.template else "[bold yellow]![/]"
        out.print(f"{mark} One model can be both sides, with what the note says.")
    elif report.compatible:
        out.print("[bold green]✓[/] The two make a pair.")
