"""Answers that no honest server gives: an error of their own request each, and nothing is left."""

from __future__ import annotations

import json
import logging
import multiprocessing
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from baco_integrations import Decoder, ModelPair
from baco_integrations.core.errors import BacoError, DecoderClosedError, ParameterError, ServerError
from baco_integrations.models.options import SIDES
from baco_integrations.remote import Endpoint
from baco_integrations.remote.endpoints.endpoint import EndpointClient
from baco_integrations.remote.endpoints.replies import Spelling
from baco_integrations.remote.loop import NetworkLoop
from tests.remote.endpoints.pairs import ServedSides, files_of, served_sides
from tests.remote.endpoints.test_failures import MARKED, PARAMS, PLAIN, hang, misbehave
from tests.remote.other_servers import answer, other_server
from tests.scripted import eventually

KEY = 'sk-"very/se\\cret'
"""A key that JSON and Python write in other ways than it is."""


@pytest.fixture(scope="module")
def served() -> Iterator[ServedSides]:
    with served_sides(ModelPair.tiny(), logprobs=20) as served:
        yield served


def choice(tokens: list[str], *likely: dict[str, Any]) -> str:
    told = {"tokens": tokens, "top_logprobs": list(likely)}
    return json.dumps({"choices": [{"text": "", "logprobs": told}]})


def asked_of(*answers: str, key: str | None = None, retries: int = 0) -> BacoError:
    """Ask a server that gives these answers; return the error."""
    models = answer("200 OK", '{"data": [{"id": "base"}]}')
    with other_server(models, *answers) as other:
        endpoint = Endpoint(url=other.url, api_key=key, max_retries=retries, timeout=5.0)
        client = EndpointClient(endpoint, "base", Spelling([b"a", b"b"]), 4)
        with pytest.raises(BacoError) as error:
            NetworkLoop.current().wait(client.run([1], 1))
        assert other.url in str(error.value)
    return error.value


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("not JSON", "as no completion endpoint does"),
        ("[" * 100_000, "as no completion endpoint does"),
        ("[]", "as no completion endpoint does"),
        ('{"choices": []}', "as no completion endpoint does"),
        ('{"choices": [{"text": "a"}]}', "it tells no log probabilities"),
        (choice(["token_id:1"]), "it tells no log probabilities"),
        (choice(["token_id:1"], {}), "it tells no log probabilities"),
        (choice(["token_id:1"], {"token_id:1": float("nan")}), "no completion endpoint"),
        (choice(["token_id:1"], {"token_id:1": float("inf")}), "no completion endpoint"),
        (choice(["token_id:1"], {"token_id:1": 1e9}), "no completion endpoint"),
        (choice(["token_id:1"], {"token_id:1": -1e9}), "no completion endpoint"),
        (choice(["token_id:1"], {"token_id:1": None}), "no completion endpoint"),
        (choice(["token_id:1"], {"token_id:1": 0, "token_id:0": 0}), "no completion endpoint"),
        (choice(["token_id:1"], {"token_id:-1": -0.1}), "no completion endpoint"),
        (choice(["token_id:-1"], {"token_id:1": -0.1}), "no completion endpoint"),
        (choice(["token_id:x"], {"token_id:1": -0.1}), "no completion endpoint"),
        (choice(["token_id:1"], {f"token_id:{2**80}": -0.1}), "no completion endpoint"),
        (choice(["token_id:3"], {"token_id:3": -0.1}), "embedding rows alone"),
        (choice(["token_id:3"], {"token_id:1": -0.1, "token_id:4": -3}), "a token 4, but"),
        (choice(["\ufffd"], {"\ufffd": -0.1}), "no token's text here. Serve the model with"),
        ('{"choices": [{"logprobs": {"content": [{"id": Infinity}]}}]}', "no completion endpoint"),
        (
            '{"choices": [{"logprobs": {"content": [{"id": Infinity, "top_logprobs": [{"id": 1, '
            '"logprob": -0.1}]}]}}]}',
            "no completion endpoint",
        ),
    ],
)
def test_answers_of_another_form(body: str, said: str) -> None:
    error = asked_of(answer("200 OK", body))
    assert said in str(error) and "base model's server at" in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        ("307 Temporary Redirect", ServerError, "with status 307: fault. Is the URL right?"),
        ("401 Unauthorized", ParameterError, "api_key must be a key that the base model's server"),
        (
            "403 Forbidden",
            ParameterError,
            "got another one. Give it as the endpoint's api_key. The",
        ),
        ("404 Not Found", ServerError, "with status 404: fault. Is the URL right?"),
        ("429 Too Many Requests", ServerError, "with status 429: fault. Ask later"),
        ("500 Internal Server Error", ServerError, "with status 500: fault. Look at its log"),
        ("503 Service Unavailable", ServerError, "with status 503: fault. Ask later"),
    ],
)
@pytest.mark.parametrize("form", ['{"error": {"message": "fault"}}', "fault"])
def test_refusals(form: str, status: str, kind: type[BacoError], said: str) -> None:
    later = ("Retry-After: 3600", "Location: http://127.0.0.1:9/elsewhere")
    error = asked_of(answer(status, form, *later), key="sk-1", retries=3)
    assert type(error) is kind and said in str(error)


def test_who_is_busy_is_asked_again() -> None:
    busy = answer("429 Too Many Requests", "", "Retry-After: 0.01")
    error = asked_of(busy, busy, answer("200 OK", "{}"), retries=2)
    assert "as no completion endpoint does" in str(error)


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "403 No", "500 No"])
@pytest.mark.parametrize(
    "body",
    [
        f"You sent {KEY}",
        json.dumps({"error": {"message": KEY}}),
        json.dumps(KEY).replace("/", "\\/"),
    ],
)
def test_a_key_that_is_repeated_is_not_shown(
    status: str, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        error = asked_of(answer(status, body), key=KEY)
    assert "***" in str(error)
    shown: BaseException | None = error
    while shown is not None:
        assert "cret" not in str(shown) + repr(shown)
        shown = shown.__cause__
    assert "cret" not in caplog.text


def test_one_answer_of_another_form_ends_one_request(served: ServedSides) -> None:
    async def lie() -> Any:
        return 200, json.loads(choice(["token_id:7"], {"token_id:-7": -0.1}))

    with Decoder(served.remote) as decoder:
        alone = decoder.generate(PLAIN, PARAMS)
        misbehave(served, lie)
        found = decoder.generate_batch([MARKED, PLAIN], PARAMS, return_exceptions=True)
        served.servers[1].before = None
    assert isinstance(found[0], ServerError)
    assert found[1] == alone


def test_an_unknown_host() -> None:
    endpoint = Endpoint(url="http://nowhere.invalid/v1", max_retries=0)
    client = EndpointClient(endpoint, "base", Spelling([]), 1)
    with pytest.raises(ServerError, match="base model's server cannot be reached at http://nowh"):
        NetworkLoop.current().wait(client.served())


def test_nothing_is_left_of_what_was_closed(served: ServedSides) -> None:
    connections = open_sockets()
    misbehave(served, hang)
    decoder = Decoder(served.remote)
    stream = decoder.stream(MARKED, PARAMS)
    assert eventually(lambda: served.calls[1] > 0)
    assert any(each.name == "baco-decoder" for each in threading.enumerate())
    worker = decoder.engine.thread
    decoder.close()
    served.servers[1].before = None
    with pytest.raises(DecoderClosedError):
        list(stream)
    assert not worker.is_alive()
    assert eventually(lambda: not running_tasks())
    # What is kept open for the next request is closed by it, once it is too old.
    assert eventually(lambda: open_sockets() <= connections + len(idle()))


def running_tasks() -> set[Any]:
    import asyncio

    async def others() -> set[Any]:
        return asyncio.all_tasks() - {asyncio.current_task()}

    return NetworkLoop.current().wait(others())


def idle() -> list[Any]:
    transport: Any = NetworkLoop.current().http._transport
    return [each for each in transport._pool.connections if each.is_idle()]


def open_sockets() -> int:
    transport: Any = NetworkLoop.current().http._transport
    return len(transport._pool.connections)


def decode_in_child(remote: Any, decoder: Any, said: Any) -> None:
    try:
        decoder.generate(PLAIN, PARAMS)
    except DecoderClosedError:
        said.put("closed")
    with Decoder(remote) as own:
        said.put(own.generate(PLAIN, PARAMS)[0].text)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_opens_a_decoder_of_its_own(served: ServedSides) -> None:
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()
    with Decoder(served.remote) as decoder:
        text = decoder.generate(PLAIN, PARAMS)[0].text
        child = context.Process(target=decode_in_child, args=(served.remote, decoder, said))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert [said.get(), said.get()] == ["closed", text]
        assert decoder.generate(PLAIN, PARAMS)[0].text == text


def test_an_interpreter_ends_while_it_waits(served: ServedSides) -> None:
    misbehave(served, hang)
    files = files_of(served.local)
    sides = [
        {"url": url.url, "files": files[side]}
        for url, side in zip(served.remote.endpoints, SIDES, strict=True)
    ]
    code = f"""
from baco_integrations import Decoder
from baco_integrations.remote import RemotePair
decoder = Decoder(RemotePair.connect(*{sides!r}))
stream = decoder.stream({MARKED!r}, temperature=0)
print("asked")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    served.servers[1].before = None
    assert (ended.returncode, ended.stdout) == (0, "asked\n"), ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_that_says_too_little_each_second() -> None:
    """A deadline is for the whole answer, however often something comes."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
                try:
                    while not stop.wait(0.02):
                        connection.sendall(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        client = EndpointClient(
            Endpoint(url=url, timeout=0.2, max_retries=0), "base", Spelling([]), 1
        )
        with pytest.raises(ServerError, match=r"has not answered within 0\.2 s"):
            NetworkLoop.current().wait(client.served())
        thread.join(30)  # it ends by itself, as the connection is closed
        left = thread.is_alive()
        stop.set()
    assert not left
