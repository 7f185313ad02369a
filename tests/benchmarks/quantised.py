"""What quantised weights save: bytes, and time per token, against float32 and bfloat16.

Run from the repository's root:

    python tests/benchmarks/quantised.py

A pair of random models in the shape of SmolLM2-135M is saved to a temporary folder and loaded in
each format. All of them decode the same prompt in lockstep, in an order that changes from round to
round, so that a busy machine slows them alike; times are medians, over such rounds, of the ratio to
float32 in the same round. The texts are noise; how near int8 is to the whole weights is told on the
embedded pair, as the share of positions in its own answers at which both have the same most
probable token.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.evaluation.bench import machine
from baco_integrations.tiny.requests import requests
from tests.benchmarks.random_pairs import random_pair

FORMATS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "float32, 8bit": {"dtype": "float32", "quantization": "8bit"},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16, 8bit": {"dtype": "bfloat16", "quantization": "8bit"},
    "bfloat16, aligned 8bit": {"dtype": "bfloat16", "aligned_quantization": "8bit"},
}
if torch.cuda.is_available():
    FORMATS["bfloat16, 4bit"] = {"dtype": "bfloat16", "quantization": "4bit"}
PROMPT = "Name a place that is worth a visit, and say in a sentence why."


def load(folder: Path) -> dict[str, ModelPair]:
    made = random_pair()
    for side in ("base", "aligned"):
        getattr(made, side).save_pretrained(folder / side)
        getattr(made, f"{side}_tokenizer").save_pretrained(folder / side)
    sides = (folder / "base", folder / "aligned")
    return {
        name: ModelPair.from_pretrained(*sides, **options, progress=False)
        for name, options in track(FORMATS.items(), "loading", console=Console(stderr=True))
    }


def seconds(decoder: Decoder, params: SamplingParams) -> float:
    """Seconds for each token of a row; answers may end early, and do so in other places."""
    started = time.perf_counter()
    answers = decoder.generate(PROMPT, params)
    return (time.perf_counter() - started) / max(len(answer.steps) for answer in answers)


def measure(pairs: dict[str, ModelPair], rows: int, tokens: int, rounds: int) -> np.ndarray:
    """Seconds per token, of shape (rounds, formats); the first round warms up."""
    decoders = [Decoder(pair, max_rows=rows, lookahead="off") for pair in pairs.values()]
    times = []
    for number in track(range(rounds + 1), f"batch {rows}", console=Console(stderr=True)):
        params = SamplingParams(gamma=0.5, max_tokens=tokens, seed=number, n=rows)
        places = np.random.default_rng(number).permutation(len(decoders))
        taken = {place: seconds(decoders[place], params) for place in places}
        times.append([taken[place] for place in range(len(decoders))])
    for decoder in decoders:
        decoder.close()
    return np.array(times[1:])


@torch.inference_mode()
def agreement(samples: int) -> tuple[float, int]:
    """Share of positions where int8 and float32 have the same most probable token."""
    whole, quantised = ModelPair.tiny(), ModelPair.tiny(quantization="8bit")
    same = []
    with Decoder(whole) as decoder:
        for request in requests("eval")[:samples]:
            (answer,) = decoder.generate(request.messages, seed=1)
            said = [step.token_id for step in answer.steps]
            for side in ("base", "aligned"):
                fed = getattr(whole, f"render_{side}")(request.messages, tokenize=True)
                ids = torch.tensor([[*fed, *said]])
                tops = [getattr(pair, side)(ids).logits[0].argmax(1) for pair in (whole, quantised)]
                same += (tops[0] == tops[1])[len(fed) - 1 : -1].tolist()
    return float(np.mean(same)), len(same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=40, help="requests to the embedded pair")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        pairs = load(Path(folder))
        times = [measure(pairs, rows, chosen.tokens, chosen.rounds) for rows in chosen.rows]
    print("| format | MiB | of float32 |", *(f"time, batch {rows} |" for rows in chosen.rows))
    print("|---" * (3 + len(chosen.rows)) + "|")
    whole = pairs["float32"].memory_bytes()
    for place, (name, pair) in enumerate(pairs.items()):
        size = pair.memory_bytes()
        cells = [name, f"{size / 2**20:.0f}", f"{size / whole:.2f}"]
        for each in times:
            low, middle, high = np.percentile(each[:, place] / each[:, 0], [25, 50, 75])
            cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
        print("| " + " | ".join(cells) + " |")
    share, positions = agreement(chosen.samples)
    print(
        f"\nSame most probable token, int8 and float32, embedded pair: {share:.3f} of {positions}."
    )
    print(machine())


if __name__ == "__main__":
    main()
