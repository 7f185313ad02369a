"""What a step costs on a GPU, against the time that reading weights and keys takes.

Run from the repository's root, on a machine with a CUDA device (8 minutes at most):

    python tests/benchmarks/gpu.py

Two random models of the shape of Llama 3 8B decode in lockstep and reading ahead, launched and as
CUDA graphs. All rows go on with one prompt, each in its own way. It prints three tables:

- Greedy tokens, held against one plain forward of transformers over prompt and answer.
- Where the host waits for the device, as ``torch.cuda.set_sync_debug_mode`` tells it.
- Time, waits and memory. A prompt is answered with few tokens and with more of them; all figures
  but the peak are differences of the two, so reading the prompt is in none of them. The floor is
  what the same forwards take if they do nothing but read a model's weights and the keys and values
  of their rows at the bandwidth at which this device copies memory. A wait is a call of CUDA's
  ``Stream``-, ``Event``- or ``DeviceSynchronize`` in a profile; copies are those to the host. Base
  gives nearly every token, so nearly every guess is right: reading ahead saves the most it can.

What does not fit into memory, or into the time, is left out, and named. ``--device cpu --shape
small`` shows that the script works.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from baco_integrations import Completion, Decoder, ModelPair, SamplingParams
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
DTYPES = ("bfloat16", "float16", "float32")
SHAPES = {"8b": LLAMA_3_8B, "small": SMALL}
WAYS: dict[str, dict[str, Any]] = {
    "lockstep, launched": {"lookahead": "off", "graphs": "off"},
    "lockstep, graphs": {"lookahead": "off", "graphs": "on"},
    "4 ahead, launched": {"lookahead": 4, "graphs": "off"},
    "4 ahead, graphs": {"lookahead": 4, "graphs": "on"},
}
FEW = 4
"""Tokens of the short answer."""
PROFILED = 8
"""Tokens that the longer answer of a profile has more: profiles of long ones take long to read."""
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize")
COLUMNS = (
    *("context", "rows", "way", "ms per step", "tokens per step", "ms per token"),
    *("of the floor", "waits per step", "copies per step", "peak GiB"),
)


class Bench(NamedTuple):
    """What everything is measured with; `until` is on the monotonic clock, `speed` in bytes/s."""

    pair: ModelPair
    device: str
    tokens: int
    rounds: int
    speed: float
    until: float

    @property
    def left(self) -> float:
        return self.until - time.monotonic()


class Run(NamedTuple):
    """One answer: its seconds, and how much the decoder's counts grew by it."""

    seconds: float
    iterations: int
    forwards: int
    completions: list[Completion]


def decoder_of(bench: Bench, rows: int, way: str) -> Decoder:
    return Decoder(bench.pair, max_rows=rows, prefix_bytes=2**33, **WAYS[way])


def prompt_of(bench: Bench, context: int) -> torch.Tensor:
    """Random words: the context, less the longest answer."""
    length, size = context - FEW - bench.tokens, bench.pair.base.config.vocab_size
    return torch.randint(300, size, (length,), generator=torch.Generator().manual_seed(context))


def answer(bench: Bench, decoder: Decoder, context: int, tokens: int, **settings: Any) -> Run:
    """Go on with a prompt that fills the context with the longest answer."""
    own = {"router": "p", "gamma": 1.0, "boundary": False, "seed": 1, "raw": True, **settings}
    params = SamplingParams(max_tokens=tokens, timeout=max(bench.left, 1.0), **own)
    metrics = decoder.metrics
    before = metrics.iterations, metrics.forwards, metrics.restarts
    started = time.perf_counter()
    completions = decoder.generate(prompt_of(bench, context).tolist(), params)
    seconds = time.perf_counter() - started
    metrics = decoder.metrics
    if metrics.restarts > before[2]:
        raise MemoryError("it went on with fewer rows at a time")
    if {len(each.steps) for each in completions} != {tokens}:
        raise ValueError("an answer ended before its last token")
    counts = metrics.iterations - before[0], metrics.forwards - before[1]
    return Run(seconds, *counts, completions)


# -- greedy tokens -------------------------------------------------------------------------------


def compare(bench: Bench, context: int, rows: int) -> None:
    """Print whether greedy tokens are those of a plain forward, by way and side."""
    print("\n| way | rows | side | greedy tokens of a plain forward | first other one |")
    print("|---|---|---|---|---|")
    for way in WAYS:
        for side in ("base", "aligned"):
            try:
                with decoder_of(bench, rows, way) as decoder:
                    found = answer(
                        *(bench, decoder, context, FEW + bench.tokens),
                        **{"router": side, "gamma": None, "temperature": 0.0, "n": rows},
                    )
                cells = differences(bench, side, context, found.completions)
            except Exception as error:  # one way that fails costs no other its line
                cells = (named(error), "")
            print(f"| {way} | {rows} | {side} | {' | '.join(cells)} |", flush=True)


def differences(
    bench: Bench, side: str, context: int, completions: list[Completion]
) -> tuple[str, str]:
    """How many tokens of all rows are the forward's, and by how much the first other one is not."""
    model, prompt = getattr(bench.pair, side), prompt_of(bench, context)
    equal, first = 0, "none"
    for row, completion in enumerate(completions):
        own = torch.tensor([step.token_id for step in completion.steps])
        ids = torch.cat((prompt, own)).to(bench.device)
        with torch.inference_mode():
            logits = model(ids[None, :-1], logits_to_keep=len(own)).logits[0].float().cpu()
        best = logits.topk(2).values
        other = (logits.argmax(-1) != own).nonzero()[:, 0].tolist()
        equal += len(own) - len(other)
        if other and first == "none":
            at = other[0]
            below = best[at, 0] - logits[at, own[at]]
            gap = best[at, 0] - best[at, 1]
            first = f"row {row}, token {at}: {below:.3g} below, highest two {gap:.3g} apart"
    return f"{equal} of {sum(len(each.steps) for each in completions)}", first


# -- waits ---------------------------------------------------------------------------------------


def show_waits(bench: Bench, context: int, rows: int) -> None:
    """Print the lines of code at which the host waits for the device, and how often."""
    for way in WAYS:
        try:
            with decoder_of(bench, rows, way) as decoder:
                answer(bench, decoder, context, FEW, n=rows)  # loads, records, reads the prompt
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    debug(bench, "warn")
                    run = answer(bench, decoder, context, FEW + PROFILED, n=rows)
                    debug(bench, "default")
            lines = Counter(f"{Path(each.filename).name}:{each.lineno}" for each in caught)
            told = ", ".join(f"{line} ({count})" for line, count in lines.most_common(12))
        except Exception as error:  # as above
            debug(bench, "default")
            print(f"\n{way}: {named(error)}", flush=True)
        else:
            print(f"\n{way}, {run.iterations} steps, waits at: {told or 'none'}", flush=True)


def debug(bench: Bench, mode: str) -> None:
    if bench.device == "cuda":
        torch.cuda.set_sync_debug_mode(mode)


def profiled(bench: Bench, decoder: Decoder, context: int, rows: int) -> tuple[float, float]:
    """Waits and copies to the host per step; nan where the profile tells of no call of CUDA."""
    kind = ProfilerActivity.CUDA if bench.device == "cuda" else ProfilerActivity.CPU
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for tokens in (FEW, FEW + PROFILED):
            with profile(activities=[kind]) as profiler:
                run = answer(bench, decoder, context, tokens, n=rows)
            profiler.export_chrome_trace(f"{folder}/trace.json")
            trace = json.loads(Path(folder, "trace.json").read_text())
            found.append((run.iterations, *waits_in(trace["traceEvents"])))
    steps, waits, copies = (more - few for few, more in zip(*found, strict=True))
    return waits / steps, copies / steps


def waits_in(events: list[dict[str, Any]]) -> tuple[float, float]:
    """Count waits and copies to the host among the events of a trace."""
    names = [str(each.get("name")) for each in events if each.get("ph") == "X"]
    if not any(name.startswith("cuda") for name in names):  # of the CPU, or CUPTI may not be used
        return math.nan, math.nan
    copies = sum(name.startswith("Memcpy DtoH") for name in names)
    return sum(name.startswith(WAITS) for name in names), copies


# -- time ----------------------------------------------------------------------------------------


def bandwidth(device: str) -> float:
    """Bytes per second that the device reads and writes when it copies memory."""
    block = torch.empty(2**30 if device == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target, seconds = torch.empty_like(block), []
    for _ in range(10):
        started = time.perf_counter()
        target.copy_(block)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * block.nbytes / statistics.median(seconds[2:])


def bytes_read(pair: ModelPair, rows: int, context: int) -> tuple[int, int]:
    """Bytes of weights that a forward of one model reads, and of its rows' keys and values."""
    config, weight = pair.base.config, pair.base.get_input_embeddings().weight
    weights = pair.memory_bytes() // 2 - weight.nbytes  # of embeddings, it reads a line for a row
    heads = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    position = 2 * config.num_hidden_layers * heads * weight.element_size()
    return weights, rows * context * position


def measure(bench: Bench, context: int, rows: int, way: str) -> str:
    """Return the cells of a line of the last table, from its fourth column on."""
    needed = 2 * bytes_read(bench.pair, rows, context)[1]
    if bench.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        if needed > (free := torch.cuda.mem_get_info()[0]):
            return f"does not fit: its keys take {gib(needed)} GiB, {gib(free)} are free"
    with decoder_of(bench, rows, way) as decoder:
        pairs = []
        for _ in range(bench.rounds + 1):
            few = answer(bench, decoder, context, FEW, n=rows)
            pairs.append((few, answer(bench, decoder, context, FEW + bench.tokens, n=rows)))
        peak = torch.cuda.max_memory_allocated() if bench.device == "cuda" else math.nan
        try:
            waits = profiled(bench, decoder, context, rows)
        except Exception as error:  # the times stand without it
            print(f"No profile: {named(error)}", file=sys.stderr)
            waits = math.nan, math.nan
    del pairs[0]  # it loads, records, and reads the prompt
    seconds, steps, forwards = (
        statistics.median(more[at] - few[at] for few, more in pairs) for at in range(3)
    )
    floor = forwards * sum(bytes_read(bench.pair, rows, context)) / bench.speed
    figures = (1000 * seconds / steps, bench.tokens / steps, 1000 * seconds / bench.tokens)
    told = (*figures, seconds / floor, *waits)
    return " | ".join([*(f"{figure:.2f}" for figure in told), gib(peak)])


def measure_all(bench: Bench, contexts: list[int], batch: list[int]) -> None:
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    longest = 0.0
    for context in contexts:
        for rows in batch:
            for way in WAYS:
                started = time.monotonic()
                try:
                    told = measure(bench, context, rows, way) if bench.left > longest else None
                except Exception as error:  # one that fails costs no other its line
                    told = named(error)
                gc.collect()
                longest = max(longest, time.monotonic() - started)
                told = told or "left out: no time is left"
                print(f"| {context} | {rows} | {way} | {told} |", flush=True)


def gib(count: float) -> str:
    return f"{count / 2**30:.1f}"


def named(error: Exception) -> str:
    text = " ".join(str(error).split()).replace("|", "/")
    return f"{type(error).__name__}: {text[:160]}"


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="8b")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--contexts", nargs="+", type=int, default=[256, 2048, 8192])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--tokens", type=int, default=32, help="what the longer answer has more")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=480.0, help="cells beyond are left out")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    until = time.monotonic() + chosen.seconds
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here: --device cpu --shape small tries it out.")
    shape = {"dtype": chosen.dtype, "device": chosen.device, "name": f"random-{chosen.shape}"}
    pair = copy.copy(random_pair(SHAPES[chosen.shape], **shape))
    pair.base_eos = pair.aligned_eos = frozenset()  # no answer ends before its last token
    speed = bandwidth(chosen.device)
    bench = Bench(pair, chosen.device, chosen.tokens, chosen.rounds, speed, until)
    weights = bytes_read(pair, 1, 1)[0]
    print(json.dumps(machine() | {"device": device_name(chosen.device), "dtype": chosen.dtype}))
    print(f"\nMemory is copied at {speed / 1e9:.0f} GB/s: reading the weights of one model takes")
    print(f"{1000 * weights / speed:.2f} ms, those of both {2000 * weights / speed:.2f} ms.")
    compare(bench, chosen.contexts[0], min(chosen.rows[-1], 8))
    show_waits(bench, chosen.contexts[0], min(chosen.rows[-1], 8))
    measure_all(bench, chosen.contexts, chosen.rows)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


if __name__ == "__main__":
    # CUPTI, once it has been let go, may fail to start again where there are CUDA graphs.
    os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
    main()
