"""Hostile requests, the same ones for the same seed, while a neighbour asks for what is allowed.

Run from the repository's root:

    python -m tests.server.hostile --requests 10000

It prints what was sent and how it was answered, and how the server and the neighbour have fared.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
import psutil

from baco_integrations import Decoder, ModelPair
from baco_integrations.server.logs import JsonLines
from tests.scripted import eventually
from tests.server.attacks import KEY, SECRET, Attack, attack
from tests.server.serving import Serving, serving

AT_ONCE = 24
PATIENCE_S = 30.0
LIMITS = {"body_timeout": 0.5, "request_timeout": 15.0, "max_body_bytes": 2**20}
NEIGHBOURS = ("Name a place to visit.", "Suggest a hobby.", "Suggest a gift for a friend.")


@dataclass
class Report:
    """How it went.

    Attributes:
        statuses: Per kind of attack, how often each status came; "" where none was waited for.
        failures: What must not be.
        neighbour: Seconds that each of the neighbour's requests took.
        seconds: How long all of it took.
        before: Open files, threads and MiB of memory before.
        after: The same, afterwards.
        log: What the server logged.
    """

    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    neighbour: list[float] = field(default_factory=list)
    seconds: float = 0.0
    before: tuple[int, int, float] = (0, 0, 0.0)
    after: tuple[int, int, float] = (0, 0, 0.0)
    log: str = ""

    def __str__(self) -> str:
        lines = [
            f"{kind:<12} {sum(counts.values()):>6}  "
            + ", ".join(f"{status or '-'}: {count}" for status, count in sorted(counts.items()))
            for kind, counts in sorted(self.statuses.items())
        ]
        slow = sorted(self.neighbour)
        lines += [
            f"{self.seconds:.0f} s; files, threads, MiB: {self.before} before, {self.after} after",
            f"neighbour: {len(slow)} answers, all as they should be, median "
            f"{slow[len(slow) // 2]:.2f} s, longest {slow[-1]:.2f} s",
            f"{len(self.failures)} failures",
            *self.failures[:20],
        ]
        return "\n".join(lines)


async def read_answer(reader: asyncio.StreamReader, bare: bool) -> str:
    """Read one response, which has no body if it is `bare`, and return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = head.split(b" ", 2)[1].decode()
    lowered = head.lower()
    if b"\r\ntransfer-encoding: chunked" in lowered:
        while await reader.readuntil(b"\r\n") != b"0\r\n":
            pass
    elif bare:
        pass
    elif length := re.search(rb"\r\ncontent-length: (\d+)", lowered):
        await reader.readexactly(int(length[1]))
    elif status != "100":
        await reader.read()
    return status if status != "100" else await read_answer(reader, bare)


@asynccontextmanager
async def connected(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection; it is cut when the block ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def strike(port: int, one: Attack) -> list[str]:
    """Carry out an attack; return the statuses of the answers that it waited for."""
    statuses = list[str]()
    async with connected(port) as (reader, writer):
        try:
            for segment in one.segments:
                if isinstance(segment, float):
                    await asyncio.sleep(segment)
                else:
                    writer.write(segment)
                    await writer.drain()
            if one.then == "half-close":
                writer.write_eof()
                await reader.read()
            elif one.then == "first":
                await reader.readuntil(b"data: ")
            elif one.then == "read":
                bare = one.segments[0].startswith(b"HEAD")  # type: ignore[union-attr]
                for _ in range(one.answers):
                    statuses.append(await read_answer(reader, bare))
        except (asyncio.IncompleteReadError, OSError):
            statuses.append("cut")  # the server may close while it is still being written to
    return statuses or [""]


async def strike_all(port: int, seed: int, count: int, report: Report) -> None:
    """Carry out so many attacks, some at once."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            one = attack(Random(f"{seed} {number}"))
            try:
                statuses = await asyncio.wait_for(strike(port, one), PATIENCE_S)
            except asyncio.TimeoutError:
                statuses = ["stuck"]
            report.statuses.setdefault(one.kind, Counter()).update(statuses)
            allowed = {"503", "504"} if one.long else set[str]()
            for status in statuses:
                if status == "stuck" or (status[:1] == "5" and status not in allowed):
                    shown = b" ".join(s for s in one.segments if isinstance(s, bytes))
                    report.failures.append(f"{status}: {number} {one.kind} {shown[:600]!r}")

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


def neighbour(
    served: Serving, ready: threading.Event, until: threading.Event, report: Report
) -> None:
    """Ask for what is allowed, and compare with a decoder that is left alone."""
    with Decoder(ModelPair.tiny()) as decoder, httpx.Client(timeout=60) as client:
        expected = {
            (text, seed): decoder.generate(text, seed=seed, max_tokens=24)[0].text
            for text in NEIGHBOURS
            for seed in range(2)
        }
        ready.set()
        while not until.is_set():
            for (text, seed), told in expected.items():
                messages = [{"role": "user", "content": text}]
                body = {"model": "tiny", "messages": messages, "seed": seed, "max_tokens": 24}
                begun = time.perf_counter()
                answer = client.post(
                    f"{served.api}/chat/completions",
                    json=body,
                    headers={"authorization": f"Bearer {KEY}"},
                )
                report.neighbour.append(time.perf_counter() - begun)
                said = answer.json()
                if answer.status_code != 200 or said["choices"][0]["message"]["content"] != told:
                    report.failures.append(f"neighbour: {answer.status_code} {answer.text[:300]}")


def used() -> tuple[int, int, float]:
    """Return this process's open files, threads and MiB of memory.

    Pipes do not count: they lead to the processes that try grammars, which stay.
    """
    me, files = psutil.Process(), 0
    for each in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # it is closed already
            files += not os.readlink(f"/proc/self/fd/{each}").startswith("pipe:")
    return files, me.num_threads(), round(me.memory_info().rss / 2**20, 1)


@contextmanager
def logged(report: Report) -> Iterator[None]:
    """Collect what the server and what runs it log, as ``baco serve`` writes it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    loggers = [logging.getLogger(name) for name in ("baco_integrations", "uvicorn")]
    before = [(each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.DEBUG)
        each.propagate = False
    try:
        yield
    finally:
        for each, (level, propagate) in zip(loggers, before, strict=True):
            each.removeHandler(handler)
            each.setLevel(level)
            each.propagate = propagate
        report.log = stream.getvalue()


def still(served: Serving) -> bool:
    """Tell whether nothing is being done any more."""
    decoder, state = served.decoder, served.server.server_state
    return not (decoder.running or decoder.waiting or state.tasks or state.connections)


def hostile(count: int, seed: int = 0) -> Report:
    """Send so many hostile requests to a server, and report."""
    report, ready, done = Report(), threading.Event(), threading.Event()
    with serving(api_keys=[KEY], **LIMITS) as served:
        asyncio.run(strike_all(int(served.url.rsplit(":", 1)[1]), seed, 50, Report()))  # warm
        if not eventually(lambda: still(served)):
            report.failures.append("not still after the first 50")
        beside = threading.Thread(target=neighbour, args=(served, ready, done, report))
        with logged(report):
            beside.start()
            ready.wait(60)
            report.before, begun = used(), time.perf_counter()
            try:
                asyncio.run(strike_all(int(served.url.rsplit(":", 1)[1]), seed + 1, count, report))
            finally:
                done.set()
                beside.join()
            report.seconds = time.perf_counter() - begun
            if not eventually(lambda: still(served)):
                decoder, state = served.decoder, served.server.server_state
                report.failures.append(
                    f"not still: {decoder.running} running, {decoder.waiting} waiting, "
                    f"{len(state.tasks)} tasks, {len(state.connections)} connections"
                )
        # Threads that render end once there has been nothing to render for a while.
        eventually(lambda: used()[1] <= report.before[1] and used()[0] <= report.before[0])
        report.after = used()
        health = httpx.get(f"{served.url}/health")
        if health.status_code != 200:
            report.failures.append(f"health: {health.status_code}")
    check(report)
    return report


def check(report: Report) -> None:
    """Add to the failures what was left behind or told in the log."""
    files, threads, memory = (b - a for a, b in zip(report.before, report.after, strict=True))
    if files > 3 or threads > 3 or memory > 300:
        report.failures.append(f"left: {files} files, {threads} threads, {memory:.0f} MiB")
    for secret in (SECRET, KEY):
        if secret in report.log:
            where = report.log.index(secret)
            report.failures.append(f"logged: {report.log[max(where - 300, 0) : where + 50]}")
    for line in report.log.splitlines():
        told = json.loads(line)
        if "trace" in told:
            report.failures.append(f"trace: {told['trace'][-600:]}")


def main(run: Callable[..., Report] = hostile) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen: Any = parser.parse_args()
    print(run(chosen.requests, chosen.seed))


if __name__ == "__main__":
    main()
