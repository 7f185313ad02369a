"""What launching costs on a GPU: time per token against the time that reading the weights takes.

Run from the repository's root, on a machine with a CUDA device:

    python tests/benchmarks/gpu.py

Two random models of the shape of Llama 3 8B in bfloat16 decode in lockstep and reading ahead, with
and without CUDA graphs, for several numbers of rows. The ways follow each other in every round;
figures are medians over the rounds. Base gives nearly every token, so nearly every guess is right:
what is read ahead shows the most that it can save. The floor is lockstep's: the bytes of both
models, over the bandwidth at which this device copies memory. Peak memory holds the caches of all
four ways.

Without a CUDA device it says so, and runs two small models on the CPU to show that it works.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.evaluation.bench import machine
from tests.benchmarks.random_pairs import random_pair

LLAMA_3_8B = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}
SMALL = LLAMA_3_8B | {
    "vocab_size": 2000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WAYS: dict[str, dict[str, Any]] = {
    "lockstep, launched": {"lookahead": "off", "graphs": "off"},
    "lockstep, graphs": {"lookahead": "off", "graphs": "on"},
    "4 ahead, launched": {"lookahead": 4, "graphs": "off"},
    "4 ahead, graphs": {"lookahead": 4, "graphs": "on"},
}
STDERR = Console(stderr=True)


class Run(NamedTuple):
    """One answer in so many samples: seconds, tokens of each sample, forwards per token, bytes."""

    seconds: float
    tokens: float
    forwards: float
    peak: int


def bandwidth(device: str) -> float:
    """Bytes per second that the device reads and writes when it copies memory."""
    block = torch.empty(2**30 if device == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target, seconds = torch.empty_like(block), []
    for _ in range(10):
        started = time.perf_counter()
        target.copy_(block)
        waited(device)
        seconds.append(time.perf_counter() - started)
    return 2 * block.nbytes / statistics.median(seconds[2:])


def waited(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def run(decoder: Decoder, rows: int, tokens: int, device: str) -> Run:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    params = SamplingParams(
        router="p", gamma=1.0, boundary=False, seed=1, n=rows, max_tokens=tokens
    )
    before = decoder.metrics.tokens, decoder.metrics.forwards
    started = time.perf_counter()
    decoder.generate("Name a place that is worth a visit, and say why.", params)
    seconds = time.perf_counter() - started
    decoded = (decoder.metrics.tokens - before[0]) / rows
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return Run(seconds, decoded, (decoder.metrics.forwards - before[1]) / decoded, peak)


def line(way: str, rows: int, runs: list[Run], floor: float) -> str:
    each = statistics.median(run.seconds / run.tokens for run in runs)
    cells = (
        way,
        str(rows),
        f"{1000 * each:.2f}",
        f"{each / floor:.2f}",
        f"{rows / each:.0f}",
        f"{statistics.median(run.forwards for run in runs):.2f}",
        f"{max(run.peak for run in runs) / 2**30:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def measured(pair: ModelPair, batch: list[int], tokens: int, rounds: int, device: str) -> None:
    speed = bandwidth(device)
    floor = pair.memory_bytes() / speed
    print(f"{json.dumps(machine())}\n")
    print(f"{pair.memory_bytes() / 2**30:.1f} GiB of weights, copied at {speed / 1e9:.0f} GB/s: ")
    print(f"a token of lockstep takes {1000 * floor:.2f} ms at least.\n")
    print("| way | rows | ms per token | of the floor | tokens/s | forwards per token | peak GiB |")
    print("|---|---|---|---|---|---|---|")
    for rows in batch:
        decoders = {name: Decoder(pair, max_rows=rows, **way) for name, way in WAYS.items()}
        runs: dict[str, list[Run]] = {name: [] for name in WAYS}
        for number in track(range(rounds + 1), f"{rows} rows", console=STDERR):
            for name, decoder in decoders.items():
                done = run(decoder, rows, tokens, device)
                runs[name] += [done] * (number > 0)  # the first round loads and records
        for name, decoder in decoders.items():
            decoder.close()
            print(line(name, rows, runs[name], floor), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if torch.cuda.is_available():
        with STDERR.status("Making two random models of 8B"):
            pair = random_pair(LLAMA_3_8B, dtype="bfloat16", device="cuda", name="random-8b")
        measured(pair, chosen.rows, chosen.tokens, chosen.rounds, "cuda")
    else:
        print("This needs a CUDA device, and there is none. Small models on the CPU, as a trial:\n")
        measured(random_pair(SMALL, name="random-small"), [1, 4], 24, 1, "cpu")


if __name__ == "__main__":
    main()
