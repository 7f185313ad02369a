"""What a vocabulary of Gemma's size costs: loading, requests, grammars and garbage collections.

Run from the repository's root:

    python tests/benchmarks/vocabulary.py

The vocabulary is made up (262,144 tokens, of which 6,384 are added; `tests/big_vocabulary.py`), and
the weights next to nothing. Every measurement of loading is of a process of its own, in CPU seconds
without imports; a pair whose sides have the same tokenizer files and one whose sides have not take
turns, and so does a pair of a few thousand tokens. Milliseconds are medians, with the lowest and
the highest in brackets.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SIZES = {"large": (262_144, 6_384), "small": (4_096, 100)}


def spread(values: Sequence[float], form: str = ".1f") -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def milliseconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3


def measure(base: str, aligned: str) -> dict[str, float | list[float]]:
    """Measure one pair in this process."""
    from baco_integrations import Decoder, ModelPair, SamplingParams

    with Decoder(ModelPair.tiny()) as decoder:  # whatever is imported late
        decoder.generate("x", SamplingParams(choices=["a", "b"], max_tokens=2))
    gc.collect()
    found: dict[str, float | list[float]] = {"collection before": milliseconds(gc.collect)}
    started = time.process_time()
    pair = ModelPair.from_pretrained(base, aligned)
    found["load, CPU s"] = time.process_time() - started
    found["classes"] = milliseconds(lambda: pair.token_space.classes("cpu"))

    def render() -> None:
        pair.render_base("Hello", tokenize=True)
        pair.render_aligned("Hello", tokenize=True)

    found["first request of one word"] = milliseconds(render)
    found["request of one word"] = statistics.median(milliseconds(render) for _ in range(50))
    chosen = SamplingParams(choices=["a", "b"], max_tokens=1)
    started = time.perf_counter()
    with Decoder(pair) as decoder:
        found["opening a decoder"] = (time.perf_counter() - started) * 1e3
        found["first grammar, with a token"] = milliseconds(lambda: decoder.generate("x", chosen))
        other = SamplingParams(choices=["c", "d"], max_tokens=1)
        found["second grammar, with a token"] = milliseconds(lambda: decoder.generate("x", other))
        found["free text, a token"] = milliseconds(lambda: decoder.generate("x", max_tokens=1))
        gc.collect()
        found["collection after"] = milliseconds(gc.collect)
        gc.freeze()  # as `baco serve` does
        found["collection, frozen"] = milliseconds(gc.collect)
    return found


def measured(folders: dict[str, str]) -> dict[str, float]:
    """Measure one pair in a process of its own."""
    arguments = [sys.executable, __file__, "--pair", folders["base"], folders["aligned"]]
    answer = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pair", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.pair:
        print(json.dumps(measure(*chosen.pair)))
        return
    from tests.big_vocabulary import big_pair_folder

    with tempfile.TemporaryDirectory() as folder:
        pairs = {}
        for name, (size, added) in SIZES.items():
            pairs[f"{name}, equal files"] = big_pair_folder(Path(folder, name), size, added)
        other = big_pair_folder(Path(folder, "other"), *SIZES["large"])
        config = Path(other["base"], "tokenizer_config.json")
        config.write_text(config.read_text() + "\n")
        pairs["large, other files"] = other
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in pairs}
        for _ in range(chosen.rounds):
            for name, folders in pairs.items():
                runs[name].append(measured(folders))
    print("| ms unless said | " + " | ".join(runs) + " |")
    print("|---" * (len(runs) + 1) + "|")
    for what in next(iter(runs.values()))[0]:
        form = ".2f" if what.startswith(("load", "request")) else ".0f"
        cells = [spread([run[what] for run in each], form) for each in runs.values()]
        print(f"| {what} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
