"""`baco demo`: what the package is for, on one screen and without a download."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from . import options
from .compare import columns, figures, judge_all, side_by_side

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..tiny.requests import Request

REQUESTS = ("eval-place-plain", "eval-pet-list", "eval-sunday-plain-wish")
"""A plain request, a list, and a request under a system prompt."""
MAX_TOKENS = 120


@options.takes("gamma", "router", "temperature", n=6, seed=0)
def demo(**given: Any) -> None:
    """See base, aligned and BACo answer three requests, with the pair that comes along.

    An exact judge counts the answers that are valid (on topic, complete, in
    the form asked for), and among them those that name different things.
    """
    ways = side_by_side({**given, "max_tokens": MAX_TOKENS}, [given["gamma"]])
    pair = options.open_pair({})
    from ..decoder.decoder import Decoder
    from ..tiny.requests import requests
    from .display import busy, console, legend, print_columns

    out = console()
    asked = {request.id: request for request in requests("eval")}
    totals: Counter[int] = Counter()
    out.print(f"[bold]The tiny pair[/] · seed {given['seed']}", legend(out), sep=" · ", end="\n\n")
    with Decoder(pair, max_rows=len(ways) * given["n"]) as decoder:
        for request in map(asked.__getitem__, REQUESTS):
            with busy("Decoding"):
                answers = decoder.generate_batch([request.messages] * len(ways), ways)
            verdicts = judge_all(request, answers)
            for place, judged in enumerate(verdicts):
                totals[place] += figures(answers[place], judged)["valid_distinct"]
            out.print(conversation(request), "", sep="\n")
            print_columns(columns(answers, verdicts, out), out)
    out.print(
        f"What to see: in {len(REQUESTS) * given['n']} answers each, BACo gave [bold]{totals[2]}[/]"
        f" different valid ones, aligned alone {totals[1]} and base alone {totals[0]}."
    )


def conversation(request: Request) -> RenderableType:
    """Return the messages of a request, below each other."""
    from rich.table import Table
    from rich.text import Text

    shown = Table.grid(padding=(0, 1, 0, 0))
    for message in request.messages:
        style = "bold" if message is request.messages[-1] else "dim"
        shown.add_row(Text(message["role"], "dim"), Text(message["content"], style))
    return shown
