"""Open prompts on one model as both sides, read by a person who does not know which setting it was.

Run from the repository's root; the second command takes the first one's file, once somebody has put
1 (an answer that could be used) or 0 in front of each line:

    python tests/benchmarks/own_prompts.py ask --model DIR --out answers.tsv
    python tests/benchmarks/own_prompts.py score answers.tsv

A line is label, setting (as a number that `ask` draws), prompt and answer, in random order. *good*:
share of answers with label 1; *different*: groups among a prompt's answers, by word overlap;
*good and different*: the same among its good answers. Intervals: 95 % bootstrap over prompts.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from baco_integrations import Decoder, ModelPair
from baco_integrations.adapters.distinct import word_overlap
from baco_integrations.evaluation import own_prompts
from baco_integrations.evaluation.prompts import spread
from baco_integrations.evaluation.statistics import interval, resample

SETTINGS: dict[str, dict[str, Any]] = {
    "aligned": {"router": "aligned"},
    "p-punc, gamma 0.6": {"router": "p-punc", "gamma": 0.6},
    "base": {"router": "base"},
}
ALIKE = 0.6
"""Word overlap from which two answers are one."""


def ask(args: argparse.Namespace) -> None:
    """Write the answers of all settings, without a label and in random order."""
    lines = []
    with Decoder.shared(ModelPair.from_model(args.model, base_prompt=args.base_prompt)) as decoder:
        for prompt in spread(own_prompts(), args.limit):
            for setting, more in enumerate(SETTINGS.values()):
                answers = decoder.generate(
                    prompt.text, n=args.n, seed=args.seed, max_tokens=args.max_tokens, **more
                )
                lines += [[setting, prompt.text, answer.text] for answer in answers]
    random.Random(args.seed).shuffle(lines)
    written = ["\t".join(["", *map(json.dumps, line)]) for line in lines]
    args.out.write_text("\n".join(written) + "\n")


def groups(answers: list[str]) -> int:
    """Return how many answers are like none before them."""
    kept: list[str] = []
    for answer in answers:
        if all(word_overlap(answer, other) < ALIKE for other in kept):
            kept.append(answer)
    return len(kept)


def score(args: argparse.Namespace) -> None:
    """Print the table, in Markdown."""
    found: dict[int, dict[str, list[tuple[int, str]]]] = {}
    for line in args.file.read_text().splitlines():
        label, setting, prompt, answer = line.split("\t")
        own = found.setdefault(json.loads(setting), {}).setdefault(prompt, [])
        own.append((int(label), json.loads(answer)))
    weights = resample(len(found[0]))
    print("| | good | different | good and different |\n|---|---|---|---|")
    for setting, name in enumerate(SETTINGS):
        rows = [found[setting][prompt] for prompt in sorted(found[setting])]
        values = np.array([measures(row) for row in rows])
        cells = ["{:.2f} [{:.2f}, {:.2f}]".format(*interval(c)) for c in (weights @ values).T]
        print(f"| {name} | {' | '.join(cells)} |")


def measures(row: list[tuple[int, str]]) -> tuple[float, int, int]:
    """Return a prompt's share of good answers, and its groups of all and of good ones."""
    good = [answer for label, answer in row if label]
    return len(good) / len(row), groups([answer for _, answer in row]), groups(good)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    asked = commands.add_parser("ask", help=ask.__doc__)
    asked.set_defaults(command=ask)
    asked.add_argument("--model", required=True)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--base-prompt", default="qa")
    asked.add_argument("--limit", type=int, default=12, help="so many prompts, evenly spread")
    asked.add_argument("--n", type=int, default=5)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--max-tokens", type=int, default=40)
    scored = commands.add_parser("score", help=score.__doc__)
    scored.set_defaults(command=score)
    scored.add_argument("file", type=Path)
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
