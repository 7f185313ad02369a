"""What sharing weights saves: time per token and memory of one model with an adapter.

Run from the repository's root:

    python tests/benchmarks/twin.py

Speed: a model of SmolLM2-135M's shape with a random adapter of rank 16 on all linear layers
decodes base and aligned in one forward; it is compared with the model's own `generate`, and with
two models in lockstep. All run alternately in one process, at batch 1; ratios are medians over
paired rounds. Memory is the growth of a fresh process until it has decoded.

Fidelity: the embedded pair with base as aligned plus an adapter, at several ranks.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.evaluation.bench import machine
from baco_integrations.evaluation.fidelity import fidelity
from baco_integrations.models.lora.extract import extract
from baco_integrations.tiny import WEIGHTS
from tests.benchmarks.random_pairs import random_pair

STDERR = Console(stderr=True)
PROMPT = "Name a place that is worth a visit, and say in a sentence why."
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_random(folder: Path, rank: int) -> None:
    """Save two models and, in PEFT's form, an adapter that turns one into something else."""
    from peft import LoraConfig, get_peft_model

    pair = random_pair()
    for side in ("base", "aligned"):
        getattr(pair, side).save_pretrained(folder / side)
        getattr(pair, f"{side}_tokenizer").save_pretrained(folder / side)
    config = LoraConfig(r=rank, target_modules=LINEAR, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        get_peft_model(pair.base, config).save_pretrained(folder / "adapter")
    pair.aligned_tokenizer.save_pretrained(folder / "adapter")


def answer(pair: ModelPair, tokens: int) -> Decoder:
    pair.base_eos = pair.aligned_eos = frozenset()  # all answers have the same length
    decoder = Decoder(pair, lookahead="off", prefix_bytes=0)
    decoder.generate(PROMPT, SamplingParams(gamma=0.5, max_tokens=tokens, seed=1))
    return decoder


def alone(model: Any, ids: list[int], tokens: int) -> None:
    fed = torch.tensor([ids])
    model.generate(fed, do_sample=True, min_new_tokens=tokens, max_new_tokens=tokens)


def speed(folder: Path, tokens: int, rounds: int) -> None:
    two = ModelPair.from_pretrained(folder / "base", folder / "aligned")
    twin = ModelPair.from_adapter(folder / "base", folder / "adapter")
    params = SamplingParams(gamma=0.5, max_tokens=tokens, seed=1)
    prompt = two.render_aligned(PROMPT, tokenize=True)
    with answer(two, 2) as lockstep, answer(twin, 2) as shared:
        runs: dict[str, Callable[[], object]] = {
            "aligned alone": lambda: alone(two.aligned, prompt, tokens),
            "two models": lambda: lockstep.generate(PROMPT, params),
            "twin": lambda: shared.generate(PROMPT, params),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(rounds + 1):
            STDERR.print(f"round {number} of {rounds}")
            for name, run in runs.items():
                started = time.perf_counter()
                run()
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - started)
    print("| | ms per token | against aligned alone |\n|---|---|---|")
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds["aligned alone"], strict=True)]
        each = 1000 * statistics.median(times) / tokens
        print(f"| {name} | {each:.1f} | {statistics.median(ratios):.2f} |", flush=True)


def peak(folder: Path, kind: str) -> None:
    """Print how far this process grows until it has decoded."""
    before = psutil.Process().memory_info().rss
    if kind == "aligned alone":
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder / "base")
        assert len(tokenizer)
        alone(AutoModelForCausalLM.from_pretrained(folder / "base"), [1] * 64, 8)
    elif kind == "twin":
        answer(ModelPair.from_adapter(folder / "base", folder / "adapter"), 8).close()
    else:
        answer(ModelPair.from_pretrained(folder / "base", folder / "aligned"), 8).close()
    highest = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    print(int(highest[1]) * 1024 - before if highest else 0)


def memory(folder: Path) -> None:
    grown = {}
    for kind in ("aligned alone", "two models", "twin"):
        command = [sys.executable, __file__, "--peak", kind, "--folder", str(folder)]
        grown[kind] = int(subprocess.check_output(command, stderr=subprocess.DEVNULL))
    print("\n| | peak memory, MiB | against aligned alone |\n|---|---|---|")
    for kind, size in grown.items():
        print(f"| {kind} | {size / 2**20:.0f} | {size / grown['aligned alone']:.2f} |", flush=True)


def table(ranks: list[int]) -> None:
    print("\n| rank | adapter | left out | KL, nats | same top-1 | same route |")
    print("|---|---|---|---|---|---|", flush=True)
    sides = WEIGHTS / "base", WEIGHTS / "aligned"
    with tempfile.TemporaryDirectory() as folder:
        for rank in ranks:
            made = extract(*sides, Path(folder) / f"r{rank}", rank=rank)
            found = fidelity(*sides, made.folder)
            size = f"{found.adapter_bytes / found.model_bytes:.0%} of a model"
            shares = f"{made.error:.2f} | {found.kl:.3f} | {found.top1:.2f} | {found.routes:.2f}"
            print(f"| {rank} | {size} | {shares} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--ranks", nargs="*", type=int, default=[4, 8, 16, 32, 64])
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
        save_random(folder, chosen.rank)
        speed(folder, chosen.tokens, chosen.rounds)
        memory(folder)
    table(chosen.ranks)


if __name__ == "__main__":
    main()
