"""How fast a pair decodes, against its aligned model's own ``generate``.

What is compared runs in turn within each round of one process, every other round in the opposite
order, and a ratio is taken within a round, so that a machine whose speed drifts slows both sides of
it alike. Nothing is timed before the device is done with what came before.
"""

from __future__ import annotations

import copy
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.params import SamplingParams

if TYPE_CHECKING:
    from ..models.pair import ModelPair

PROMPT = "Name a place that is worth a visit, and say in a sentence why."
Run = tuple[str, int]
"""How answers are decoded, and how many of them together."""


def measure(
    pair: ModelPair,
    *,
    gamma: float | None = None,
    tokens: int = 64,
    batches: Sequence[int] = (1, 4, 16),
    rounds: int = 5,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Measure the tokens per second of a pair and of its aligned model alone.

    Args:
        pair: The pair; its models are used as they are.
        gamma: Diversity at which the pair decodes; the usual one if left out.
        tokens: Tokens of every answer: its end is not heeded, so that all are equally long.
        batches: Numbers of answers to one prompt that are decoded together.
        rounds: How often everything is measured.
        progress: Called with what is measured next.

    Returns:
        The settings, what `machine` returns, and ``results``: a dict for each number of
        ``answers`` and each ``decoding`` (``aligned alone``, ``lockstep``, ``lookahead``), with the
        ``tokens_per_second`` of all answers together and, for the latter two, the ratio
        ``to_aligned``; each with ``median``, ``low`` and ``high`` over the rounds. Then ``words``:
        what was measured and found, in sentences.

    Raises:
        ParameterError: `gamma` is not a number from 0 to 1.
    """
    from ..decoder.decoder import Decoder

    own = SamplingParams(gamma=gamma, max_tokens=tokens, seed=1)
    unending = copy.copy(pair)
    unending.base_eos = unending.aligned_eos = frozenset()
    open_decoder = partial(Decoder, unending, max_rows=max(batches), prefix_bytes=0)
    with open_decoder(lookahead="off") as lockstep, open_decoder(lookahead="auto") as lookahead:
        runs: dict[Run, Callable[[], object]] = {}
        for count in batches:
            runs["aligned alone", count] = partial(generate_alone, pair, tokens, count)
            runs["lockstep", count] = partial(lockstep.generate, PROMPT, own, n=count)
            runs["lookahead", count] = partial(lookahead.generate, PROMPT, own, n=count)
        seconds = alternate(runs, rounds, progress)
    results = []
    for (way, count), times in seconds.items():
        row = {"answers": count, "decoding": way}
        row["tokens_per_second"] = spread([count * tokens / each for each in times])
        if way != "aligned alone":
            alone = seconds["aligned alone", count]
            row["to_aligned"] = spread([a / b for a, b in zip(alone, times, strict=True)])
        results.append(row)
    asked = {"gamma": own.effective_gamma, "tokens": tokens, "rounds": rounds}
    found = {"pair": pair.name, **asked, "results": results, **machine(pair.aligned)}
    return {**found, "words": in_words(found)}


def generate_alone(pair: ModelPair, tokens: int, count: int) -> None:
    """Let the aligned model answer the prompt by its own ``generate``."""
    import torch

    model: Any = pair.aligned
    ids = torch.tensor([pair.render_aligned(PROMPT, tokenize=True)], device=model.device)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        num_return_sequences=count,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
    ).tolist()  # waits for the device


def alternate(
    runs: Mapping[Run, Callable[[], object]],
    rounds: int,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[Run, list[float]]:
    """Return the seconds that everything took in each round, after one round to warm up."""
    import torch

    seconds: dict[Run, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        progress(f"round {number} of {rounds}")
        for name, run in list(runs.items())[:: -1 if number % 2 else 1]:
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            started = time.perf_counter()
            run()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the lowest and the highest of some values."""
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def in_words(found: Mapping[str, Any]) -> list[str]:
    """Return sentences that say what `measure` has measured and found."""
    rounds = found["rounds"]
    times = f"{rounds} rounds" if rounds > 1 else "one round"
    words = [
        f"Each answer is {found['tokens']} tokens to one short prompt, at gamma "
        f"{found['gamma']:g}, and its time includes reading the prompt. Aligned alone is the "
        f"aligned model's own generate. Everything ran once to warm up, then in turn in each of "
        f"{times}; figures are medians, with the lowest and the highest."
    ]
    for row in found["results"]:
        if row["decoding"] == "aligned alone":
            continue
        slowdown = {name: 1 / max(value, 1e-3) for name, value in row["to_aligned"].items()}
        many = f"{row['answers']} answers at once" if row["answers"] > 1 else "one answer at a time"
        words.append(
            f"With {many}, {row['decoding']} takes {slowdown['median']:.2f} times as long as "
            f"aligned alone ({slowdown['high']:.2f} to {slowdown['low']:.2f})."
        )
    return words


def machine(model: Any = None) -> dict[str, Any]:
    """Return what a figure depends on: device, type of numbers, threads and versions.

    Args:
        model: The model that is measured; without, one on the GPU if there is one.
    """
    import torch
    import transformers

    from .. import __version__

    device = platform.processor() or platform.machine()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    kind = kind if model is None else model.device.type
    if kind == "cuda":
        device = torch.cuda.get_device_name(None if model is None else model.device)
    elif kind != "cpu":
        device = f"{device}, {kind}"
    elif (cpus := Path("/proc/cpuinfo")).is_file() and "model name" in (text := cpus.read_text()):
        device = text.split("model name")[1].splitlines()[0].strip("\t :")
    return {
        "device": device,
        **({} if model is None else {"dtype": str(model.dtype).removeprefix("torch.")}),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "baco_integrations": __version__,
    }
