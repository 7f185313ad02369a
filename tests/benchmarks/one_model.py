"""What one model as both sides costs, against the model alone and against two copies of it.

Run from the repository's root:

    python tests/benchmarks/one_model.py

The model has random weights and the shape of SmolLM2-135M, in float32. *Time* is the process's CPU
time of one answer, on one thread, over that of the model's own `generate` for as many tokens; what
is compared runs in turn within each round, and a ratio is the median of the rounds' own, with the
lowest and the highest. *Memory* is the growth of a fresh process until it has loaded and answered,
and its peak with all that it had imported before. *Same text* compares answers with those of two
copies, in lockstep, in float64.
"""

from __future__ import annotations

import argparse
import copy
import re
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.evaluation.bench import PROMPT, machine
from tests.benchmarks.random_pairs import SMOLLM2_135M, TEMPLATE, random_model, word_tokenizer
from tests.benchmarks.rows import cpu_times
from tests.benchmarks.speed import ratio

WAYS = ("alone", "one model", "two copies")


def two_copies(pair: ModelPair) -> ModelPair:
    tokenizers = pair.base_tokenizer, pair.aligned_tokenizer
    return ModelPair(pair.base, copy.deepcopy(pair.aligned), *tokenizers)


def open_decoder(pair: ModelPair) -> Decoder:
    pair.base_eos = pair.aligned_eos = frozenset()  # all answers have the same length
    return Decoder(pair, lookahead="off", prefix_bytes=0)


def generate_alone(model: Any, ids: list[int], tokens: int) -> None:
    length = {"min_new_tokens": tokens, "max_new_tokens": tokens}
    model.generate(torch.tensor([ids]), do_sample=True, **length)


def measure_time(folder: Path, tokens: int, rounds: int) -> None:
    pair, plain = ModelPair.from_model(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = pair.render_aligned(PROMPT, tokenize=True)
    params = SamplingParams(gamma=0.5, max_tokens=tokens, seed=1)
    with open_decoder(pair) as one, open_decoder(two_copies(pair)) as two:
        runs: dict[str, Any] = {
            "alone": partial(generate_alone, plain, ids, tokens),
            "one model": partial(one.generate, PROMPT, params),
            "two copies": partial(two.generate, PROMPT, params),
        }
        times = cpu_times(runs, rounds)
    print("| | CPU ms per token | against alone |\n|---|---|---|")
    for way, seconds in times.items():
        each = 1000 * statistics.median(seconds) / tokens
        print(f"| {way} | {each:.1f} | {ratio(seconds, times['alone'])} |", flush=True)


def peak(folder: Path, way: str) -> None:
    """Print how far this process grows until it has answered, and its peak."""
    before = psutil.Process().memory_info().rss
    if way == "alone":
        ids = AutoTokenizer.from_pretrained(folder)(PROMPT)["input_ids"]
        generate_alone(AutoModelForCausalLM.from_pretrained(folder), ids, 8)
    else:
        pair = ModelPair.from_model(folder)
        with open_decoder(pair if way == "one model" else two_copies(pair)) as decoder:
            decoder.generate(PROMPT, SamplingParams(max_tokens=8, seed=1))
    highest = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert highest
    print(int(highest[1]) * 1024 - before, int(highest[1]) * 1024)


def measure_memory(folder: Path) -> None:
    found = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--peak", way, "--folder", str(folder)]
        found[way] = [*map(int, subprocess.check_output(command).split())]
    print("\n| | growth, MiB | against alone | peak, MiB | against alone |\n|---|---|---|---|---|")
    for way, sizes in found.items():
        cells = (
            f"{size / 2**20:.0f} | {size / alone:.2f}"
            for size, alone in zip(sizes, found["alone"], strict=True)
        )
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


def compare_texts(folder: Path, tokens: int) -> None:
    pair = ModelPair.from_model(folder, dtype="float64")
    said = []
    for each in (pair, two_copies(pair)):
        with open_decoder(each) as decoder:
            answers = decoder.generate(PROMPT, n=8, seed=1, gamma=0.7, max_tokens=tokens)
        said.append([answer.text for answer in answers])
    same = sum(one == other for one, other in zip(*said, strict=True))
    print(f"\nsame text: {same} of {len(said[0])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.peak:
        return peak(chosen.folder, chosen.peak)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random_model(SMOLLM2_135M, 0, "float32", "cpu").save_pretrained(folder)
        word_tokenizer(SMOLLM2_135M["vocab_size"], TEMPLATE).save_pretrained(folder)
        measure_time(folder, chosen.tokens, chosen.rounds)
        measure_memory(folder)
        compare_texts(folder, chosen.tokens)


if __name__ == "__main__":
    main()
