"""Rows of different lengths side by side: what each costs, and the memory that they take.

Run from the repository's root:

    python tests/benchmarks/rows.py

The pair has random weights and the shape of SmolLM2-135M in float32. Times are of the process's
CPU, on one thread; what is compared runs in turn within each round, and a ratio is the median of
the rounds' own, with the lowest and the highest. Long rows hold random keys and values instead of a
text, which would take minutes to read.

*Mixed* is a forward of one model for 15 rows of 128 tokens and one of 8k, over the sum of those for
the 15 alone and for the one alone. *Two queries* is a forward of two tokens for each of 8 rows of
4k over one of one token. *Memory* is that of 32 rows of 128 tokens and one of 1.5k, over the bytes
of their tokens, and what is left once they have gone. *Against both alone* is the time of a token
of each model by its own `generate`, over that of a token of lockstep; *first token* is the time of
an answer of one token over that of reading the prompts by both models.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from baco_integrations import Decoder, SamplingParams
from baco_integrations.engines.local.paged_attention import PAGE
from baco_integrations.engines.local.runner import ModelRunner
from baco_integrations.evaluation.bench import PROMPT
from tests.benchmarks.random_pairs import SMOLLM2_135M, random_pair
from tests.benchmarks.speed import generate_alone, ratio

Runs = dict[str, Callable[[], object]]


def cpu_times(runs: Runs, rounds: int) -> dict[str, list[float]]:
    """Return each run's CPU seconds in each round; a first round is left out."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def filled_rows(side: ModelRunner, lengths: list[int]) -> list[list[int]]:
    """Return rows of so many tokens, with random keys and values."""
    rows = [side.share([], 0) for _ in lengths]
    side.prefill(rows[:1], [[1]], [0])
    side.cache.reserve(rows, [0] * len(rows), [length + 2 for length in lengths])
    for layer in side.cache.paged_layers:
        for stored in layer.stored:
            stored.normal_(generator=torch.Generator().manual_seed(1))
    return rows


def feed(side: ModelRunner, rows: list[list[int]], lengths: list[int], width: int = 1) -> None:
    side.forward(rows, [[5] * width] * len(rows), lengths)


def measure_rows(model: object, rounds: int) -> None:
    side, lengths = ModelRunner(model), [*[128] * 15, 8192]
    rows = filled_rows(side, lengths)
    times = cpu_times(
        {
            "short": partial(feed, side, rows[:15], lengths[:15]),
            "long": partial(feed, side, rows[15:], lengths[15:]),
            "mixed": partial(feed, side, rows, lengths),
        },
        rounds,
    )
    apart = [sum(each) for each in zip(times["short"], times["long"], strict=True)]
    print(f"mixed: {ratio(times['mixed'], apart)}, {min(times['mixed']):.3f} s")

    side, lengths = ModelRunner(model), [4096] * 8
    rows = filled_rows(side, lengths)
    both: Runs = {str(width): partial(feed, side, rows, lengths, width) for width in (1, 2)}
    times = cpu_times(both, rounds)
    print(f"two queries: {ratio(times['2'], times['1'])}, one {min(times['1']):.3f} s")


def measure_memory(model: object) -> None:
    side, lengths = ModelRunner(model), [*[128] * 32, 1500]
    rows = [side.share([], 0) for _ in lengths]
    side.prefill(rows[:1], [[1]], [0])
    for row, length in zip(rows, lengths, strict=True):
        for start in range(0, length, PAGE):
            side.cache.reserve([row], [start], [min(PAGE, length - start)])
    held = sum(lengths) * side.page_bytes / PAGE
    print(f"memory: {side.cache.bytes / held:.2f} of {held / 2**20:.0f} MiB")
    for row in rows:
        side.release(row)
    print(f"when idle: {side.cache.bytes / 2**20:.1f} MiB")


def measure_pair(rounds: int, tokens: int) -> None:
    pair = random_pair({**SMOLLM2_135M, "max_position_embeddings": 16384})
    measure_rows(pair.base, rounds)
    measure_memory(pair.base)
    pair.base_eos = pair.aligned_eos = frozenset()  # all answers have the same length
    params = SamplingParams(gamma=0.5, max_tokens=tokens, seed=1)
    with Decoder(pair, lookahead="off", prefix_bytes=0) as decoder:
        times = cpu_times(
            {
                "base": partial(generate_alone, pair, "base", tokens),
                "aligned": partial(generate_alone, pair, "aligned", tokens),
                "lockstep": partial(decoder.generate, PROMPT, params),
                "base reads": partial(generate_alone, pair, "base", 1),
                "aligned reads": partial(generate_alone, pair, "aligned", 1),
                "first": partial(decoder.generate, PROMPT, params, max_tokens=1),
            },
            rounds,
        )
    alone = [sum(each) for each in zip(times["base"], times["aligned"], strict=True)]
    print(f"lockstep against both alone: {ratio(alone, times['lockstep'])}")
    reads = [sum(each) for each in zip(times["base reads"], times["aligned reads"], strict=True)]
    print(f"first token: {ratio(times['first'], reads)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with torch.inference_mode():
        measure_pair(chosen.rounds, chosen.tokens)


if __name__ == "__main__":
    main()
