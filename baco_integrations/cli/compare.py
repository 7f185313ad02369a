"""`baco compare`: base, aligned and BACo side by side."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from . import options

if TYPE_CHECKING:
    from rich.console import Console

    from ..core.outputs import Completion
    from ..core.params import SamplingParams
    from ..tiny.oracle import Verdict
    from ..tiny.requests import Request
    from .display import Column


@options.takes(*options.SAMPLING, "stop", options.SYSTEM, *options.PAIR, n=5, gamma=[])
def compare(prompt: options.Prompt, as_json: options.Json = False, **given: Any) -> None:
    """Show what base, aligned and BACo answer to one prompt, side by side.

    Each gamma gets a column of its own. All columns use the same seed.
    Where the tiny pair knows the request, its exact judge marks the answers.
    """
    if given["seed"] is None:
        given["seed"] = secrets.randbits(32)
    ways = side_by_side(given, given["gamma"] or [None])
    conversation = options.messages(prompt, given["system"])
    pair = options.open_pair(given)
    from ..decoder.decoder import Decoder
    from .display import busy, console, legend, print_columns, print_json

    request = options.known_request(pair, conversation)
    with Decoder(pair) as decoder, busy(f"Decoding {len(ways)} × {given['n']} answers"):
        answers = decoder.generate_batch([conversation] * len(ways), ways)
    verdicts = judge_all(request, answers)
    if as_json:
        prompt = conversation[-1]["content"]
        print_json({"prompt": prompt, "columns": columns_json(answers, verdicts)})
        return
    out = console()
    print_columns(columns(answers, verdicts, out), out)
    out.print(legend(out))
    out.print(f"seed {answers[0][0].seed}", style="dim")


def side_by_side(given: Mapping[str, Any], gammas: Sequence[float | None]) -> list[SamplingParams]:
    """Return the ways of decoding to compare: each side alone, then the pair at each gamma."""
    routed = [
        options.sampling({**given, "gamma": gamma}, noting=gamma is gammas[0]) for gamma in gammas
    ]
    alone = [
        options.sampling({**given, "gamma": None, "router": side}, noting=False)
        for side in ("base", "aligned")
    ]
    return alone + routed


def judge_all(
    request: Request | None, answers: Sequence[Sequence[Completion]]
) -> list[list[Verdict] | None]:
    """Judge all answers, each way's on its own, if it is a request that the tiny pair knows."""
    from ..tiny.oracle import judge

    if request is None:
        return [None] * len(answers)
    return [[judge(request, sample.text) for sample in samples] for samples in answers]


def figures(samples: Sequence[Completion], verdicts: Sequence[Verdict] | None) -> dict[str, Any]:
    """Return what one way of decoding gave: distinct texts, base's share, and what was valid."""
    found: dict[str, Any] = {
        "router": samples[0].router,
        "gamma": samples[0].gamma,
        "distinct": len({" ".join(sample.text.split()) for sample in samples}),
        "base_share": fmean(sample.base_share for sample in samples),
    }
    if verdicts:
        found["valid"] = sum(verdict.valid for verdict in verdicts)
        found["valid_distinct"] = len({each.content for each in verdicts if each.valid})
    return found


def columns(
    answers: Sequence[Sequence[Completion]],
    verdicts: Sequence[Sequence[Verdict] | None],
    out: Console,
) -> list[Column]:
    """Return a column for each way of decoding, with the judge's marks where there is a judge."""
    from .display import Column, column_title, painted

    good, bad = ("+", "-") if out.options.ascii_only else ("[green]✓", "[red]✗")
    shown = []
    for samples, judged in zip(answers, verdicts, strict=True):
        found, total = figures(samples, judged), len(samples)
        marks = [good if one.valid else bad for one in judged or ()] or ["•"] * total
        footer = f"{found['distinct']}/{total} distinct, {found['base_share']:.0%} base"
        if judged:
            footer = f"{found['valid']}/{total} valid, {found['valid_distinct']} distinct"
        texts = [painted(sample, out) for sample in samples]
        shown.append(Column(column_title(samples[0]), list(zip(marks, texts, strict=True)), footer))
    return shown


def columns_json(
    answers: Sequence[Sequence[Completion]], verdicts: Sequence[Sequence[Verdict] | None]
) -> list[dict[str, Any]]:
    """Return the columns as plain data."""
    from .generate import completion_json

    found = []
    for samples, judged in zip(answers, verdicts, strict=True):
        plain = [completion_json(sample, trace=False) for sample in samples]
        for answer, verdict in zip(plain, judged or (), strict=False):
            answer["verdict"] = verdict.reason
        found.append({**figures(samples, judged), "completions": plain})
    return found
