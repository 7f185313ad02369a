"""Many callers at once, callers who go, and a server that is told to stop."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any

import httpx
import pytest

from baco_integrations import Decoder, SamplingParams
from baco_integrations.server.streams import EventStream, merged
from tests.commands import process
from tests.scripted import endless, eventually
from tests.server.serving import Serving, serving

PROMPTS = ("Name a place to visit.", "Suggest a hobby.", "Suggest a gift for a friend.")
LONG = {"model": "endless", "messages": [{"role": "user", "content": "Go."}], "max_tokens": 4000}
AS_LONG = {**LONG, "model": "tiny", "max_tokens": 60, "regex": "[a-z ]{5000}"}


@asynccontextmanager
async def calling(served: Serving) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=served.api, limits=limits, timeout=120) as client:
        yield client


async def streamed(client: httpx.AsyncClient, **body: Any) -> tuple[str, str | None]:
    """Return a stream's text and why it ended; it must end in good order."""
    text, ended, last = "", None, ""
    async with client.stream("POST", "/chat/completions", json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for last in answer.aiter_lines():
            if last.startswith("data: {"):
                (choice,) = json.loads(last[6:])["choices"]
                text += choice["delta"].get("content") or ""
                ended = choice["finish_reason"] or ended
            elif last:
                break
    assert last == "data: [DONE]"
    return text, ended


@pytest.mark.slow
async def test_200_streams_at_once(served: Serving, local: Decoder) -> None:
    messages = [[{"role": "user", "content": PROMPTS[seed % 3]}] for seed in range(200)]
    params = [SamplingParams(seed=seed, max_tokens=6 + seed % 7) for seed in range(200)]
    expected = [
        (each.text, each.finish_reason)
        for (each,) in await asyncio.to_thread(local.generate_batch, messages, params)
    ]
    async with calling(served) as client:
        bodies = [
            {"model": "tiny", "messages": said, "seed": each.seed, "max_tokens": each.max_tokens}
            for said, each in zip(messages, params, strict=True)
        ]
        assert await asyncio.gather(*(streamed(client, **body) for body in bodies)) == expected
    assert at_work(served, 0, 0)


@contextmanager
def endlessly(**settings: Any) -> Iterator[Serving]:
    """Serve a pair that decodes until it is stopped, one sample at a time."""
    engine = {"max_rows": 1, **settings.pop("engine", {})}
    with serving({"endless": endless(0.002)}, engine=engine, **settings) as served:
        with httpx.Client(base_url=served.api) as client:  # the first request opens the decoder
            client.post("/chat/completions", json={**LONG, "max_tokens": 1}).raise_for_status()
        assert at_work(served, 0, 0)  # its row must not pass for the next one
        yield served


def raw(served: Serving, body: dict[str, Any], path: str = "chat/completions") -> socket.socket:
    """Send a request over a connection of its own, and return it."""
    host, port = served.url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n"
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + data)
    return connection


def at_work(served: Serving, running: int, waiting: int) -> bool:
    decoder = served.decoder
    return eventually(lambda: (decoder.running, decoder.waiting) == (running, waiting))


def test_beyond_the_queue_nobody_is_taken_and_nobody_is_lost() -> None:
    with endlessly(engine={"max_rows": 2, "max_waiting": 3}) as served:
        streaming = [raw(served, {**LONG, "stream": True}) for _ in range(2)]
        assert at_work(served, 2, 0)
        waiting = [raw(served, {**LONG, "stream": True, "max_tokens": 3}) for _ in range(3)]
        assert at_work(served, 2, 3)
        for stream in (False, True):
            for _ in range(5):
                answer = httpx.post(
                    f"{served.api}/chat/completions", json={**LONG, "stream": stream}
                )
                assert answer.status_code == 429
                assert answer.json()["error"]["code"] == "queue_full"
                assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert at_work(served, 2, 3)
        for connection in streaming:
            connection.close()
        for connection in waiting:
            with connection, connection.makefile("rb") as file:
                assert (
                    next(line for line in file if line.startswith(b"data: [")) == b"data: [DONE]\n"
                )
        assert at_work(served, 0, 0)


@pytest.mark.parametrize("how", ["close", "half-close"])
@pytest.mark.parametrize("stream", [False, True])
def test_callers_who_go_free_their_rows(stream: bool, how: str) -> None:
    with endlessly() as served:
        running = raw(served, {**LONG, "stream": stream})
        assert at_work(served, 1, 0)
        waiting = raw(served, {**LONG, "stream": stream})  # for its first token
        assert at_work(served, 1, 1)
        for connection, left in ((waiting, 1), (running, 0)):
            if how == "close":
                connection.close()
            else:
                connection.shutdown(socket.SHUT_WR)
            assert at_work(served, left, 0)
            connection.close()
        answer = httpx.post(f"{served.api}/chat/completions", json={**LONG, "max_tokens": 2})
        assert answer.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_goes_frees_the_rows_of_all_prompts(stream: bool) -> None:
    body = {"model": "endless", "prompt": ["a", "b"], "n": 2, "max_tokens": 4000, "stream": stream}
    with endlessly(engine={"max_rows": 3}) as served:
        with raw(served, body, "completions"):
            assert at_work(served, 3, 1)
        assert at_work(served, 0, 0)


async def test_a_stream_that_cannot_begin_closes_its_source() -> None:
    closed = []

    async def source() -> AsyncGenerator[Any, None]:
        try:
            yield None
        finally:
            closed.append(True)

    async def lines() -> AsyncGenerator[bytes, None]:
        yield b""

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        raise OSError

    events = source()  # held here, so that no garbage collector closes it
    await anext(events)
    with suppress(Exception):
        await EventStream(lines(), events)({"type": "http"}, never, send)
    assert closed


async def test_what_is_not_read_stays_with_its_stream() -> None:
    with Decoder(endless()) as decoder:
        streams = [decoder.astream(prompt, max_tokens=5000) for prompt in ("a", "b")]
        async with aclosing(merged(streams)) as events:
            await anext(events)
            boxes = [stream.mailbox for stream in streams]
            while any(box.decoded[0] < 500 for box in boxes):
                await asyncio.sleep(0.001)
            assert all(box.taken < 100 for box in boxes)
        assert await asyncio.to_thread(eventually, lambda: not decoder.running)


def test_callers_who_stall_are_cut_off() -> None:
    """They send no whole head, or read nothing of what they have asked for."""
    told = {"logprobs": True, "top_logprobs": 5, "stream": True}
    with endlessly(body_timeout=0.3) as served:
        host, port = served.url.removeprefix("http://").split(":")
        connections = served.server.server_state.connections
        for begun in (b"", b"GET /health HTTP/1.1\r\nHost: x"):
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                connection.sendall(begun)
                with suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
        listener = served.server.servers[0].sockets[0]
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with raw(served, {**LONG, **told}) as unread:
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            assert at_work(served, 1, 0)
            assert at_work(served, 0, 0) and not connections
            assert served.decoder.metrics.tokens < 3000
        body = {**LONG, **told, "max_tokens": 150}  # one that is read may take longer
        with raw(served, body) as stream, stream.makefile("rb") as file:
            assert [line for line in file if line[:6] == b"data: "][-1] == b"data: [DONE]\n"


def test_time_runs_out() -> None:
    with endlessly(request_timeout=0.3) as served:
        url, body = f"{served.api}/chat/completions", LONG
        answer = httpx.post(url, json=body)
        assert answer.status_code == 504 and answer.json()["error"]["code"] == "timeout"
        lines = httpx.post(url, json={**body, "stream": True}).text.split("\n\n")
        assert json.loads(lines[-3][6:])["error"]["code"] == "timeout"
        assert lines[-2] == "data: [DONE]"
        with raw(served, {**body, "timeout": 0.2}):  # before the first token
            assert at_work(served, 1, 0)
            answer = httpx.post(url, json={**body, "stream": True, "timeout": 0.01})
            assert answer.status_code == 504
        assert at_work(served, 0, 0)


def test_while_it_drains_nothing_new_is_taken() -> None:
    with endlessly() as served, raw(served, {**LONG, "stream": True, "max_tokens": 500}) as stream:
        assert at_work(served, 1, 0)
        served.server.app.state.draining = True
        answer = httpx.post(f"{served.api}/chat/completions", json=LONG)
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert answer.json()["error"]["code"] == "draining"
        health = httpx.get(f"{served.url}/health")
        assert (health.status_code, health.json()["status"]) == (503, "draining")
        served.server.app.state.draining = False
        served.server.drain()
        with stream.makefile("rb") as file:
            assert [line for line in file if line.startswith(b"data")][-1] == b"data: [DONE]\n"


# -- signals ---------------------------------------------------------------------------------------


SERVE_ENDLESS = """
import sys
from baco_integrations.server import ServedPairs, ServerSettings, serve
from tests.scripted import endless

settings = ServerSettings(port=0, drain_timeout=float(sys.argv[1]))
pairs = ServedPairs({"endless": endless(0.002)})
told = "http://127.0.0.1:{}".format
serve(pairs, settings, started=lambda port: print(told(port), file=sys.stderr))
"""


@contextmanager
def listening(running: subprocess.Popen[str]) -> Iterator[str]:
    """Wait until a process listens, and return its URL; the process is killed in the end."""
    assert running.stderr
    try:
        said = next(line for line in running.stderr if "http://" in line)
        yield re.findall(r"http://[\d.]+:\d+", said)[0]
    finally:
        running.kill()
        running.communicate()


def script(drain_timeout: float) -> subprocess.Popen[str]:
    """Run a program that serves the endless pair."""
    command = [sys.executable, "-c", SERVE_ENDLESS, str(drain_timeout)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def lines_of(answer: httpx.Response) -> Iterator[Any]:
    """Return the events of a stream as they come."""
    for line in answer.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])
        elif line:
            yield line


def streaming(url: str, body: dict[str, Any]) -> Any:
    return httpx.stream(
        "POST", f"{url}/v1/chat/completions", json={**body, "stream": True}, timeout=60
    )


@pytest.mark.slow
def test_sigterm_lets_streams_end(local: Decoder) -> None:
    body = {**AS_LONG, "n": 4, "seed": 1}
    params = {name: value for name, value in body.items() if name not in ("model", "messages")}
    expected = [each.text for each in local.generate("Go.", **params)]  # type: ignore[arg-type]
    running = process("serve", "--port", "0")
    with listening(running) as url, streaming(url, body) as answer:
        events = lines_of(answer)
        came = [next(events)]
        running.send_signal(signal.SIGTERM)
        came += events
        texts = [""] * 4
        for event in came[:-1]:
            for choice in event["choices"]:
                texts[choice["index"]] += choice["delta"].get("content") or ""
        assert came[-1] == "data: [DONE]" and texts == expected
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        assert running.wait(60) == 0


@pytest.mark.slow
def test_sigterm_ends_what_takes_too_long() -> None:
    running = script(drain_timeout=0.2)
    with listening(running) as url, streaming(url, LONG) as answer:
        events = lines_of(answer)
        next(events)
        running.send_signal(signal.SIGTERM)
        *_, last, done = events
        assert last["error"]["code"] == "closed" and done == "data: [DONE]"
        assert running.wait(60) == 0


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once() -> None:
    running = script(drain_timeout=3600)
    with listening(running) as url, streaming(url, {**LONG, "n": 9}) as answer:
        lines = answer.iter_lines()  # kept: the stream would end with it
        next(lines)
        running.send_signal(signal.SIGINT)
        assert running.stderr and any("draining" in line for line in running.stderr)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) is not None
