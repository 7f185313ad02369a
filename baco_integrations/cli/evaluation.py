"""`baco eval ...`: answers by every method, and the report of their breadth and quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ParameterError
from . import eval_options as c
from . import options
from .errors import Command, say, stoppable

if TYPE_CHECKING:
    from ..evaluation.run import Outcome

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Compare methods: collect answers, measure them, and show the result on a page.",
    epilog="Example: [cyan]baco eval sweep --out runs/tiny --limit 30[/cyan]",
)


def _example(command: str) -> str:
    return f"Example: [cyan]baco eval {command}[/cyan]"


@app.command(
    cls=Command,
    epilog=_example("run --out runs/tiny --limit 30 --points 5 --seeds 1"),
)
def run(
    out: c.Out,
    prompts: c.Prompts = "tiny",
    form: c.Form = "auto",
    limit: c.Limit = None,
    method: c.Methods = None,
    points: c.Points = 11,
    seeds: c.Seeds = 3,
    n: c.Samples = 10,
    max_tokens: c.OwnMaxTokens = None,
    sources: c.Sources = False,
    judge: c.Judge = None,
    rows: c.Rows = None,
    pair: options.Pair = None,
    base: options.Base = None,
    aligned: options.Aligned = None,
    base_prompt: options.BasePrompt = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    model: c.Model = None,
) -> None:
    """Collect answers to prompts by every method, at the same number of points for each.

    The run's folder gets generations.jsonl: a record for each prompt, point and
    seed, with NoveltyBench's keys. What fails is in errors.jsonl; delete that
    file to have it tried again.
    Stop it at any time: the same command goes on where it was, to the same bytes.
    """
    asked = c.find_prompts(prompts, form, limit)
    if model is not None and sources:
        remedy = "Only a pair tells who gave which part of the text."
        raise ParameterError("sources", "left out with --model", sources, remedy)
    speaker = c.find_speaker(model, pair, base, aligned, dtype, device, base_prompt)
    _collect(
        speaker,
        asked,
        out,
        methods=method or (),
        points=points,
        seeds=range(seeds),
        n=n,
        max_tokens=max_tokens,
        judge=c.load_object("judge", judge),
        sources=sources,
        name=model,
        rows=rows,
    )


@app.command(cls=Command, no_args_is_help=True, epilog=_example("report runs/tiny"))
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the page goes; report.json goes beside it.",
            show_default="report.html in the run's folder",
        ),
    ] = None,
    similarity: c.Similarity = None,
    quality: c.Quality = None,
    title: c.Title = None,
    resamples: c.Resamples = 2000,
) -> None:
    """Measure a run's answers and write report.html and report.json.

    What to measure with is found out from the prompts: the exact oracle for tiny
    ones, their verifiers for IFEval and GSM8K. Other prompts need --quality, as
    breadth without quality says nothing.
    """
    given = {
        "similarity": c.load_object("similarity", similarity),
        "quality": c.load_object("quality", quality),
    }
    _report(folder, out, given, title, resamples, c.typed())


@app.command(cls=Command, epilog=_example("sweep --out runs/tiny --limit 30 --points 5 --seeds 1"))
def sweep(
    out: c.Out,
    prompts: c.Prompts = "tiny",
    form: c.Form = "auto",
    limit: c.Limit = None,
    method: c.Methods = None,
    points: c.Points = 11,
    seeds: c.Seeds = 3,
    n: c.Samples = 10,
    max_tokens: c.OwnMaxTokens = None,
    judge: c.Judge = None,
    rows: c.Rows = None,
    pair: options.Pair = None,
    base: options.Base = None,
    aligned: options.Aligned = None,
    base_prompt: options.BasePrompt = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    model: c.Model = None,
    similarity: c.Similarity = None,
    quality: c.Quality = None,
    title: c.Title = None,
    resamples: c.Resamples = 2000,
) -> None:
    """Go from a pair and prompts to a report: `run`, then `report`.

    base and aligned are always among the methods, as they set the scales (for a
    model that is no pair, plain). Stop it at any time: the same command goes on.
    """
    asked = c.find_prompts(prompts, form, limit)
    given = c.find_measures(similarity, quality, asked)
    speaker = c.find_speaker(model, pair, base, aligned, dtype, device, base_prompt)
    _collect(
        speaker,
        asked,
        out,
        methods=_with_anchors(method, judge, model is None),
        points=points,
        seeds=range(seeds),
        n=n,
        max_tokens=max_tokens,
        judge=c.load_object("judge", judge),
        sources=model is None,
        name=model,
        rows=rows,
    )
    with stoppable():
        _report(out, None, given, title, resamples, None)


def _with_anchors(methods: list[str] | None, judge: str | None, pair: bool) -> Sequence[str]:
    if not methods and judge is None:
        return ()
    anchors = ("base", "aligned") if pair else ("plain",)
    return tuple(dict.fromkeys((*anchors, *(methods or ()))))


def _collect(
    speaker: Any,
    asked: list[Any],
    out: Path,
    points: int,
    max_tokens: int | None,
    name: str | None,
    **settings: Any,
) -> None:
    from ..evaluation.methods import Sweep
    from ..evaluation.run import collect

    if name is not None and max_tokens is not None:
        say("--max-tokens has no effect with --model: set it where the model is made.", "Note")
    with stoppable(), c.bar("Answering") as progress:
        outcome = collect(
            speaker,
            asked,
            out,
            sweep=Sweep(points),
            max_tokens=max_tokens or 256,
            name=name,
            command=c.typed(),
            progress=progress,
            **settings,
        )
    _tell(outcome, out)


def _tell(outcome: Outcome, out: Path) -> None:
    typer.echo(
        f"{outcome.records} records in {out}, {outcome.new} of them new, in {outcome.seconds:.0f} s"
    )
    if outcome.errors:
        say(f"{outcome.errors} prompts failed; errors.jsonl says why", "Note")


def _report(
    folder: Path,
    out: Path | None,
    given: dict[str, Any],
    title: str | None,
    resamples: int,
    command: str | None,
) -> None:
    """Write a run's report, and say on the terminal what stands at its top."""
    from rich.text import Text

    from ..evaluation.report import write_report
    from ..evaluation.result import Settings
    from ..evaluation.scorer import evaluate
    from .display import console

    page = out or folder / "report.html"
    if out is not None and (not out.parent.is_dir() or out.is_dir() or out.suffix == ".json"):
        remedy = "For example --out report.html; report.json goes beside it."
        raise ParameterError("out", "a page in a folder that exists", str(out), remedy)
    settings = Settings(resamples=resamples)
    with c.bar("Measuring") as progress:
        result = evaluate(
            folder, **given, settings=settings, title=title, command=command, progress=progress
        )
    data = write_report(result, page)
    lines = [*(f"- {sentence}" for sentence in result["findings"]), f"Report: {page}"]
    for line in (*lines, f"The same as JSON: {data}"):
        console().print(Text(line), soft_wrap=True)
