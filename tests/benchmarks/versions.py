"""Two checkouts of the package side by side: the same texts, and how fast each decodes them.

Run from the repository's root, with the roots of both checkouts:

    python tests/benchmarks/versions.py BEFORE AFTER --rounds 7

Each round runs both in processes of their own, in turn, on the embedded pair; speeds are tokens for
each second of CPU time. Printed are a hash of all texts, and the ratio of AFTER to BEFORE.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

DECODE = """
import hashlib, json, time, torch
torch.set_num_threads(1)
from baco_integrations import Decoder, ModelPair

pair, texts, speeds = ModelPair.tiny(progress=False), hashlib.sha256(), {}
asked = ("Suggest a gift for a friend.", "Name a place to visit.", "Tell me a short story.")
fields = {"idea": {"type": "string"}, "why": {"type": "string"}}
schema = {"type": "object", "properties": fields, "required": ["idea", "why"]}
for lookahead in ("off", "auto"):
    runs = {"one by one": [{"seed": seed} for seed in range(3)], "32 together": [{"n": 32}]}
    runs["JSON, 16 together"] = [{"n": 16, "json_schema": schema}]
    with Decoder(pair, lookahead=lookahead, prefix_bytes=0) as decoder:
        decoder.generate("Hi", max_tokens=4)
        for name, settings in runs.items():
            started, tokens = time.process_time(), 0
            for prompt, each in zip(asked, settings):
                for answer in decoder.generate(prompt, **{"seed": 5, "max_tokens": 64} | each):
                    texts.update(answer.text.encode())
                    tokens += len(answer.steps)
            speeds[f"lookahead {lookahead}, {name}"] = tokens / (time.process_time() - started)
print(json.dumps([texts.hexdigest()[:12], speeds]))
"""


def decode(root: Path) -> tuple[str, dict[str, float]]:
    """Return a hash of what a checkout decodes, and its speeds."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-c", DECODE]
    done = subprocess.run(run, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    texts, speeds = json.loads(done.stdout.splitlines()[-1])
    return texts, speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    roots = [given.before.resolve(), given.after.resolve()]
    rounds = []
    for number in range(given.rounds):
        order = (0, 1) if number % 2 else (1, 0)
        found = {place: decode(roots[place]) for place in order}
        rounds.append([found[0], found[1]])
    for place, name in enumerate(("before", "after")):
        print(f"texts {name}: {', '.join(sorted({each[place][0] for each in rounds}))}")
    for name in rounds[0][0][1]:
        ratios = [after[1][name] / before[1][name] for before, after in rounds]
        low, high = min(ratios), max(ratios)
        print(f"{name:36} x {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
