"""`baco train-tiny`: the pair that comes with the package, made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import BacoError
from .errors import stoppable


def train_tiny(
    out: Annotated[Path, typer.Option(help="Folder for the two models.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Another seed gives another pair.")] = 0,
    resume: Annotated[
        bool, typer.Option(help="Go on with an interrupted training in the folder.")
    ] = True,
    base_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the base model.", show_default="3600")
    ] = None,
    aligned_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the aligned model.", show_default="4000")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads; the result depends on it in its last bits.")
    ] = 1,
) -> None:
    """Train a tiny pair on a CPU, in minutes to an hour.

    Training is repeatable: seed and steps decide the result.
    """
    from .display import busy, console

    if not resume and (out / "training.json").exists():
        raise BacoError(f"{out} holds a training already. Choose another folder, or use --resume.")
    with busy("Starting"):
        from ..tiny.train import Recipe, train
    steps = {"base_steps": base_steps, "aligned_steps": aligned_steps}
    recipe = Recipe(**{name: count for name, count in steps.items() if count is not None})
    with stoppable():
        train(out, seed, recipe, threads=threads, progress=console().is_terminal)
    console().print(
        f"Done. Try: baco chat --base {out / 'base'} --aligned {out / 'aligned'}", soft_wrap=True
    )
