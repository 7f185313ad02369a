"""What the chat model costs on top of the decoder, over the same tokens.

Run from the repository's root:

    python tests/benchmarks/overhead.py

`invoke` is compared with `Decoder.generate`, `stream` with `Decoder.stream`, on the embedded pair
with one prompt and one seed per pair of runs, so that both decode the same tokens. The two follow
each other, now one first and now the other, and what counts is the median of their differences:
other work on the machine slows both. Where that work is heavy, the CPU time of the calling thread
says more: it holds all that the chat model adds, even what runs while the next token is decoded.
Quartiles stand in brackets.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from baco_integrations.langchain import ChatBACo

WARM_UP = 3
PROMPT = "Tell me a short story."
MEASURES = (
    "bare, ms",
    "overhead per call, ms",
    "per token, of a bare token",
    "CPU per call, ms",
    "CPU per token, us",
    "CPU, of a bare token",
)


class Case(NamedTuple):
    """A way of asking: both sides take a seed and return the text and the number of tokens."""

    name: str
    tokens: int
    bare: Callable[[int], tuple[str, int]]
    wrapped: Callable[[int], tuple[str, int]]


def cases(llm: ChatBACo, tokens: int) -> list[Case]:
    decoder = llm.decoder
    settings = {"max_tokens": tokens, "gamma": 0.6}

    def generate(seed: int) -> tuple[str, int]:
        (completion,) = decoder.generate(PROMPT, seed=seed, **settings)
        return completion.text, len(completion.steps)

    def invoke(seed: int) -> tuple[str, int]:
        answer = llm.invoke(PROMPT, seed=seed, **settings)
        return str(answer.text), answer.usage_metadata["output_tokens"]

    def decoder_stream(seed: int) -> tuple[str, int]:
        with decoder.stream(PROMPT, seed=seed, **settings) as stream:
            texts = [step.text for step in stream]
        return "".join(texts), len(texts)

    def stream(seed: int) -> tuple[str, int]:
        chunks = list(llm.stream(PROMPT, seed=seed, **settings))
        counts = [c.usage_metadata["output_tokens"] for c in chunks if c.usage_metadata]
        return "".join(str(chunk.text) for chunk in chunks), sum(counts)

    return [
        Case("invoke", tokens, generate, invoke),
        Case("stream", tokens, decoder_stream, stream),
    ]


def timed(run: Callable[[int], tuple[str, int]], seed: int) -> tuple[float, float, str, int]:
    """Return seconds, seconds of the calling thread on the CPU, the text and its tokens."""
    cpu, started = time.thread_time(), time.perf_counter()
    text, tokens = run(seed)
    return time.perf_counter() - started, time.thread_time() - cpu, text, tokens


def measure(case: Case, pairs: int) -> np.ndarray:
    """Return a line per pair of runs: tokens, then seconds and the caller's on the CPU, by side."""
    lines = []
    label = f"{case.name}, {case.tokens} tokens"
    for seed in track(range(WARM_UP + pairs), label, console=Console(stderr=True)):
        sides = (case.bare, case.wrapped) if seed % 2 else (case.wrapped, case.bare)
        runs = {side: timed(side, seed) for side in sides}
        bare, wrapped = runs[case.bare], runs[case.wrapped]
        if bare[2:] != wrapped[2:]:
            raise ValueError(f"not the same text: {bare[2]!r} and {wrapped[2]!r}")
        lines.append((bare[3], bare[0], wrapped[0], bare[1], wrapped[1]))
    return np.array(lines[WARM_UP:])


def quartiles(values: np.ndarray, form: str) -> str:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200, help="pairs of runs for each line")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 128])
    chosen = parser.parse_args()
    llm = ChatBACo(pair="tiny")
    print("| call | tokens | " + " | ".join(MEASURES) + " |")
    print("|---" * (len(MEASURES) + 2) + "|")
    gc.collect()
    for tokens in chosen.tokens:
        for case in cases(llm, tokens):
            tokens_of, bare, wrapped, bare_cpu, wrapped_cpu = measure(case, chosen.pairs).T
            extra, extra_cpu = wrapped - bare, wrapped_cpu - bare_cpu
            # Shares are of what a bare token usually takes: a single run may have been held up.
            usual = np.median(bare / tokens_of)
            cells = (
                case.name,
                f"{tokens_of.mean():.0f}",
                quartiles(1e3 * bare, ".1f"),
                quartiles(1e3 * extra, ".2f"),
                quartiles(extra / tokens_of / usual, ".1%"),
                quartiles(1e3 * extra_cpu, ".2f"),
                quartiles(1e6 * extra_cpu / tokens_of, ".0f"),
                quartiles(extra_cpu / tokens_of / usual, ".1%"),
            )
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
