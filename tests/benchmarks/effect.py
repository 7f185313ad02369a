"""Breadth and validity of base, aligned and BACo on the embedded pair, over one grid for all.

Run from the repository's root:

    python tests/benchmarks/effect.py --out effect.json

Each method is swept over the same temperatures; those with a knob also over the same gammas. Per
setting: the share of valid answers; how many distinct main contents a request's answers mention,
valid or not; and how many its valid answers name. Intervals are 95 % bootstrap over requests.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from baco_integrations import Completion, Decoder, ModelPair, SamplingParams
from baco_integrations.core.routing import ROUTERS
from baco_integrations.evaluation.tiny import mentioned
from baco_integrations.tiny.oracle import judge
from baco_integrations.tiny.requests import SPLITS, Request, requests

TEMPERATURES = (0.3, 0.5, 0.7, 1.0, 1.3)
GAMMAS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
MEASURES = ("valid", "distinct", "valid_distinct")


class Setting(NamedTuple):
    router: str
    gamma: float | None
    temperature: float


def settings(routers: list[str]) -> list[Setting]:
    return [
        Setting(router, gamma, temperature)
        for router in routers
        for gamma, temperature in product(GAMMAS if ROUTERS[router].rule else (None,), TEMPERATURES)
    ]


def scores(request: Request, completions: list[Completion]) -> tuple[float, float, float]:
    """Share of valid answers, distinct contents, and distinct contents among the valid."""
    verdicts = [judge(request, completion.text) for completion in completions]
    named = {mentioned(request, completion.text) for completion in completions} - {()}
    valid = [verdict.content for verdict in verdicts if verdict.valid]
    return len(valid) / len(verdicts), float(len(named)), float(len(set(valid)))


def evaluate(
    decoder: Decoder, asked: list[Request], setting: Setting, samples: int, seed: int
) -> dict[str, Any]:
    params = SamplingParams(
        router=setting.router,
        gamma=setting.gamma,
        temperature=setting.temperature,
        n=samples,
        max_tokens=160,
    )
    # A seed for each request: with one for all, they would share their noise, and resampling
    # requests would understate what chance does.
    each = [params.replace(seed=len(asked) * seed + place) for place in range(len(asked))]
    answers = decoder.generate_batch([request.messages for request in asked], each)
    table = np.array([scores(request, got) for request, got in zip(asked, answers, strict=True)])
    completions = [completion for got in answers for completion in got]
    draws = np.random.default_rng(0).integers(0, len(table), (2000, len(table)))
    low, high = np.percentile(table[draws].mean(1), [2.5, 97.5], axis=0)
    row: dict[str, Any] = setting._asdict()
    for place, name in enumerate(MEASURES):
        row[name] = [round(float(x), 3) for x in (table[:, place].mean(), low[place], high[place])]
    row["base_share"] = round(float(np.mean([c.base_share for c in completions])), 3)
    row["tokens"] = round(float(np.mean([len(c.steps) for c in completions])), 1)
    return row


def best(rows: list[dict[str, Any]], router: str, floor: float) -> dict[str, Any] | None:
    """A router's setting with most valid-distinct answers among those valid enough."""
    able = [row for row in rows if row["router"] == router and row["valid"][0] >= floor]
    return max(able, key=lambda row: row["valid_distinct"][0], default=None)


def show(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in (
        "router",
        "gamma",
        "T",
        "valid",
        "distinct",
        "valid-distinct",
        "base",
        "tokens",
    ):
        table.add_column(heading, justify="left" if heading == "router" else "right")
    for row in rows:
        cells = ["{:.2f} [{:.2f}, {:.2f}]".format(*row[name]) for name in MEASURES]
        gamma = "" if row["gamma"] is None else f"{row['gamma']:.2g}"
        knobs = (row["router"], gamma, f"{row['temperature']:.1f}")
        table.add_row(*knobs, *cells, f"{row['base_share']:.2f}", f"{row['tokens']:.0f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--routers", nargs="+", default=["aligned", "base", "p-punc", "rand"])
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--requests", type=int, default=0, help="first so many only; 0: all")
    parser.add_argument("--split", choices=SPLITS, default="eval")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--floor", type=float, default=0.9, help="validity that the best must reach"
    )
    parser.add_argument("--out", type=Path, help="write all rows as JSON")
    parser.add_argument("--full", action="store_true", help="show every setting")
    chosen = parser.parse_args()
    asked = list(requests(chosen.split))[: chosen.requests or None]
    started, console = time.perf_counter(), Console(width=110)
    with Decoder(ModelPair.tiny(), max_rows=128) as decoder:
        rows = [
            evaluate(decoder, asked, setting, chosen.samples, chosen.seed)
            for setting in track(settings(chosen.routers), "Decoding", console=Console(stderr=True))
        ]
    if chosen.full:
        console.print(show(rows, "Every setting"))
    at_floor = [row for router in chosen.routers if (row := best(rows, router, chosen.floor))]
    console.print(show(at_floor, f"Most valid-distinct answers at a valid share >= {chosen.floor}"))
    if at_floor and at_floor[0]["router"] == "aligned":
        for row in at_floor[1:]:
            ratio = row["valid_distinct"][0] / at_floor[0]["valid_distinct"][0]
            console.print(f"{row['router']}: {ratio:.1f} times aligned's best")
    seconds = time.perf_counter() - started
    console.print(f"{len(asked)} requests, {chosen.samples} samples each, {seconds:.0f} s")
    if chosen.out:
        chosen.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
