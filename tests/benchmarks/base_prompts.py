"""Kinds of base prompts compared: how base is shown a request, and what comes of it.

Run from the repository's root; a run that was interrupted goes on:

    python tests/benchmarks/base_prompts.py --out runs/base-prompts --limit 12

Each kind is a run of its own (`baco eval run --base-prompt KIND`), of base alone and p-punc, at the
same points. They are measured together, so that all share their scales: those of base shown ``qa``
and of aligned, whose prompt never changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from baco_integrations import ModelPair
from baco_integrations.evaluation import (
    Settings,
    Sweep,
    collect,
    compare,
    find_scorer,
    read_records,
    tiny_prompts,
)

KINDS = ("qa", "plain", "urial", "chat_template")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/base-prompts"))
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--method", default="p-punc")
    args = parser.parse_args()
    prompts = tiny_prompts(args.limit)
    records: list[dict[str, Any]] = []
    for kind in KINDS:
        collect(
            ModelPair.tiny(base_prompt=kind),
            prompts,
            args.out / kind,
            methods=("aligned", "base", args.method),
            sweep=Sweep(args.points),
            seeds=(0,),
            max_tokens=160,
            rows=128,
        )
        for record in read_records(args.out / kind):
            name = record["method"]
            if name != "aligned":
                records.append({**record, "method": f"{name} ({kind})"})
            elif kind == KINDS[0]:  # aligned does not see the base prompt
                records.append(record)
    scores = find_scorer(prompts).measure(records)
    told = compare(scores, Settings(base="base (qa)"))
    table = Table("method", "Coverage", "valid-distinct at valid >= .9", "at", "best valid share")
    for method in told["methods"]:
        best = method["valid_distinct"]["at"]["0.9"]
        knob = "" if not best or best["knob"] is None else f"gamma {best['knob']:g}, "
        table.add_row(
            method["name"],
            "{:.2f} [{:.2f}, {:.2f}]".format(*method["coverage"]["overall"]),
            "{:.1f} [{:.1f}, {:.1f}]".format(*best["value"]) if best else "-",
            f"{knob}T {best['temperature']:g}" if best else "-",
            f"{max(point['valid'] for point in method['points']):.2f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
