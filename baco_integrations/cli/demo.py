"""`baco demo`: what the package is for, on one screen and without a download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import options
from .compare import columns, figures, judge_all, side_by_side

if TYPE_CHECKING:
    from rich.console import Console

REQUEST = "eval-plant-plain"
"""Of the plain requests, one for each kind, the only one whose counts are the average's, rounded:
neither a lucky request nor a lucky seed."""
AVERAGE = {"base": 1.4, "aligned": 1.0, "BACo": 4.1}
"""Different valid answers of 6 to the 16 plain requests, on average, with the default settings."""
DEFAULTS: dict[str, Any] = {"gamma": None, "router": None, "temperature": None, "n": 6, "seed": 0}
MAX_TOKENS = 120


@options.takes("gamma", "router", "temperature", n=DEFAULTS["n"], seed=DEFAULTS["seed"])
def demo(**given: Any) -> None:
    """See base, aligned and BACo answer one request, with the pair that comes along.

    An exact judge counts the answers that are valid (on topic, complete, in
    the form asked for), and among them those that name different things.
    """
    from .display import console

    show_demo(given, console())


def show_demo(given: Mapping[str, Any], out: Console) -> None:
    """Print the request, the answers side by side, and what to see in them."""
    from rich.text import Text

    from ..decoder.decoder import Decoder
    from ..tiny.requests import requests
    from .display import busy, legend, print_columns

    ways = side_by_side({**given, "max_tokens": MAX_TOKENS}, [given["gamma"]])
    request = next(each for each in requests("eval") if each.id == REQUEST)
    pair = options.open_pair({})
    with Decoder(pair, max_rows=len(ways) * given["n"]) as decoder, busy("Decoding"):
        answers = decoder.generate_batch([request.messages] * len(ways), ways)
    verdicts = judge_all(request, answers)
    out.print(Text(request.messages[-1]["content"], "bold"), "", sep="\n")
    print_columns(columns(answers, verdicts, out), out)
    counts = [figures(*each)["valid_distinct"] for each in zip(answers, verdicts, strict=True)]
    out.print(
        f"Different valid answers of {given['n']}: base {counts[0]}, aligned {counts[1]}, "
        f"[bold]BACo {counts[2]}[/].",
        *([typical()] if dict(given) == DEFAULTS else []),
    )
    out.print(legend(out), f" · the tiny pair, seed {given['seed']}", sep="")


def typical() -> str:
    """Say what other requests give."""
    means = ", ".join(f"{way} {mean}" for way, mean in AVERAGE.items())
    return f"The average over 16 kinds of requests: {means}."
