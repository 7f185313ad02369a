"""A decoder under fire: mixed requests, random cancels and faults, for as long as wanted.

Run from the repository's root:

    python tests/benchmarks/soak.py --minutes 10

Callers in threads and on an event loop ask a pair in float64, cancel at random, set deadlines and
let streams go; forwards fail at random, with memory that runs out and with plain errors. Every
text that comes to its end is compared with the text of a quiet decoder. After each tenth no slot is
taken and nothing waits. The memory of the process grows while caches, compiled grammars and the
allocator's pools fill up; what is looked for is growth in the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import gc
import random
import sys
import threading
import time
from collections import Counter
from typing import Any

import psutil
import torch

from baco_integrations import BacoError, Completion, Decoder, ModelPair, SamplingParams
from baco_integrations.core.errors import DeadlineError, OutOfMemoryError, WorkerError
from baco_integrations.tiny.requests import requests

SETTINGS: tuple[dict[str, Any], ...] = (
    {"gamma": 0.6},
    {"router": "rand", "gamma": 0.4, "temperature": 1.0},
    {"router": "h-fc", "gamma": 0.9},
    {"router": "base", "max_tokens": 30},
    {"gamma": 0.8, "json_schema": {"type": "object", "properties": {"city": {"type": "string"}}}},
    {"regex": "[A-Z][a-z]{2,9}[.]"},
    {"gamma": 0.2, "n": 3, "stop": [","]},
)


class Fire:
    """Raises in place of some forwards of a pair's models."""

    def __init__(self, pair: ModelPair, chance: float) -> None:
        self.chance, self.raised = chance, Counter[str]()
        self.random = random.Random(1)
        for model in (pair.base, pair.aligned):
            model.register_forward_pre_hook(self.fail_sometimes)

    def fail_sometimes(self, *_: Any) -> None:
        if self.random.random() < self.chance:
            error: Exception = torch.OutOfMemoryError("out of memory, on purpose")
            if self.random.random() < 0.1:
                error = ValueError("a fault on purpose")
            self.raised[type(error).__name__] += 1
            raise error


def copied(pair: ModelPair) -> ModelPair:
    """The same pair with models of its own."""
    models = copy.deepcopy(pair.base), copy.deepcopy(pair.aligned)
    return ModelPair(*models, pair.base_tokenizer, pair.aligned_tokenizer)


class Soak:
    """The callers, what they asked and what came of it."""

    def __init__(self, pair: ModelPair, chance: float) -> None:
        self.decoder = Decoder(pair, max_rows=12, prefix_bytes=2**22)
        self.quiet = Decoder(copied(pair), max_rows=1, prefix_bytes=0, lookahead="off")
        self.fire = Fire(pair, chance)
        self.seen, self.wrong = Counter[str](), list[str]()
        self.asked = requests("eval")
        self.known: dict[Any, list[str]] = {}
        self.lock = threading.Lock()

    def request(self, chooser: random.Random) -> tuple[Any, SamplingParams]:
        settings = dict(chooser.choice(SETTINGS))
        settings.setdefault("max_tokens", chooser.choice((5, 20, 60)))
        place = chooser.randrange(12)
        return self.asked[place].messages, SamplingParams(seed=place, **settings)

    def compare(self, messages: Any, params: SamplingParams, completions: list[Completion]) -> None:
        key = repr((messages, params))
        with self.lock:
            if key not in self.known:
                found = self.quiet.generate(messages, params)
                self.known[key] = [completion.text for completion in found]
            self.seen["finished"] += 1
            if [completion.text for completion in completions] != self.known[key]:
                self.wrong.append(key)

    def failed(self, error: BacoError) -> None:
        expected = isinstance(error, DeadlineError | OutOfMemoryError | WorkerError)
        self.seen[type(error).__name__] += 1
        if not expected:
            self.wrong.append(repr(error))

    def caller(self, seed: int, until: float) -> None:
        chooser = random.Random(seed)
        while time.monotonic() < until:
            messages, params = self.request(chooser)
            fate = chooser.random()
            try:
                if fate < 0.2:
                    with self.decoder.stream(messages, params) as stream:
                        for count, _ in enumerate(stream):
                            if count == chooser.randrange(8):
                                break
                    self.seen["closed"] += 1
                elif fate < 0.25:
                    self.decoder.stream(messages, params)  # nobody holds it
                    self.seen["let go"] += 1
                elif fate < 0.3:
                    self.decoder.generate(messages, params, timeout=0.05)
                    self.seen["in time"] += 1
                else:
                    self.compare(messages, params, self.decoder.generate(messages, params))
            except BacoError as error:
                self.failed(error)

    async def async_caller(self, seed: int, until: float) -> None:
        chooser = random.Random(seed)
        while time.monotonic() < until:
            messages, params = self.request(chooser)
            task = asyncio.ensure_future(self.decoder.agenerate(messages, params))
            try:
                if chooser.random() < 0.3:
                    await asyncio.sleep(chooser.random() / 10)
                    task.cancel()
                completions = await task
                await asyncio.to_thread(self.compare, messages, params, completions)
            except asyncio.CancelledError:
                self.seen["task cancelled"] += 1
            except BacoError as error:
                self.failed(error)

    async def async_callers(self, until: float) -> None:
        await asyncio.gather(*(self.async_caller(100 + seed, until) for seed in range(6)))

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self.caller, args=(seed, until), daemon=True)
            for seed in range(8)
        ]
        threads.append(
            threading.Thread(target=asyncio.run, args=(self.async_callers(until),), daemon=True)
        )
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 60)
            if thread.is_alive():
                self.wrong.append("a caller hangs")

    def idle(self) -> bool:
        deadline = time.monotonic() + 10
        while (self.decoder.running or self.decoder.waiting) and time.monotonic() < deadline:
            time.sleep(0.01)
        return not (self.decoder.running or self.decoder.waiting)


def resident() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--chance", type=float, default=0.002, help="of a fault, for each forward")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    soak = Soak(ModelPair.tiny(dtype="float64", progress=False), chosen.chance)
    readings = []
    for _ in range(10):
        soak.run(chosen.minutes * 6)
        if not soak.idle():
            soak.wrong.append("slots are not free")
        readings.append(resident())
        metrics = soak.decoder.metrics
        print(
            f"{metrics.tokens} tokens, {metrics.admitted} rows, {metrics.restarts} restarts, "
            f"{readings[-1] / 2**20:.1f} MiB; {dict(soak.seen)}; faults {dict(soak.fire.raised)}; "
            f"wrong {len(soak.wrong)}",
            flush=True,
        )
    warm, late = (readings[-1] / readings[place] - 1 for place in (0, 4))
    print(f"memory: {warm:+.1%} since the first tenth, {late:+.1%} in the second half; ", end="")
    print(f"{len(soak.wrong)} things wrong")
    for each in soak.wrong[:10]:
        print(" ", each)
    sys.exit(bool(soak.wrong))


if __name__ == "__main__":
    main()
