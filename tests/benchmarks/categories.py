"""Answers to categories ("Name one fruit."), judged by lists: what a pair gains over temperature.

Run from the repository's root, with any pair, or with one model as both sides; a run that was
interrupted goes on:

    python tests/benchmarks/categories.py table --base DIR --aligned DIR --out runs/table
    python tests/benchmarks/categories.py sample runs/table/* > sample.tsv

`table` compares routers, with kinds of base prompts, and base alone with aligned alone. *valid*:
share of answers whose first line names exactly one member; *clean*: that are nothing but its name;
*distinct*: different members among the n answers to a prompt. *gain*: distinct, less what aligned
alone gives at the temperature with the same valid share, between the temperatures that were
measured. Intervals: 95 % bootstrap over categories, whose two wordings and seeds are averaged;
the gain's is paired. `sample` writes different answers of runs in random order, with verdicts, to
be checked by hand.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baco_integrations import ModelPair
from baco_integrations.core.messages import Message, conversation
from baco_integrations.evaluation import CategoryOracle, category_prompts, collect, read_records
from baco_integrations.evaluation.categories import ANSWER_TOKENS
from baco_integrations.evaluation.methods import Grid
from baco_integrations.evaluation.prompts import spread
from baco_integrations.evaluation.records import Point, Record
from baco_integrations.evaluation.statistics import interval, resample

ORACLE = CategoryOracle()


def few_shot(messages: list[Message]) -> str:
    """Three questions with their answers, of categories that are not among the prompts."""
    shots = ("Name one planet.", "Saturn"), ("Name one season.", "autumn"), ("An ocean?", "Pacific")
    shown = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in shots)
    return f"{shown}Q: {messages[-1]['content']}\nA:"


few_shot.stop = ("\nQ:",)  # type: ignore[attr-defined]


class SystemPair(ModelPair):
    """A pair whose base reads the chat template with a system prompt of its own."""

    system = ""

    def render_base(self, messages: Any, *, tokenize: bool = False) -> Any:
        told = [{"role": "system", "content": self.system}, *conversation(messages)]
        return super().render_base(told, tokenize=tokenize)


class CreativePair(SystemPair):
    system = "You like to surprise people with answers that nobody else would think of."


KINDS: dict[str, tuple[type[ModelPair], Any]] = {
    "qa": (ModelPair, "qa"),
    "plain": (ModelPair, "plain"),
    "urial": (ModelPair, "urial"),
    "few-shot": (ModelPair, few_shot),
    "template": (ModelPair, "chat_template"),
    "empty system": (SystemPair, "chat_template"),
    "creative system": (CreativePair, "chat_template"),
}


def answered(args: Any, kind: str, out: Path, methods: Sequence[str], grid: Grid) -> list[Record]:
    """Let a pair answer the prompts, or go on with that; return the records."""
    pair_class, base_prompt = KINDS[kind]
    pair = pair_class.from_pretrained(args.base, args.aligned, base_prompt=base_prompt)
    collect(
        pair,
        spread(category_prompts(), args.limit),
        out,
        methods=methods,
        sweep=grid,
        seeds=range(args.seeds),
        n=args.n,
        max_tokens=ANSWER_TOKENS,
        rows=args.rows,
        progress=lambda done, total, what: print(f"\r{done} of {total}, {what:20}", end=""),
    )
    print()
    return read_records(out)


def judged(records: Iterable[Record]) -> dict[Point, Any]:
    """Return valid share, clean share and distinct members by category: (categories, 3)."""
    cells: dict[Point, dict[str, list[tuple[float, float, int]]]] = {}
    for record in records:
        verdicts = [ORACLE.judge(record["id"], text) for text in record["generations"]]
        valid, clean, named = zip(*verdicts, strict=True)
        row = float(np.mean(valid)), float(np.mean(clean)), len(set(named) - {None})
        cells.setdefault(point_of(record), {}).setdefault(
            record["id"].rpartition("-")[0], []
        ).append(row)
    return {
        point: np.array([np.mean(rows, 0) for rows in by_category.values()])
        for point, by_category in cells.items()
    }


def point_of(record: Record) -> Point:
    """Return where an answer was taken."""
    return Point(record["method"], record["knob"], record["temperature"])


def show(records: list[Record]) -> None:
    """Print the table, in Markdown."""
    found = judged(records)
    weights = resample(len(next(iter(found.values()))))
    means = {point: weights @ values for point, values in found.items()}  # (resamples, 3)
    alone = np.stack([values for point, values in means.items() if point.method == "aligned"], 1)
    print("| method | gamma | T | valid | clean | distinct | gain | base share |")
    print("|---|---|---|---|---|---|---|---|")
    for point, values in means.items():
        share = np.mean([row["base_share"] for row in records if point_of(row) == point])
        cells = ["{:.2f} [{:.2f}, {:.2f}]".format(*interval(column)) for column in values.T]
        cells.append("" if point.method == "aligned" else gain(values, alone))
        knob = "" if point.knob is None else f"{point.knob:g}"
        print(f"| {point.method} | {knob} | {point.temperature:g} |", " | ".join(cells), end="")
        print(f" | {share:.2f} |")


def gain(values: Any, alone: Any) -> str:
    """Return distinct members less aligned's at the same valid share, with the paired interval.

    Args:
        values: Of one point, shape (resamples, 3).
        alone: Of aligned's temperatures, shape (resamples, temperatures, 3).
    """
    gaps = []
    for (valid, _, distinct), curve in zip(values, alone, strict=True):
        curve = curve[curve[:, 0].argsort()]
        gaps.append(distinct - np.interp(valid, curve[:, 0], curve[:, 2]))
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*interval(np.array(gaps)))


def table(args: Any) -> None:
    """Compare base alone and routers with aligned alone, for each kind of base prompt."""
    alone = Grid((), tuple(args.alone))
    grid = Grid(tuple(args.gammas), tuple(args.temperatures))
    records = answered(args, "qa", args.out / "aligned", ("aligned",), alone)
    for kind in args.kinds:
        for record in answered(args, kind, args.out / kind, ("base", *args.routers), grid):
            records.append({**record, "method": f"{record['method']} ({kind})"})
    show(records)


def sample(args: Any) -> None:
    """Write different answers with their verdicts, one a line, in random order."""
    texts = {
        (row["id"], text): None
        for folder in args.runs
        for row in read_records(folder)
        for text in row["generations"]
    }
    chosen = random.Random(args.seed).sample(sorted(texts), args.count)
    for number, (prompt_id, text) in enumerate(chosen, 1):
        valid, clean, content = ORACLE.judge(prompt_id, text)
        print(number, prompt_id, json.dumps(text, ensure_ascii=False), sep="\t", end="\t")
        print(int(valid), int(clean), content or "", sep="\t")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    asked = commands.add_parser("table", help=table.__doc__)
    asked.set_defaults(command=table)
    asked.add_argument("--base", required=True)
    asked.add_argument("--aligned", required=True, help="may be the same as base")
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--limit", type=int, help="so many prompts, evenly spread")
    asked.add_argument("--n", type=int, default=10)
    asked.add_argument("--seeds", type=int, default=1)
    asked.add_argument("--rows", type=int, default=64)
    asked.add_argument("--alone", type=float, nargs="+", default=[0.3, 0.5, 0.7, 1.0, 1.3])
    asked.add_argument("--gammas", type=float, nargs="+", default=[0.3, 0.6, 0.9])
    asked.add_argument("--temperatures", type=float, nargs="+", default=[0.7, 1.0])
    asked.add_argument("--kinds", nargs="+", choices=KINDS, default=["qa"], help="base prompts")
    routers = ["p-punc", "h-punc", "punc", "rand"]
    asked.add_argument("--routers", nargs="+", default=routers)
    drawn = commands.add_parser("sample", help=sample.__doc__)
    drawn.set_defaults(command=sample)
    drawn.add_argument("runs", type=Path, nargs="+")
    drawn.add_argument("--count", type=int, default=300)
    drawn.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
