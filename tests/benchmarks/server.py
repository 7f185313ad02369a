"""What HTTP costs on top of the decoder, over the same tokens.

Run from the repository's root:

    python tests/benchmarks/server.py

A server in a process of its own is compared with a decoder in this one: the same requests, with the
same seeds, 1, 8 and 32 at once, as streams and as whole answers. The two follow each other, now one
first and now the other, so that other work on the machine slows both; texts are compared. *added*
is the difference over all tokens of a round. *CPU added* compares the processes' times on the CPU,
which other work does not change much: the server's for a round, without the caller's, and this
process's for the same round with the decoder. Medians over the rounds, with quartiles in brackets.

The tiny pair's forwards keep a core busy, so HTTP competes with them. The pair *idle* waits 10 ms
for each token of all rows, as for an accelerator, and leaves the core alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track

from baco_integrations import Decoder, ModelPair, ScriptedPair
from baco_integrations.engines.open import ENGINES
from baco_integrations.engines.scripted import ScriptedEngine
from baco_integrations.server import ServedPairs, ServerSettings, serve
from tests.scripted import WORDS

FORWARDS_S = 0.01
PROMPT = "Tell me a short story."
WARM_UP = 2
PAIRS = ("tiny", "idle")


class IdlePair(ScriptedPair):
    """A pair that is always torn between five words."""

    engine = "idle"

    def __init__(self) -> None:
        likely = dict.fromkeys(WORDS, 0.2)
        super().__init__(lambda _: likely, lambda _: likely, vocabulary=WORDS)


class IdleEngine(ScriptedEngine):
    """Waits before each token of all rows."""

    def iterate(self) -> None:
        time.sleep(FORWARDS_S)
        super().iterate()


ENGINES["idle"] = "tests.benchmarks.server:IdleEngine"


def make_pair(name: str) -> Any:
    return ModelPair.tiny() if name == "tiny" else IdlePair()


@contextmanager
def served(name: str) -> Iterator[tuple[int, psutil.Process]]:
    """Serve a pair in a process of its own; return its port and the process."""
    command = [sys.executable, "-m", "tests.benchmarks.server", "--serve", name]
    logs = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **logs) as process:  # type: ignore[call-overload]
        assert process.stdout
        try:
            yield int(process.stdout.readline()), psutil.Process(process.pid)
        finally:
            process.terminate()


# -- both sides ------------------------------------------------------------------------------------

Asked = dict[str, Any]
Ask = Callable[[Asked], Awaitable[str]]


def by_decoder(decoder: Decoder, stream: bool) -> Ask:
    """Return what asks a decoder."""

    async def ask(asked: Asked) -> str:
        if not stream:
            (completion,) = await decoder.agenerate(PROMPT, **asked)
            return completion.text
        async with decoder.astream(PROMPT, **asked) as steps:
            return "".join([step.text async for step in steps])

    return ask


def by_http(port: int, name: str, stream: bool) -> Ask:
    """Return what asks a server; it does as little as it can besides."""

    async def ask(asked: Asked) -> str:
        messages = [{"role": "user", "content": PROMPT}]
        body = json.dumps({**asked, "model": name, "messages": messages, "stream": stream})
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
        came = [await reader.readuntil(b"\r\n\r\n")]
        if stream:
            while not came[-1].endswith(b"data: [DONE]\n\n"):
                came.append(await reader.readuntil(b"\n\n"))
        else:
            length = re.search(rb"content-length: (\d+)", came[0])
            assert length
            came = [await reader.readexactly(int(length[1]))]
        writer.close()
        return streamed_text(came) if stream else whole_text(came[0])

    return ask


def whole_text(answer: bytes) -> str:
    return str(json.loads(answer)["choices"][0]["message"]["content"])


def streamed_text(came: list[bytes]) -> str:
    events = [each.partition(b"data: ")[2] for each in came[1:-1]]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events if event[:1] == b"{"]
    return "".join(delta.get("content") or "" for delta in deltas)


# -- measuring -------------------------------------------------------------------------------------


class Round(NamedTuple):
    """Seconds of a round, seconds on the CPU of the process that decodes, and the texts."""

    seconds: float
    cpu: float
    texts: list[str]


def on_cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def timed(ask: Ask, asked: list[Asked], process: psutil.Process) -> Round:
    cpu, started = on_cpu(process), time.perf_counter()
    texts = await asyncio.gather(*map(ask, asked))
    return Round(time.perf_counter() - started, on_cpu(process) - cpu, list(texts))


async def measure(
    decoder: Decoder, bare: Ask, wrapped: tuple[Ask, psutil.Process], many: int, chosen: Any
) -> np.ndarray:
    """Return a line per round: tokens, seconds of both sides, and both on the CPU."""
    lines = []
    for number in range(WARM_UP + chosen.rounds):
        asked = [{"seed": number * 100 + each, "max_tokens": chosen.tokens} for each in range(many)]
        sides = ((bare, psutil.Process()), wrapped)
        before, runs = decoder.metrics.tokens, {}
        for side in sides if number % 2 else sides[::-1]:
            runs[side[0]] = await timed(side[0], asked, side[1])
        local, http = runs[bare], runs[wrapped[0]]
        if local.texts != http.texts:
            raise ValueError(f"not the same texts: {local.texts!r} and {http.texts!r}")
        tokens = decoder.metrics.tokens - before
        lines.append((tokens, local.seconds, http.seconds, local.cpu, http.cpu))
    return np.array(lines[WARM_UP:])


def quartiles(values: np.ndarray, form: str) -> str:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def compare(chosen: Any) -> None:
    """Measure all cases, and print a line for each."""
    cases = [(stream, many) for stream in (True, False) for many in chosen.many]
    for name in chosen.pairs:
        with served(name) as (port, process), Decoder(make_pair(name)) as decoder:
            for stream, many in track(cases, name, console=Console(stderr=True)):
                wrapped = by_http(port, name, stream), process
                bare = by_decoder(decoder, stream)
                lines = asyncio.run(measure(decoder, bare, wrapped, many, chosen))
                tokens, local, http, local_cpu, http_cpu = lines.T
                cells = (
                    *(name, "streams" if stream else "whole", str(many), f"{tokens.mean():.0f}"),
                    *(quartiles(1e3 * local, ".0f"), quartiles(http / local, ".2f")),
                    quartiles(1e6 * (http - local) / tokens, ".0f"),
                    f"{1e6 * (http_cpu - local_cpu).sum() / tokens.sum():.0f}",
                )
                print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="rounds for each line")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of an answer")
    parser.add_argument("--many", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--pairs", nargs="+", default=PAIRS, choices=PAIRS)
    parser.add_argument("--serve", choices=PAIRS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        pairs = ServedPairs({chosen.serve: make_pair(chosen.serve)})
        serve(pairs, ServerSettings(port=0), started=lambda port: print(port, flush=True))
        return
    print("| pair | answers | at once | tokens | decoder, ms | HTTP, times as long |", end="")
    print(" added, us per token | CPU added, us per token |\n" + "|---" * 8 + "|")
    compare(chosen)


if __name__ == "__main__":
    main()
