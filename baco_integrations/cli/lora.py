"""`baco extract`: one model and a small adapter instead of two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ParameterError
from .errors import stoppable
from .options import Json, given_settings, takes

if TYPE_CHECKING:
    from ..evaluation.fidelity import Fidelity
    from ..models.lora.extract import Extraction


@takes("dtype")
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
        str,
        typer.Option(
            help="The side that stays as it is, base or aligned; the other is approximated."
        ),
    ] = "aligned",
    report: Annotated[
        bool, typer.Option(help="Load both models, and measure what is lost.")
    ] = True,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="What to ask them for the report, a prompt a line.", show_default="20 prompts"
        ),
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Turn a pair into one model and a low-rank adapter, at half the memory.

    Checkpoints are read tensor by tensor. An interrupted run goes on where it was.
    """
    from .display import busy, print_json

    if prompts is not None and not report:
        remedy = "The prompts are for the report."
        raise ParameterError("prompts", "left out with --no-report", str(prompts), remedy)
    with busy("Starting"):
        from ..evaluation.fidelity import PROMPTS, fidelity
        from ..evaluation.loaders import load_prompts
        from ..models.loading import progress_bars
        from ..models.lora import extract as extraction
        from ..models.options import LoadOptions
    asked = [each.text for each in load_prompts(prompts, "text")] if prompts else PROMPTS
    if rank is None and energy is None:
        rank = 32
    loading: Any = {"exact": exact, **given_settings(given, ("dtype",))}
    with stoppable(), progress_bars(LoadOptions()) as bar:
        progress = bar("Extracting")
        made = extraction.extract(
            base, aligned, out, rank=rank, energy=energy, progress=progress, **loading
        )
    found = None
    if report:
        with busy("Comparing the two pairs"):
            found = fidelity(base, aligned, made.folder, prompts=asked, progress=False, **loading)
    if as_json:
        content = {**vars(made), "folder": str(made.folder)}
        print_json({**content, "report": found and found.to_dict()})
    else:
        show(made, found)


def show(made: Extraction, found: Fidelity | None) -> None:
    """Print what the adapter is, and how near the model comes with it if that was measured."""
    from ..core.params import SamplingParams
    from ..models.memory import readable
    from .display import console, quiet_table

    out = console()
    ranks = sorted(made.ranks.values())
    several = f"{ranks[0]} to {ranks[-1]}" if ranks[0] < ranks[-1] else str(ranks[0])
    table = quiet_table(f"{'base' if made.exact == 'aligned' else 'aligned'}, approximated", "")
    table.add_row("rank", f"{several}, in {len(ranks)} matrices")
    table.add_row("size of the adapter", readable(made.bytes))
    table.add_row("difference left out (Frobenius norm)", f"{made.error:.1%}")
    if found:
        usual = SamplingParams()
        routing = f"{usual.router}, gamma {usual.effective_gamma:g}"
        table.add_section()
        table.add_row("divergence per token", f"{found.kl:.4f} nats")
        table.add_row("same favourite token", f"{found.top1:.1%}")
        table.add_row(f"same side chosen ({routing})", f"{found.routes:.1%}")
        table.add_row("memory", readable(found.model_bytes + found.adapter_bytes))
        table.add_row("memory of two models", readable(2 * found.model_bytes))
    out.print(table)
    if found:
        compared = f"over {found.tokens:,} tokens that the exact pair wrote"
        out.print(f"\nThe divergence is KL(exact || approximated), {compared}.", style="dim")
    load = f"ModelPair.from_adapter({made.model!r}, {str(made.folder)!r})"
    out.print(f"\nLoad it: {load}", soft_wrap=True)
