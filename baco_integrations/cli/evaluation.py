"""`baco eval ...`: answers by every method, and the report of their breadth and quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ParameterError
from . import eval_options as c
from .commands import Command, Commands
from .errors import say, stoppable
from .options import option, takes

if TYPE_CHECKING:
    from ..evaluation.prompts import Prompt

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Compare methods: collect answers, measure them, and show the result on a page.",
    epilog="Example: [cyan]baco eval sweep --out runs/tiny --limit 30[/cyan]",
)
SOURCES = option("sources", bool, False, "Keep who gave which part of the text.", "--sources")
EXAMPLE = "Example: [cyan]baco eval {} --out runs/tiny --limit 30 --points 5 --seeds 1[/cyan]"


@app.command(cls=Command, epilog=EXAMPLE.format("run"))
@takes(*c.COLLECTING, SOURCES, n=10)
def run(**given: Any) -> None:
    """Collect answers to prompts by every method, at the same number of points for each.

    The run's folder gets generations.jsonl: a record for each prompt, point and
    seed, with NoveltyBench's keys. What fails is in errors.jsonl; delete that
    file to have it tried again.
    Stop it at any time: the same command goes on where it was, to the same bytes.
    """
    asked = c.find_prompts(given["prompts"], given["form"], given["limit"])
    if c.imported_model(given) is not None and given["sources"]:
        remedy = "Only a pair tells who gave which part of the text."
        raise ParameterError("sources", "left out with --model", True, remedy)
    collect_answers(given, asked, given["method"] or (), given["sources"])


@app.command(
    cls=Command, no_args_is_help=True, epilog="Example: [cyan]baco eval report runs/tiny[/cyan]"
)
@takes(*c.REPORTING)
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the page goes; report.json goes beside it.",
            show_default="report.html in the run's folder",
        ),
    ] = None,
    **given: Any,
) -> None:
    """Measure a run's answers and write report.html and report.json.

    Tiny prompts and categories have an exact oracle. Other prompts need --quality,
    as breadth without quality says nothing.
    """
    page = folder / "report.html" if out is None else checked_page(out, "out")
    report_run(folder, page, given, command=c.typed())


@app.command(
    cls=Command, no_args_is_help=True, epilog="Example: [cyan]baco eval show runs/tiny[/cyan]"
)
def show(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, or a report's JSON.", metavar="RUN")
    ],
    page: Annotated[
        Path | None, typer.Option(help="Also draw the page anew, with its JSON beside it.")
    ] = None,
) -> None:
    """Show in the terminal what a report found.

    Nothing is measured: it shows what `report` or `sweep` has written.
    """
    from ..evaluation.findings import findings
    from ..evaluation.report import write_report
    from .display import console
    from .eval_show import read_result, show_result

    file, result = read_result(run)
    show_result(result, console())
    beside = file.with_suffix(".html")
    if page is not None:
        write_report(result | {"findings": findings(result)}, checked_page(page))
        beside = page
    if beside.exists():
        typer.echo(f"The whole report: {beside}")


@app.command(cls=Command, epilog=EXAMPLE.format("sweep"))
@takes(*c.COLLECTING, *c.REPORTING, n=10)
def sweep(**given: Any) -> None:
    """Go from a pair and prompts to a report: `run`, then `report`.

    base and aligned are always among the methods, as they set the scales (for a
    model that is no pair, plain). Stop it at any time: the same command goes on.
    """
    asked = c.find_prompts(given["prompts"], given["form"], given["limit"])
    c.load_measures(given, asked)
    pair, methods = c.imported_model(given) is None, given["method"] or ()
    if methods or given["judge"] is not None:
        anchors = ("base", "aligned") if pair else ("plain",)
        methods = tuple(dict.fromkeys((*anchors, *methods)))
    collect_answers(given, asked, methods, sources=pair)
    with stoppable():
        report_run(given["out"], given["out"] / "report.html", given, command=None)


def checked_page(page: Path, option: str = "page") -> Path:
    """Return where a page goes.

    Raises:
        ParameterError: It cannot go there.
    """
    if not page.parent.is_dir() or page.is_dir() or page.suffix == ".json":
        remedy = f"For example --{option} report.html; report.json goes beside it."
        raise ParameterError(option, "a page in a folder that exists", str(page), remedy)
    return page


def collect_answers(
    given: Mapping[str, Any], asked: list[Prompt], methods: Sequence[str], sources: bool
) -> None:
    """Let the pair or the model answer the prompts, and say how many answers there are."""
    from ..evaluation.methods import Sweep
    from ..evaluation.run import collect
    from .display import bar

    speaker, judge = c.find_speaker(given), c.load_object("judge", given["judge"])
    if c.imported_model(given) is not None and given["max_tokens"] is not None:
        say("--max-tokens has no effect with --model: set it where the model is made.", "Note:")
    with stoppable(), bar("Answering") as progress:
        outcome = collect(
            speaker,
            asked,
            given["out"],
            methods=methods,
            sweep=Sweep(given["points"]),
            seeds=range(given["seeds"]),
            judge=judge,
            sources=sources,
            name=c.imported_model(given),
            command=c.typed(),
            progress=progress,
            **c.answer_settings(given, given["prompts"], ("n", "max_tokens", "rows")),
        )
    typer.echo(
        f"{outcome.records} records in {given['out']}, {outcome.new} of them new, "
        f"in {outcome.seconds:.0f} s"
    )
    if outcome.errors:
        say(f"{outcome.errors} prompts failed; errors.jsonl says why", "Note:")


def report_run(folder: Path, page: Path, given: Mapping[str, Any], command: str | None) -> None:
    """Write a run's report, and say on the terminal what stands at its top."""
    from rich.text import Text

    from ..evaluation.report import write_report
    from ..evaluation.result import Settings
    from ..evaluation.scorer import evaluate
    from .display import bar, console

    with bar("Measuring") as progress:
        result = evaluate(
            folder,
            **c.load_measures(given),
            settings=Settings(resamples=given["resamples"]),
            title=given["title"],
            command=command,
            progress=progress,
        )
    data = write_report(result, page)
    lines = [*(f"- {sentence}" for sentence in result["findings"]), f"Report: {page}"]
    for line in (*lines, f"The same as JSON: {data}"):
        console().print(Text(line), soft_wrap=True)
