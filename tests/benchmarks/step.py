"""What a step costs: kernels, and CPU milliseconds on one thread, for 16 rows of a 49k vocabulary.

Run from the repository's root:

    OMP_NUM_THREADS=1 python tests/benchmarks/step.py

The logits are made up, from float32's normal distribution times 3. What is compared takes turns
within each round; a time is the median, with the lowest and the highest in brackets.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from tests.policy.test_kernels import FILTERS, Operators, some_step, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--size", type=int, default=49_152)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    settings = [each for each, _ in FILTERS]
    asked = [some_step(torch.float32, each, chosen.rows, chosen.size) for each in settings]
    kernels, times = [], [[] for _ in asked]
    for arguments in asked:
        with Operators() as seen:
            step(*arguments)
        kernels.append(seen.kernels)
    for _ in range(chosen.rounds):
        for arguments, each in zip(asked, times, strict=True):
            started = time.process_time()
            step(*arguments)
            each.append((time.process_time() - started) * 1e3)
    print("| filters | kernels | CPU ms |\n|---|---|---|")
    for which, count, each in zip(settings, kernels, times, strict=True):
        names = ", ".join(f"{name}={value}" for name, value in which.items()) or "none"
        middle, low, high = statistics.median(each), min(each), max(each)
        print(f"| {names} | {count} | {middle:.1f} [{low:.1f}, {high:.1f}] |")


if __name__ == "__main__":
    main()
