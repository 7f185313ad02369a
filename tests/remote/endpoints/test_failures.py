"""Servers that end, hang, refuse or are not what they should be: an error each, for whom it is."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.core.errors import (
    BacoError,
    DeadlineError,
    DecoderClosedError,
    ParameterError,
    ServerError,
    VocabularyMismatchError,
)
from baco_integrations.models.options import SIDES
from baco_integrations.remote import Endpoint, RemotePair
from baco_integrations.remote.endpoints.endpoint import EndpointClient
from baco_integrations.remote.endpoints.replies import Spelling
from baco_integrations.remote.loop import NetworkLoop
from tests.pairs import random_pair
from tests.remote.endpoints.completion_server import listening, server_of
from tests.remote.endpoints.pairs import ServedSides, files_of, served_sides
from tests.remote.other_servers import answer, other_server
from tests.scripted import eventually

PARAMS = SamplingParams(gamma=0.6, temperature=0, seed=1, max_tokens=24)
MARKED, PLAIN = "Name a place to visit in the zebra.", "Name a place to visit."


@pytest.fixture(scope="module")
def tiny() -> ModelPair:
    return ModelPair.tiny()


@pytest.fixture
def served(tiny: ModelPair) -> Iterator[ServedSides]:
    with served_sides(tiny, logprobs=20, options={"timeout": 1.0}) as served:
        yield served


def misbehave(served: ServedSides, do: Any) -> None:
    """Have the aligned model's server do something else with whatever is asked of `MARKED`."""
    pair, server = served.remote, served.servers[1]
    marked = pair.render_aligned(MARKED, tokenize=True)

    async def before(body: dict[str, Any]) -> Any:
        if body["prompt"][: len(marked)] == marked:
            return await do()

    server.before = before


async def hang() -> None:
    await asyncio.sleep(60)


async def refuse() -> Any:
    return 500, {"error": {"message": "the device is on fire"}}


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (hang, r"The aligned model's server at http://\S+ has not answered within 1 s"),
        (refuse, "answered with status 500: the device is on fire"),
    ],
)
def test_an_error_is_for_its_own_request(do: Any, said: str, served: ServedSides) -> None:
    misbehave(served, do)
    with Decoder(served.remote, lookahead="off") as decoder:
        alone = decoder.generate(PLAIN, PARAMS)
        found = decoder.generate_batch([MARKED, PLAIN], PARAMS, return_exceptions=True)
        assert isinstance(found[0], ServerError)
        with pytest.raises(ServerError, match=said):
            raise found[0]
        assert found[1] == alone
        assert eventually(lambda: decoder.running == decoder.waiting == 0)


def test_a_request_that_waits_for_a_slow_server_has_its_own_deadline(served: ServedSides) -> None:
    misbehave(served, hang)
    with Decoder(served.remote) as decoder:
        with pytest.raises(DeadlineError, match=r"timeout of 0\.2 s"):
            decoder.generate(MARKED, PARAMS, timeout=0.2)
        assert decoder.generate(PLAIN, PARAMS)[0].finish_reason == "stop"


def test_who_leaves_or_closes_waits_for_nobody(served: ServedSides) -> None:
    misbehave(served, hang)
    with Decoder(served.remote) as decoder:
        with decoder.stream(MARKED, PARAMS):
            assert eventually(lambda: served.calls[1] > 0)
        assert eventually(lambda: decoder.running == 0)
        stream = decoder.stream(MARKED, PARAMS)
        assert eventually(lambda: served.calls[1] > 1)
    with pytest.raises(DecoderClosedError):
        list(stream)


def test_a_server_that_is_killed_while_it_decodes(tiny: ModelPair) -> None:
    code = "from tests.remote.endpoints.completion_server import run_tiny; run_tiny('aligned')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with process, listening(server_of(tiny, "base")) as base:
        assert process.stdout is not None
        urls = base, process.stdout.readline().strip()
        files = files_of(tiny)
        asked = [
            {"url": url, "files": files[side], "max_retries": 0}
            for url, side in zip(urls, SIDES, strict=True)
        ]
        with Decoder(RemotePair.connect(*asked), lookahead="off") as decoder:
            stream = decoder.stream(PLAIN, PARAMS)
            assert next(stream).token_id >= 0
            process.send_signal(signal.SIGSTOP)  # what is asked from now on is under way
            process.kill()
            with pytest.raises(ServerError, match=f"{urls[1]} broke off"):
                list(stream)
            process.wait()
            with pytest.raises(ServerError, match=f"server cannot be reached at {urls[1]}"):
                decoder.generate(PLAIN, PARAMS)


@pytest.mark.parametrize("retries", [0, 1])
def test_what_broke_off_is_asked_again(retries: int) -> None:
    models = json.dumps({"data": [{"id": "base"}]})
    told = {"tokens": ["token_id:5"], "top_logprobs": [{"token_id:5": -0.1}]}
    whole = answer("200 OK", json.dumps({"choices": [{"logprobs": told}]}))
    with other_server(answer("200 OK", models), whole[:-9], whole) as other:
        endpoint = Endpoint(url=other.url, max_retries=retries)
        asked = EndpointClient(endpoint, "base", Spelling([b""] * 8), 8).run([1], 1)
        if not retries:
            with pytest.raises(ServerError, match="broke off"):
                NetworkLoop.current().wait(asked)
        else:
            (position,) = NetworkLoop.current().wait(asked)
            assert (position.token, position.logprobs.tolist()) == (5, [-0.1])


def connect(url: str, pair: ModelPair, side: str = "base", **more: Any) -> RemotePair:
    """Connect to a server, as both sides; for those that are refused."""
    asked = {"url": url, "files": files_of(pair)[side], "max_retries": 0, "logprobs": 20, **more}
    return RemotePair.connect(asked, asked)


def test_a_model_with_more_tokens_than_its_files_say(tiny: ModelPair) -> None:
    small = random_pair("llama")
    with (
        listening(server_of(tiny, "base")) as url,
        pytest.raises(VocabularyMismatchError, match="has a token .* has only 511|vocabulary"),
    ):
        connect(url, small)


def test_a_model_whose_tokens_have_other_texts(tiny: ModelPair) -> None:
    server = server_of(tiny, "base")
    spell = server.spell
    server.spell = lambda token: spell(token + 1)
    said = r"The (base|aligned) model's server at http://\S+: it has another vocabulary: id \d+ is "
    with listening(server) as url, pytest.raises(VocabularyMismatchError, match=said):
        connect(url, tiny)


def test_a_model_that_is_not_served(tiny: ModelPair) -> None:
    with (
        listening(server_of(tiny, "base")) as url,
        pytest.raises(ParameterError, match="model must be one of base, which .* got 'bse'. Did"),
    ):
        connect(url, tiny, model="bse")


def test_servers_without_log_probabilities(tiny: ModelPair) -> None:
    with (
        listening(server_of(tiny, "base", logprobs=False)) as url,
        pytest.raises(ServerError, match="it tells no log probabilities .* Serve the model with"),
    ):
        connect(url, tiny)


def test_servers_with_too_few_log_probabilities(tiny: ModelPair) -> None:
    with (
        listening(server_of(tiny, "base", most=5)) as url,
        pytest.raises(ServerError, match="at most 5 logprobs"),
    ):
        connect(url, tiny)


def test_tokens_of_which_several_have_the_same_text(tiny: ModelPair) -> None:
    server = server_of(tiny, "base", form="text")
    server.spell = lambda token: "\ufffd"
    with (
        listening(server) as url,
        pytest.raises(ServerError, match=r"names its tokens by their texts, and '.' is"),
    ):
        connect(url, tiny)


def test_nobody_listens(tiny: ModelPair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with pytest.raises(ServerError, match=f"cannot be reached at http://127.0.0.1:{port}/v1"):
        connect(f"http://127.0.0.1:{port}", tiny)


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"data": [{}]}', '{"data": [1]}'])
def test_servers_of_another_kind(body: str, tiny: ModelPair) -> None:
    with (
        other_server(answer("200 OK", body)) as other,
        pytest.raises(ServerError, match="as no completion endpoint does"),
    ):
        connect(other.url, tiny)


def test_a_server_that_says_nothing(tiny: ModelPair) -> None:
    started = time.monotonic()
    with other_server(None) as other, pytest.raises(ServerError, match="within 0.2 s"):
        connect(other.url, tiny, timeout=0.2)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "base must be an instance of Endpoint, a dict"),
        ({"url": "nowhere"}, "url must be a URL"),
        ({"url": "http://a", "logprobs": 0}, "logprobs must be a whole number of at least 1"),
        ({"url": "http://a", "timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"url": "http://a", "uri": 1}, "uri must be one of the settings of Endpoint"),
        ("http://a", "files must be a folder or an id"),
    ],
)
def test_endpoints_that_are_none(given: Any, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        RemotePair.connect(given, "http://a")


def test_options_of_loading_are_refused() -> None:
    with pytest.raises(ParameterError, match="dtype must be one of revision"):
        RemotePair.connect("http://a", "http://b", dtype="float32")


def test_no_key_is_shown() -> None:
    endpoint = Endpoint(url="http://a", api_key="sk-very-secret")
    assert "secret" not in repr(endpoint)
    with pytest.raises(BacoError) as error:
        Endpoint(url="http://a", api_key="sk very secret")
    assert "secret" not in str(error.value)
