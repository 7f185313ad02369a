"""`baco demo`: what the package is for, on one screen and without a download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .compare import answer_all, columns, judge_all, side_by_side, valid_distinct

if TYPE_CHECKING:
    from rich.console import Console

    from ..core.outputs import Completion
    from ..tiny.oracle import Verdict
    from ..tiny.world import Request

REQUESTS = ("eval-place-plain", "eval-pet-list", "eval-sunday-plain-wish")
"""A plain request, a list, and a request under a system prompt."""
_LONGEST = 120


def demo(
    gamma: options.Gamma = None,
    router: options.Router = None,
    temperature: options.Temperature = None,
    samples: options.Samples = 6,
    seed: Annotated[
        int, typer.Option(help="Another seed, other answers.", rich_help_panel=options.SAMPLING)
    ] = 0,
) -> None:
    """See base, aligned and BACo answer three requests, with the pair that comes along.

    An exact judge counts the answers that are valid (on topic, complete, in
    the form asked for), and among them those that name different things.
    """
    ways = side_by_side(
        [gamma],
        router=router,
        temperature=temperature,
        seed=seed,
        n=samples,
        max_tokens=_LONGEST,
    )
    pair = options.open_pair()
    from ..decoder.decoder import Decoder
    from ..tiny.world import requests
    from .display import busy, console, legend

    out = console()
    found = {request.id: request for request in requests("eval")}
    totals = [0] * len(ways)
    out.print(f"[bold]The tiny pair[/] · seed {seed}", legend(out), sep=" · ", end="\n\n")
    with Decoder(pair, max_rows=len(ways) * samples) as decoder:
        for request in map(found.__getitem__, REQUESTS):
            with busy("Decoding"):
                answers = answer_all(decoder, request.messages, ways)
            verdicts = judge_all(request, answers)
            _show(request, answers, verdicts, out)
            for place, judged in enumerate(verdicts):
                totals[place] += valid_distinct(judged)
    base, aligned, routed = totals
    out.print(
        f"What to see: in {len(REQUESTS) * samples} answers each, BACo gave [bold]{routed}[/] "
        f"different valid ones, aligned alone {aligned} and base alone {base}."
    )


def _show(
    request: Request,
    answers: list[list[Completion]],
    verdicts: list[list[Verdict]],
    out: Console,
) -> None:
    from rich.table import Table
    from rich.text import Text

    from .display import print_columns

    asked = Table.grid(padding=(0, 1, 0, 0))
    for message in request.messages:
        style = "bold" if message is request.messages[-1] else "dim"
        asked.add_row(Text(message["role"], "dim"), Text(message["content"], style))
    out.print(asked, "", sep="\n")
    print_columns(columns(answers, verdicts, out), out)
