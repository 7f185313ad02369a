"""Lockstep against both models alone, a batch against one by one, and time outside of forwards.

Run from the repository's root:

    python tests/benchmarks/speed.py --threads 1 --pair tiny

Whatever is compared runs in turn within each round, with answers of one length; a ratio is the
median of the rounds' own, with the lowest and the highest. *Against both alone* is the time of a
token of each model by its own `generate`, divided by the time of a token of lockstep: 1 is parity.
*Against one by one* is the time of one answer, as often as the batch has answers, divided by the
time of the batch. Time outside of forwards is of lockstep with one answer. For lookahead see
lookahead.py, for prompts that are known already serving.py, and for one pair alone `baco bench`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from rich.console import Console

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.evaluation.bench import PROMPT, Run, alternate, machine, spread
from tests.benchmarks.random_pairs import random_pair, widened_pair

PAIRS: dict[str, Callable[[], ModelPair]] = {
    "tiny": ModelPair.tiny,
    "wide": widened_pair,
    "135m": random_pair,
}


def generate_alone(pair: ModelPair, side: str, tokens: int) -> None:
    """Let one model answer the prompt by its own `generate`."""
    model = getattr(pair, side)
    ids = torch.tensor([getattr(pair, f"render_{side}")(PROMPT, tokenize=True)])
    mask = torch.ones_like(ids)
    length = {"min_new_tokens": tokens, "max_new_tokens": tokens}
    model.generate(ids, attention_mask=mask, do_sample=True, **length)


@contextmanager
def timed_forwards(pair: ModelPair) -> Iterator[list[float]]:
    """Yield a list that gets the seconds of every forward of both models."""
    begun: list[float] = []
    seconds: list[float] = []
    handles = []
    for model in (pair.base, pair.aligned):
        handles.append(
            model.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter()))
        )
        handles.append(
            model.register_forward_hook(
                lambda *_: seconds.append(time.perf_counter() - begun.pop())
            )
        )
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    found = spread([a / b for a, b in zip(numerators, denominators, strict=True)])
    return "{median:.2f} [{low:.2f}, {high:.2f}]".format(**found)


def measure(pair: ModelPair, tokens: int, batches: list[int], rounds: int) -> None:
    pair.base_eos = pair.aligned_eos = frozenset()  # all answers have the same length
    params = SamplingParams(gamma=0.5, max_tokens=tokens, seed=1)
    with Decoder(pair, max_rows=max(batches), lookahead="off", prefix_bytes=0) as decoder:
        runs: dict[Run, Callable[[], object]] = {
            (f"{side} alone", 1): partial(generate_alone, pair, side, tokens)
            for side in ("base", "aligned")
        }
        for count in batches:
            runs["lockstep", count] = partial(decoder.generate, PROMPT, params, n=count)
        with Console(stderr=True).status(f"Measuring {pair.name}") as status:
            times = alternate(runs, rounds, status.update)
        busy = decoder.metrics.busy_s
        with timed_forwards(pair) as forwards:
            for _ in range(rounds):
                decoder.generate(PROMPT, params)
        busy = decoder.metrics.busy_s - busy
    print(f"\n| {pair.name} | answers | tokens/s |\n|---|---|---|")
    for (way, count), seconds in times.items():
        speed = spread([count * tokens / each for each in seconds])
        print(f"| {way} | {count} |", "{median:.1f} [{low:.1f}, {high:.1f}] |".format(**speed))
    one = times["lockstep", 1]
    both = map(sum, zip(times["base alone", 1], times["aligned alone", 1], strict=True))
    print(f"\nlockstep against both alone: {ratio(list(both), one)}")
    for count in batches[1:]:
        found = ratio([count * each for each in one], times["lockstep", count])
        print(f"{count} together against one by one: {found}")
    print(f"time outside of forwards: {1 - sum(forwards) / busy:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batches", nargs="+", type=int, default=[4, 16], help="besides one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(machine())
    for name in chosen.pair:
        measure(PAIRS[name](), chosen.tokens, [1, *chosen.batches], chosen.rounds)


if __name__ == "__main__":
    main()
