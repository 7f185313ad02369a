"""The local engine against transformers' own `generate`, and lookahead against lockstep.

Run from the repository's root:

    python tests/benchmarks/baselines.py

Times are of the process's CPU, on one thread; what is compared runs in turn within each round, and
a ratio is the median of the rounds' own, with the lowest and the highest.

*One side* is the time of an answer by a model's own `generate` over that of the routers ``aligned``
and ``base``. *Distinct prompts* is the time of both models' own `generate` for a padded batch, over
that of lockstep for the same prompts: of 8 to 128 tokens, and answers of 8 to 48, which are drawn;
a padded batch goes on until its longest answer is done. The pair of both has random weights and the
shape of SmolLM2-135M in float32. *Lookahead* is the time of lockstep over that of
``lookahead="auto"``, with the embedded pair made as heavy, whose models agree as trained ones do,
and prompts that are known already; by gamma, and by rows at gamma .6.
"""

from __future__ import annotations

import argparse
import random
import time
from functools import partial

import torch

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.evaluation.bench import PROMPT
from baco_integrations.tiny.requests import requests
from tests.benchmarks.random_pairs import random_pair, widened_pair
from tests.benchmarks.rows import Runs, cpu_times
from tests.benchmarks.speed import generate_alone, ratio


def padded_batch(pair: ModelPair, side: str, prompts: list[str], tokens: int) -> None:
    """Let one model answer prompts in one batch, padded on the left."""
    texts = [getattr(pair, f"render_{side}")(prompt, tokenize=True) for prompt in prompts]
    width = max(map(len, texts))
    ids = torch.tensor([[0] * (width - len(text)) + list(text) for text in texts])
    mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts])
    length = {"min_new_tokens": tokens, "max_new_tokens": tokens}
    getattr(pair, side).generate(ids, attention_mask=mask, do_sample=True, **length)


def measure_sides(pair: ModelPair, tokens: int, rounds: int) -> None:
    with Decoder(pair, prefix_bytes=0) as decoder:
        runs: Runs = {}
        for side in ("base", "aligned"):
            params = SamplingParams(router=side, max_tokens=tokens, seed=1)
            runs[f"{side} alone"] = partial(generate_alone, pair, side, tokens)
            runs[side] = partial(decoder.generate, PROMPT, params)
        times = cpu_times(runs, rounds)
    for side in ("base", "aligned"):
        print(f"one side, {side}: {ratio(times[f'{side} alone'], times[side])}", flush=True)


def measure_batch(pair: ModelPair, rows: int, rounds: int) -> None:
    chosen = random.Random(rows)
    # This pair's tokens are characters.
    prompts = ["".join(chosen.choices("abcdefgh ", k=chosen.randint(8, 128))) for _ in range(rows)]
    params = [
        SamplingParams(gamma=0.5, seed=row, max_tokens=chosen.randint(8, 48)) for row in range(rows)
    ]
    longest = max(each.max_tokens or 0 for each in params)
    with Decoder(pair, max_rows=rows, lookahead="off", prefix_bytes=0) as decoder:
        times = cpu_times(
            {
                "base": partial(padded_batch, pair, "base", prompts, longest),
                "aligned": partial(padded_batch, pair, "aligned", prompts, longest),
                "lockstep": partial(decoder.generate_batch, prompts, params),
            },
            rounds,
        )
    both = [sum(each) for each in zip(times["base"], times["aligned"], strict=True)]
    print(f"{rows} distinct prompts: {ratio(both, times['lockstep'])}", flush=True)


def measure_lookahead(pair: ModelPair, rows: int, gamma: float, rounds: int) -> None:
    asked = [request.messages for request in requests("eval")]
    times: dict[str, list[float]] = {"off": [], "auto": []}
    with Decoder(pair, lookahead="off") as off, Decoder(pair) as auto:
        decoders = {"off": off, "auto": auto}
        for number in range(rounds + 1):  # the first warms up
            batch = [asked[(number * rows + row) % len(asked)] for row in range(rows)]
            params = SamplingParams(gamma=gamma, seed=number, max_tokens=64)
            for name in sorted(times, reverse=number % 2 > 0):
                decoders[name].generate_batch(batch, params, max_tokens=1)  # reads the prompts
                start = time.process_time()
                decoders[name].generate_batch(batch, params)
                times[name].append(time.process_time() - start)
    found = ratio(times["off"][1:], times["auto"][1:])
    print(f"lookahead, {rows} rows, gamma {gamma:g}: {found}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rows", type=int, nargs="*", default=[16, 64], help="distinct prompts")
    parser.add_argument("--ahead", type=int, nargs="*", default=[1, 4, 16], help="rows, lookahead")
    parser.add_argument("--width", type=int, default=8192, help="hidden units of the heavy pair")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    pair = random_pair()
    pair.base_eos = pair.aligned_eos = frozenset()  # all answers have the length asked for
    measure_sides(pair, chosen.tokens, chosen.rounds)
    for rows in chosen.rows:
        measure_batch(pair, rows, chosen.rounds)
    heavy = widened_pair(chosen.width)
    for rows in chosen.ahead:
        for gamma in (0.0, 0.3, 0.6, 0.9) if rows == 1 else (0.6,):
            measure_lookahead(heavy, rows, gamma, chosen.rounds * (4 if rows == 1 else 1))


if __name__ == "__main__":
    main()
