"""Tokens per second of one pair in each engine: in this process, over two servers, inside vLLM.

Run from the repository's root:

    python tests/benchmarks/engines.py

Each side of the embedded pair is served by a process of its own, unless the URLs of two servers
are given (vLLM's, say, with ``--base-url`` and ``--aligned-url``). The engines take turns in every
round, and each answers the same requests, 1, 8 and 32 at once. *Lockstep* asks both servers for
each token; *ahead* lets each side go on by itself for some tokens. The fused model is measured
where vLLM is installed. Medians of the rounds; the ratio is to the local engine, in the same round.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.models.options import SIDES, LoadOptions
from baco_integrations.remote import RemotePair
from baco_integrations.tiny import WEIGHTS
from baco_integrations.tiny.requests import requests

SERVE = "from baco_integrations.cli import app; app()"


@contextmanager
def server(threads: int) -> Iterator[str]:
    """Serve the embedded pair in a process; give the URL of its API."""
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0", "--max-rows", "32"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"(http://\S+/v1) \(API\)", line):
                # It logs every request, and would wait for a reader.
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield found[1]
                break
    finally:
        process.kill()
        process.wait()


def ask(decoder: Decoder, count: int, tokens: int, temperature: float) -> tuple[float, int]:
    """Answer so many requests at once; return seconds and tokens."""
    asked = requests("eval")
    messages = [asked[number % len(asked)].messages for number in range(count)]
    params = [
        SamplingParams(gamma=0.6, temperature=temperature, top_k=8, seed=n, max_tokens=tokens)
        for n in range(count)
    ]
    started = time.perf_counter()
    answers = decoder.generate_batch(messages, params)
    return time.perf_counter() - started, sum(len(each.steps) for (each,) in answers)


def engines(stack: ExitStack, chosen: argparse.Namespace) -> Mapping[str, Decoder]:
    """Open every engine that can be had."""
    urls = [chosen.base_url, chosen.aligned_url]
    urls = [url or stack.enter_context(server(chosen.threads)) for url in urls]
    remote = RemotePair.connect(
        *({"url": u, "files": str(WEIGHTS / s)} for u, s in zip(urls, SIDES, strict=True))
    )
    found = {
        "local": Decoder(ModelPair.tiny()),
        "remote pair, ahead": Decoder(remote),
        "remote pair, lockstep": Decoder(remote, lookahead="off"),
    }
    if find_spec("vllm") and "engine" in LoadOptions.model_fields:
        found["vLLM, fused"] = Decoder(ModelPair.tiny(engine="vllm"))
    for decoder in found.values():
        stack.callback(decoder.close)
        ask(decoder, 2, 4, 0.0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url")
    parser.add_argument("--aligned-url")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.7)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")
    speeds: dict[tuple[str, int], list[float]] = {}
    calls: dict[str, list[int]] = {}
    with ExitStack() as stack:
        opened: Mapping[str, Any] = engines(stack, chosen)
        for _ in range(chosen.rounds):
            for count in (1, 8, 32):
                for name, decoder in opened.items():
                    before = decoder.metrics.fed
                    took, tokens = ask(decoder, count, chosen.tokens, chosen.temperature)
                    speeds.setdefault((name, count), []).append(tokens / took)
                    seen = calls.setdefault(name, [0, 0])
                    seen[0] += decoder.metrics.fed - before
                    seen[1] += tokens
        print("| engine | 1 at once | 8 | 32 | rows in forwards, or calls, a token |")
        print("|---|---|---|---|---|")
        for name in opened:
            cells = []
            for count in (1, 8, 32):
                own, local = speeds[name, count], speeds["local", count]
                ratio = statistics.median(a / b for a, b in zip(own, local, strict=True))
                cells.append(f"{statistics.median(own):.0f} (x {ratio:.2f})")
            asked, tokens = calls[name]
            counted = f"{asked / tokens:.2f}" if asked else "not counted"
            print(f"| {name} | {' | '.join(cells)} | {counted} |")
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    print(
        f"\nTokens per second, medians of {chosen.rounds} rounds; gamma 0.6, temperature "
        f"{chosen.temperature:g}, top_k 8; {os.cpu_count()} cores, {chosen.threads} thread a "
        f"process, load {os.getloadavg()[0]:.1f}; {versions}"
    )


if __name__ == "__main__":
    main()
