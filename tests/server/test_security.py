"""Who is let in, with how much, and what nobody is told."""

from __future__ import annotations

import io
import json
import logging
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.routing import Mount

from baco_integrations.api.requests import ChatBody
from baco_integrations.cli.serve import read_keys
from baco_integrations.core.errors import ParameterError
from baco_integrations.server import ServedPairs, ServerSettings, create_app, settings
from baco_integrations.server.logs import JsonLines
from tests.commands import baco
from tests.scripted import eventually
from tests.server.serving import Serving, serving

KEYS = ("first-k3y", "second-k3y", "third-k3y")
PROMPT = "pr1vate words"
ASKED = {
    "model": "tiny",
    "messages": [{"role": "user", "content": f"Suggest a gift. {PROMPT}"}],
    "max_tokens": 3,
}
EVIL = "https://evil.example"


@pytest.fixture(scope="module")
def keyed() -> Iterator[Serving]:
    with serving(api_keys=KEYS, allow_origins=["https://good.example"]) as served:
        yield served


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the server logs, as ``baco serve`` writes it."""
    stream, logger = io.StringIO(), logging.getLogger("baco_integrations")
    handler, level = logging.StreamHandler(stream), logger.level
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


# -- who may listen, and be let in -----------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "127.0.0.1.a.b"])
def test_a_public_address_needs_a_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACO_API_KEY", raising=False)
    # The pair is unknown too, but nothing is looked at before that.
    said = baco("serve", "--host", host, "--pair", "unknown", code=2).stderr
    assert "--host must be a loopback address" in " ".join(said.split())
    assert ServerSettings(host=host, api_keys=["k"]).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    assert ServerSettings(host=host).api_keys == ()


OPEN = ("/", "/docs", "/openapi.json", "/health")
CLOSED = ("/v1/models", "/v1/models/tiny", "/v1/unknown", "/v1/", "/metrics")


@pytest.mark.parametrize("path", CLOSED)
def test_a_key_is_needed(keyed: Serving, path: str) -> None:
    url = keyed.url + path
    for headers in (
        {},
        {"authorization": "Bearer"},
        bearer("first-k3"),
        bearer("first-k3y2"),
        bearer(", ".join(KEYS)),
        {"authorization": KEYS[0]},
        {"authorization": f"Basic {KEYS[0]}"},
        {"x-api-key": KEYS[0]},
    ):
        for method in ("GET", "POST", "DELETE", "HEAD"):
            answer = httpx.request(method, url, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(url, headers=bearer("wrong")).json()["error"]["code"] == "invalid_api_key"
    assert httpx.get(f"{url}?key={KEYS[0]}", params={"api_key": KEYS[0]}).status_code == 401
    for key in KEYS:
        assert httpx.get(url, headers=bearer(key)).status_code in (200, 404)
    assert httpx.get(url, headers={"authorization": f"bearer  {key}"}).status_code in (200, 404)


@pytest.mark.parametrize("prefix", ["/baco", "/v"])
async def test_a_key_is_needed_where_the_application_is_mounted(prefix: str) -> None:
    app = create_app(ServedPairs(["tiny"]), ServerSettings(api_keys=KEYS))
    sent = httpx.ASGITransport(Starlette(routes=[Mount(prefix, app)]))
    async with httpx.AsyncClient(transport=sent, base_url="http://any") as client:
        for path in CLOSED:
            assert (await client.get(prefix + path)).status_code == 401
        answer = await client.get(f"{prefix}/v1/models", headers=bearer(KEYS[0]))
        assert answer.status_code == 200
        assert (await client.get(f"{prefix}/health")).status_code == 200


def test_generating_needs_a_key(keyed: Serving) -> None:
    for path, more in (("chat/completions", {}), ("completions", {"prompt": "a"})):
        body = {**ASKED, **more}
        assert httpx.post(f"{keyed.api}/{path}", json=body).status_code == 401
        # Not even the body is read without one.
        assert httpx.post(f"{keyed.api}/{path}", content=b"{").status_code == 401
        answer = httpx.post(f"{keyed.api}/{path}", json=body, headers=bearer(KEYS[1]))
        assert answer.status_code == 200


@pytest.mark.parametrize("path", OPEN)
def test_pages_need_none(keyed: Serving, path: str) -> None:
    assert httpx.get(keyed.url + path).status_code == 200


@pytest.mark.parametrize("given", [*KEYS, "wrong", "", "first-k3y-and-more", "\udcff", "é"])
def test_all_keys_are_compared_in_full(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = settings.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(settings, "compare_digest", counting)
    assert ServerSettings(api_keys=KEYS).lets_in(given) is (given in KEYS)
    assert len(compared) == 3 and {len(each) for pair in compared for each in pair} == {32}


# -- what nobody is told ---------------------------------------------------------------------------


def test_keys_are_in_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ServerSettings(api_keys=KEYS)
    texts = [repr(kept), str(kept), str(kept.model_dump()), kept.model_dump_json()]
    for wrong in (["first-k3y é"], ["first-k3y\n"], [""], "first k3y", 7, [b"first-k3y"]):
        with pytest.raises(ParameterError) as caught:
            ServerSettings(api_keys=wrong, host="0.0.0.0")  # type: ignore[arg-type]
        texts += ["".join(traceback.format_exception(caught.value)), repr(caught.value.__dict__)]
    monkeypatch.setenv("BACO_API_KEY", KEYS[0])
    texts += [baco("serve", "--help").output, baco("serve", "--port", "70000", code=2).output]
    file = tmp_path / "keys"
    file.write_text("\n".join(KEYS))
    assert read_keys(file) == KEYS
    arguments = ("serve", "--api-key-file", str(file))
    texts += [baco(*arguments, "--gamma", "7", code=2).output]
    assert not any("k3y" in text for text in texts)


def test_neither_keys_nor_prompts_are_logged_or_answered(keyed: Serving, log: io.StringIO) -> None:
    url = f"{keyed.api}/chat/completions"
    texts = []
    for key in (KEYS[0], "wrong-k3y", "k3y \xff"):
        headers = {"authorization": f"Bearer {key}".encode("latin-1")}
        for body in (
            *(ASKED, {**ASKED, "stream": True}, {**ASKED, "gamma": 7}, {**ASKED, "timeout": 1e-9}),
            *({**ASKED, "model": "unknown"}, {**ASKED, "stop": [3]}, {**ASKED, "regex": "(a"}),
        ):
            answer = httpx.post(url, json=body, headers=headers)
            texts += [answer.text, str(answer.headers)]
        content = json.dumps(ASKED)[:-1]
        texts.append(httpx.post(url, content=content, headers=headers).text)
    texts += [httpx.get(keyed.url + path, headers=bearer(KEYS[0])).text for path in OPEN + CLOSED]
    told = log.getvalue()
    assert "completion_tokens" in told and "invalid_api_key" not in told
    assert not any(secret in text for text in [*texts, told] for secret in ("k3y", PROMPT))


def test_prompts_are_logged_where_that_is_asked_for(log: io.StringIO) -> None:
    with serving(log_prompts=True) as served:
        answer = httpx.post(f"{served.api}/chat/completions", json={**ASKED, "seed": 1})
    (line,) = (json.loads(line) for line in log.getvalue().splitlines() if PROMPT in line)
    assert line["answers"] == [answer.json()["choices"][0]["message"]["content"]]


def test_a_line_of_the_log_is_one_line_of_json(keyed: Serving, log: io.StringIO) -> None:
    paths = ("/v1/%0a%7B%22level%22:1%7D", "/%0d%0a", "/%e2%80%a8%c2%85%00", "/%ff\u00e9", "/\\")
    for path in paths:
        httpx.get(keyed.url + path, headers={"x-request-id": "a b"})
    assert eventually(lambda: log.getvalue().count("\n") == len(paths))
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["request"] * len(paths)
    assert log.getvalue().isascii() and all("\n" not in str(line["id"]) for line in lines)


@pytest.mark.parametrize("given", ["ok-1", "A.b_9", "a" * 64])
def test_a_request_keeps_its_id(keyed: Serving, given: str) -> None:
    headers = httpx.get(f"{keyed.url}/health", headers={"x-request-id": given}).headers
    assert headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a" * 65, '"', "<b>", "a,b", "é", "a\tb"])
def test_an_id_that_is_none_is_replaced(keyed: Serving, given: str) -> None:
    sent = {"x-request-id": given.encode("latin-1")}
    told = httpx.get(f"{keyed.api}/models", headers=sent).headers["x-request-id"]
    assert told != given and len(told) == 32 and told.isalnum()


# -- pages of other sites --------------------------------------------------------------------------


def preflight(served: Serving, origin: str) -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    return httpx.options(f"{served.api}/chat/completions", headers=headers)


def test_scripts_of_other_sites_may_not_call(served: Serving, keyed: Serving) -> None:
    for refusing in (served, keyed):
        answer = preflight(refusing, EVIL)
        assert answer.status_code in (400, 405)
        assert "access-control-allow-origin" not in answer.headers
        for answer in (
            httpx.get(f"{refusing.api}/models", headers={"origin": EVIL, **bearer(KEYS[0])}),
            httpx.post(
                f"{refusing.api}/chat/completions",
                json=ASKED,
                headers={"origin": EVIL, **bearer(KEYS[0])},
            ),
        ):
            assert "access-control-allow-origin" not in answer.headers


def test_scripts_of_allowed_sites_may(keyed: Serving) -> None:
    good = "https://good.example"
    allowed = preflight(keyed, good)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == good
    url = f"{keyed.api}/chat/completions"
    for key, status in ((KEYS[0], 200), ("wrong", 401)):  # they may read what went wrong, too
        answer = httpx.post(url, json=ASKED, headers={"origin": good, **bearer(key)})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == good
        assert "access-control-allow-credentials" not in answer.headers
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"]
)
def test_what_any_page_may_send_is_refused(served: Serving, kind: str) -> None:
    url, content = f"{served.api}/chat/completions", json.dumps(ASKED)
    answer = httpx.post(url, content=content, headers={"content-type": kind, "origin": EVIL})
    assert answer.status_code == 415
    assert httpx.post(url, content=content).status_code == 415


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("localhost:80:80", "", "2130706433", "127.1", "user@127.0.0.1", "10.0.0.1", "[::2]:80"),
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(served: Serving, host: str) -> None:
    for path in ("/", "/health", "/v1/models", "/openapi.json", "/metrics"):
        answer = httpx.get(served.url + path, headers={"host": host})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["localhost", "localhost:7", "127.0.0.1:80", "[::1]:80", "[::1]"])
def test_names_of_this_machine_are_not(served: Serving, host: str) -> None:
    assert httpx.get(f"{served.api}/models", headers={"host": host}).status_code == 200


def test_with_a_key_any_name_will_do(keyed: Serving) -> None:
    headers = {"host": "pairs.example", **bearer(KEYS[0])}
    assert httpx.get(f"{keyed.api}/models", headers=headers).status_code == 200


# -- pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_bring_their_policy(served: Serving, path: str) -> None:
    headers = httpx.get(served.url + path).headers
    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        *("/../app.py", "/..%2fapp.py", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/app.py"),
        *("/playground/index.html", "/index.html", "/..\\app.py", "/docs.html", "/%00", "/docs/"),
        *("/v1/models/../../app.py", "/v1/models/%2e%2e%2fapp.py", "/health/", "/.git/config"),
    ],
)
def test_there_are_no_other_files_and_no_redirects(served: Serving, path: str) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        with raw.makefile("rb") as file:
            answer = file.read()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"import" not in answer and b"root:" not in answer


# -- how much --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Iterator[Serving]:
    limits: dict[str, Any] = {"max_body_bytes": 2048, "max_prompt_tokens": 40, "max_choices": 4}
    with serving(**limits) as served:
        yield served


def test_long_bodies_are_refused(small: Serving) -> None:
    url, kind = f"{small.api}/chat/completions", {"content-type": "application/json"}
    whole = json.dumps(ASKED).encode()
    for size, status in ((2048, 200), (2049, 413), (10**6, 413)):
        padded = whole.ljust(size)
        answer = httpx.post(url, content=padded, headers=kind)
        assert answer.status_code == status
        pieces = httpx.post(url, content=iter([padded[:100], padded[100:]]), headers=kind)
        assert pieces.status_code == status
    assert pieces.json()["error"]["code"] == "body_too_large"


def test_long_prompts_are_refused(small: Serving) -> None:
    def asked(words: int, stream: bool = False) -> httpx.Response:
        messages = [{"role": "user", "content": "word " * words}]
        body = {**ASKED, "messages": messages, "stream": stream}
        return httpx.post(f"{small.api}/chat/completions", json=body)

    assert asked(5).status_code == 200
    for stream in (False, True):
        answer = asked(60, stream)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
    body = {"model": "tiny", "prompt": [[1] * 41], "max_tokens": 1}
    answer = httpx.post(f"{small.api}/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")
    assert (
        httpx.post(f"{small.api}/completions", json={**body, "prompt": [1] * 40}).status_code == 200
    )


def test_many_answers_are_refused(small: Serving) -> None:
    for body in ({"n": 5}, {"n": 3, "prompt": ["a", "b"]}, {"prompt": ["a"] * 5}):
        path = "completions" if "prompt" in body else "chat/completions"
        answer = httpx.post(f"{small.api}/{path}", json={**ASKED, **body})
        assert (answer.status_code, answer.json()["error"]["param"]) == (
            400,
            "n" if "n" in body else "prompt",
        )


def test_one_thing_that_is_wrong_is_enough() -> None:
    """Bodies with a million mistakes would hold up everybody while all are listed."""
    with pytest.raises(ValidationError) as caught:
        ChatBody.model_validate({"model": "tiny", "messages": [1] * 1000, "stop": [1] * 1000})
    assert caught.value.error_count() == 1


def test_ids_of_models_are_short(small: Serving) -> None:
    """Each chunk of a stream repeats them."""
    name = "tiny@" + "gamma=0.1," * 100
    answer = httpx.post(f"{small.api}/chat/completions", json={**ASKED, "model": name})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    "more", [r'"base":{"\ud800":1}', r'"model":"tiny@\udfff=1"', r'"tools":[{"\ud800":1}]']
)
def test_half_characters_are_told_of_in_whole_ones(small: Serving, more: str) -> None:
    content, kind = json.dumps(ASKED)[:-1] + f",{more}}}", {"content-type": "application/json"}
    answer = httpx.post(f"{small.api}/chat/completions", content=content, headers=kind)
    assert answer.status_code == 400 and answer.json()["error"]["message"]
