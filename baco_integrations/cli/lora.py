"""`baco extract`: one model and a small adapter instead of two models."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ParameterError
from . import options
from .errors import stoppable

if TYPE_CHECKING:
    from ..evaluation.fidelity import Fidelity
    from ..models.lora.extract import Extraction


class Side(str, Enum):
    """Which model stays as it is."""

    base = "base"
    aligned = "aligned"


def extract(
    base: Annotated[str, typer.Argument(help="The base model, an id or a folder.")],
    aligned: Annotated[str, typer.Argument(help="Its aligned counterpart.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.", show_default=False)],
    rank: Annotated[
        int | None, typer.Option(min=1, help="Rank of each matrix's change.", show_default="32")
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option(help="Instead of a rank, the share of each change to keep, up to 1."),
    ] = None,
    exact: Annotated[
        Side, typer.Option(help="The side that stays as it is; the other is approximated.")
    ] = Side.aligned,
    dtype: options.Dtype = None,
    report: Annotated[
        bool,
        typer.Option(help="Load both models, and measure what is lost."),
    ] = True,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="What to ask them for the report, a prompt a line.", show_default="20 prompts"
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Turn a pair into one model and a low-rank adapter, at half the memory.

    Checkpoints are read tensor by tensor. An interrupted run goes on where it was.
    """
    from .display import busy, print_json

    if prompts is not None and not report:
        remedy = "The prompts are for the report."
        raise ParameterError("prompts", "left out with --no-report", str(prompts), remedy)
    asked: dict[str, Any] = {} if prompts is None else {"prompts": _lines(prompts)}
    with busy("Starting"):
        from ..evaluation.fidelity import fidelity
        from ..models.loading import progress_bars
        from ..models.lora import extract as extraction
        from ..models.options import LoadOptions
    if rank is None and energy is None:
        rank = 32
    loading: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    with stoppable(), progress_bars(LoadOptions()) as bar:
        made = extraction.extract(
            base,
            aligned,
            out,
            rank=rank,
            energy=energy,
            exact=exact.value,
            progress=bar("Extracting"),
            **loading,
        )
    found = None
    if report:
        with busy("Comparing the two pairs"):
            found = fidelity(
                base, aligned, made.folder, exact=exact.value, progress=False, **asked, **loading
            )
    if as_json:
        content = {**vars(made), "folder": str(made.folder)}
        print_json({**content, "report": found and found.to_dict()})
    else:
        _show(made, found)


def _lines(file: Path) -> list[str]:
    """Return the prompts of a file, one a line."""
    from ..evaluation.loaders import load_prompts

    return [prompt.text for prompt in load_prompts(file, "text")]


def _show(made: Extraction, found: Fidelity | None) -> None:
    from ..models.memory import readable
    from .display import console, quiet_table

    other = "base" if made.exact == "aligned" else "aligned"
    ranks = sorted(made.ranks.values())
    several = f"{ranks[0]} to {ranks[-1]}" if ranks[0] < ranks[-1] else str(ranks[0])
    table = quiet_table(f"{other}, approximated", "")
    table.add_row("rank", f"{several}, in {len(ranks)} matrices")
    table.add_row("size of the adapter", readable(made.bytes))
    table.add_row("difference left out (Frobenius norm)", f"{made.error:.1%}")
    if found:
        table.add_section()
        table.add_row("divergence per token", f"{found.kl:.4f} nats")
        table.add_row("same favourite token", f"{found.top1:.1%}")
        table.add_row("same side chosen (p-punc, gamma 0.6)", f"{found.routes:.1%}")
        table.add_row("memory", f"{readable(found.model_bytes + found.adapter_bytes)}")
        table.add_row("memory of two models", f"{readable(2 * found.model_bytes)}")
    out = console()
    out.print(table)
    if found:
        told = "The divergence is KL(exact || approximated)"
        out.print(f"\n{told}, over {found.tokens:,} tokens that the exact pair wrote.", style="dim")
    out.print(
        f"\nLoad it: ModelPair.from_adapter({made.model!r}, {str(made.folder)!r})", soft_wrap=True
    )
