"""GGUF files: whether their text is that of transformers, and how long they take to load.

Run from the repository's root, with the extra gguf:

    python tests/benchmarks/gguf_files.py model.gguf ...

Each file is loaded by transformers alone, as both sides of a pair (the first start), and as a pair
from the folder that `dequantize` has saved (the second). Times are seconds of one core, without
imports, so that a busy machine does not change them. The greedy text is compared token by token
with what transformers' `generate` says with the model that it has loaded from the same file, for
both prompts of the pair: the chat template and the base prompt.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.evaluation.bench import machine
from baco_integrations.models.dequantize import dequantize

PROMPTS = (
    "Name a fruit.",
    "Name a place that is worth a visit, and say why.",
    "Why is the sky blue?",
    "Write two sentences about a lighthouse.",
    "Give me three names for a cat.",
    "What should I cook tonight?",
)


def timed(load: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return load(), time.process_time() - started


def load_plain(path: Path) -> Any:
    """Load a file as transformers does; return its model."""
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)


def load_pair(path: Path) -> ModelPair:
    return ModelPair.from_pretrained(path, path, progress=False)


def equal_tokens(model: Any, pair: ModelPair, tokens: int) -> tuple[int, int]:
    """Count the pair's greedy tokens that are those of the model, and all of them."""
    equal = whole = 0
    with Decoder(pair) as decoder:
        for prompt in PROMPTS:
            for side in ("base", "aligned"):
                ids = torch.tensor([getattr(pair, f"render_{side}")(prompt, tokenize=True)])
                params = SamplingParams(router=side, temperature=0, max_tokens=tokens)
                (answer,) = decoder.generate(prompt, params)
                said = [step.token_id for step in answer.steps]
                made = model.generate(ids, do_sample=False, max_new_tokens=len(said))
                theirs = made[0, ids.shape[1] :].tolist()
                equal += sum(a == b for a, b in zip(said, theirs, strict=False))
                whole += max(len(said), len(theirs))
    return equal, whole


def measure(path: Path, tokens: int) -> list[str]:
    """Return a row of the table."""
    model, plain = timed(lambda: load_plain(path))
    pair, first = timed(lambda: load_pair(path))
    sizes = [f"{size / 2**20:.0f}" for size in (path.stat().st_size, pair.memory_bytes())]
    equal = "{} of {}".format(*equal_tokens(model, pair, tokens))
    del model, pair
    with tempfile.TemporaryDirectory() as place:
        folder, saving = timed(lambda: dequantize(path, Path(place) / "saved", progress=False))
        _, second = timed(lambda: load_pair(folder))
    return [path.name, *sizes, *(f"{t:.1f}" for t in (plain, first, saving, second)), equal]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--tokens", type=int, default=32)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    ModelPair.tiny(progress=False)  # which imports what loading takes
    names = ("MiB", "in memory", "transformers", "first start", "saving", "second start")
    print("| file |", *(f"{name} |" for name in names), "tokens equal |")
    print("|---" * (2 + len(names)) + "|")
    for path in chosen.paths:
        print("| " + " | ".join(measure(path.resolve(), chosen.tokens)) + " |", flush=True)
    print(machine())


if __name__ == "__main__":
    main()
