"""Servers that refuse, break, or are none of ours: each is told apart, and no key is told."""

from __future__ import annotations

import json
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from baco_integrations.core.errors import (
    BacoError,
    DeadlineError,
    DecoderClosedError,
    OutOfMemoryError,
    ParameterError,
    QueueFullError,
    ServerError,
)
from baco_integrations.remote import client, decoder
from baco_integrations.remote.client import seconds
from baco_integrations.remote.decoder import RemoteDecoder
from tests.remote.other_servers import SSE, OtherServer, answer, other_server
from tests.scripted import endless
from tests.server.serving import Serving, serving

KEY = "sk-very-secret"
SERVED = json.dumps({"data": [{"id": "p", "baco": {"context": [8, 8]}}]})
OTHERS = json.dumps({"object": "list", "data": [{"id": "gpt", "object": "model"}]})
CHAT = json.dumps(
    {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
)
WITHOUT = f"data: {CHAT.replace('message', 'delta')}\n\ndata: [DONE]\n\n"


def untold(error: BaseException) -> str:
    """The error's text, once it is sure that neither it nor its traceback tells the key."""
    shown = "".join(traceback.format_exception(error))
    assert KEY not in f"{shown}{vars(error)}{pickle.dumps(error)!r}"
    return str(error)


def asked(url: str, **options: Any) -> RemoteDecoder:
    return RemoteDecoder(url, api_key=KEY, **{"pair": "p", "max_retries": 0, **options})


WAYS: dict[str, Callable[[RemoteDecoder], object]] = {
    "whole": lambda remote: remote.generate("Hi"),
    "stream": lambda remote: list(remote.stream("Hi")),
}
every_way = pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)


@every_way
def test_nobody_listens(ask: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with pytest.raises(
        ServerError, match=f"no server can be reached at http://127.0.0.1:{port}/v1"
    ) as e:
        ask(asked(f"http://127.0.0.1:{port}"))
    assert "Is `baco serve` running" in untold(e.value)
    assert isinstance(e.value, ConnectionError)


NOT_OURS = {
    "a page": answer("200 OK", f"<html>Welcome, {KEY}", kind="text/html"),
    "a list": answer("200 OK", "[1, 2]"),
    "text": answer("200 OK", '"choices"'),
    "half a character": answer("200 OK", '{"choices": "\\ud800"}'),
    "half": answer("200 OK", CHAT[:20]),
    "another kind of server": answer("200 OK", CHAT),
    "a stream without BACo": SSE + WITHOUT,
    "a stream of garbage": SSE + "data: {\n\n",
    "a stream of lists": SSE + "data: []\n\n",
    "a stream's own error": SSE + f'data: {{"error": {{"msg": "{KEY}"}}}}\n\n',
    "a page that is not there": answer("404 Not Found", f"<h1>{KEY}</h1>", kind="text/html"),
    "elsewhere": answer("302 Found", "", "Location: http://127.0.0.1:1/v1"),
    "broken": answer("500 Oops", '{"error": "oops"}'),
    "a teapot": answer("418 Teapot", '{"detail": [1]}'),
    "proxied": answer("502 Bad Gateway", ""),
}


@every_way
@pytest.mark.parametrize("case", NOT_OURS)
def test_servers_that_are_none_of_ours(case: str, ask: Any) -> None:
    with other_server(NOT_OURS[case]) as other:
        with pytest.raises(
            ServerError, match=f"{other.url} answered .*as no BACo server does"
        ) as e:
            ask(asked(other.url))
        assert "Is base_url right?" in untold(e.value)
        assert len(other.asked) == 1


def test_a_list_of_models_that_is_none_of_ours() -> None:
    with other_server(answer("200 OK", OTHERS)) as other:
        with pytest.raises(ServerError, match="as no BACo server does"):
            asked(other.url, pair=None).generate("Hi")
        assert len(other.asked) == 1  # no prompt was sent


BROKEN = {
    "before it begins": "",
    "in its head": "HTTP/1.1 200 O",
    "in its body": answer("200 OK", CHAT)[:-10],
    "in a stream": SSE + 'data: {"choices": []}\n\n',
    "before all samples": SSE + 'data: {"choices": []}\n\ndata: [DONE]\n\n',
    "with no HTTP": "SSH-2.0-OpenSSH_9.6\r\n",
}


@every_way
@pytest.mark.parametrize("case", BROKEN)
def test_answers_that_break_off(case: str, ask: Any) -> None:
    with other_server(BROKEN[case]) as other:
        with pytest.raises(ServerError, match=r"broke off|as no BACo server does") as e:
            ask(asked(other.url, max_retries=5))
        untold(e.value)
        assert len(other.asked) == 1  # it may have been decoded


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "GRACE_S", 0.0)
    with other_server(None) as silent, pytest.raises(DeadlineError, match=r"timeout of 0\.2 s"):
        asked(silent.url).generate("Hi", timeout=0.2)


def test_a_server_that_ends_while_it_streams() -> None:
    with serving({"p": endless(0.001)}, drain_timeout=0.1) as running:
        stream = RemoteDecoder(running.api).stream("Go on.", max_tokens=2000)
        next(stream)
        running.server.drain()
        with pytest.raises(DecoderClosedError):
            list(stream)


# -- keys ------------------------------------------------------------------------------------------


@every_way
def test_keys(ask: Any) -> None:
    with serving({"p": endless()}, api_keys=["right"]) as running:
        with pytest.raises(ParameterError, match="api_key must be a key .* takes, got none") as e:
            ask(RemoteDecoder(running.api))
        with pytest.raises(ParameterError, match="api_key must be a key .*, got another one") as e:
            ask(asked(running.api))
        assert running.api in untold(e.value)
        assert ask(RemoteDecoder(running.api, api_key="right"))


def test_a_server_that_repeats_the_key() -> None:
    told = json.dumps({"error": {"message": f"What is {KEY}?", "type": "?"}})
    with other_server(answer("400 Bad", told)) as other:
        with pytest.raises(ServerError, match=r"answered with status 400: What is \*\*\*\?") as e:
            asked(other.url).generate("Hi")
        untold(e.value)


def test_a_server_that_does_not_know_a_setting() -> None:
    newer = answer("200 OK", CHAT, "X-BACo-Ignored: gamma")
    told = "of another version and does not know: gamma"
    with other_server(newer) as other, pytest.raises(ServerError, match=told):
        asked(other.url).generate("Hi", gamma=0.2)
    # The stream itself, which is yet to come, is not waited for.
    begun = SSE.replace("\r\n\r\n", "\r\nX-BACo-Ignored: gamma\r\nContent-Length: 9\r\n\r\n")
    with other_server(begun) as other, pytest.raises(ServerError, match=told):
        next(asked(other.url).stream("Hi", gamma=0.2))


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "-"])
def test_names_that_no_host_has(host: str) -> None:
    with pytest.raises(ServerError, match="no server can be reached"):
        asked(f"http://{host}").generate("Hi")


def test_an_unknown_pair_is_named(served: Serving) -> None:
    with pytest.raises(ParameterError, match="pair must be one that .* serves.*Served: tiny"):
        RemoteDecoder(served.api, pair="tinny").generate("Hi")


# -- trying again ----------------------------------------------------------------------------------


def told(status: str, code: str, *headers: str, **baco: str) -> str:
    error = {"message": "Not now.", "type": "server_error", "param": None, "code": code}
    return answer(
        status, json.dumps({"error": {**error, **({"baco": baco} if baco else {})}}), *headers
    )


BUSY = {
    "full": (told("429 Busy", "queue_full", error="QueueFullError"), QueueFullError),
    "ending": (told("503 Busy", "draining", "Retry-After: 0"), DecoderClosedError),
    "out of memory": (
        told("503 Busy", "out_of_memory", error="OutOfMemoryError"),
        OutOfMemoryError,
    ),
    "a proxy": (answer("503 Busy", "no upstream", "Retry-After: soon"), ServerError),
}


@pytest.mark.parametrize("case", BUSY)
def test_who_is_busy_is_asked_again(case: str, impatient: None) -> None:
    busy, kind = BUSY[case]
    with other_server(busy) as other:
        with pytest.raises(kind):
            asked(other.url, max_retries=3).generate("Hi")
        assert len(other.asked) == 4
        assert len({each.partition("\r\n\r\n")[2] for each in other.asked}) == 1  # and one seed
    with other_server(busy, busy, answer("200 OK", SERVED)) as other:
        assert asked(other.url, max_retries=2, pair=None).pair.name == "p"


def test_what_is_wrong_is_not_asked_again(impatient: None) -> None:
    for status in ("400 Bad", "500 Oops", "504 Late"):
        with other_server(told(status, "failed", error="WorkerError")) as other:
            with pytest.raises(BacoError, match=r"Not now\."):
                asked(other.url, max_retries=3).generate("Hi")
            assert len(other.asked) == 1


def test_a_server_that_starts_late_is_found(
    monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    started: list[OtherServer] = []
    out_of_reach = client.Client.out_of_reach

    def start(self: Any, reason: Exception) -> Any:
        started.append(OtherServer(answer("200 OK", SERVED), port=port))
        return out_of_reach(self, reason)

    monkeypatch.setattr(client.Client, "out_of_reach", start)
    assert asked(f"http://127.0.0.1:{port}", max_retries=1, pair=None).pair.name == "p"
    for server in started:
        server.close()


def test_a_wait_that_is_too_long_is_not_waited() -> None:
    with other_server(told("429 Busy", "queue_full", "Retry-After: 86400")) as other:
        with pytest.raises(QueueFullError):
            asked(other.url, max_retries=2).generate("Hi")
        assert len(other.asked) == 1


@pytest.mark.parametrize(
    ("header", "wanted"),
    [(None, 0), ("", 0), ("7", 7), ("1.5", 1.5), ("nan", 0), ("inf", 0), ("Wed, 21 Oct", 0)],
)
def test_retry_after(header: str | None, wanted: float) -> None:
    assert seconds(header) == wanted


def test_pauses_are_as_long_as_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(client, "sleep", sleep)
    busy = [told("429 Busy", "queue_full", *after) for after in (["Retry-After: 7"], [], [])]
    with other_server(*busy) as other, pytest.raises(QueueFullError):
        asked(other.url, max_retries=3).generate("Hi")
    assert pauses[0] == 7 and 0.75 <= pauses[1] <= 1.25 and 1.5 <= pauses[2] <= 2.5
