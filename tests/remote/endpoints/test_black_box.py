"""An aligned model without probabilities: base decides, and the chat's own words come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.core.errors import ParameterError, ServerError
from baco_integrations.remote import BlackBoxPair, RemoteDecoder
from baco_integrations.remote.endpoints import engine
from baco_integrations.remote.endpoints.black_box import continued
from baco_integrations.tiny import WEIGHTS
from tests.remote.endpoints.completion_server import listening, server_of
from tests.remote.other_servers import answer, other_server
from tests.server.serving import Serving, serving

GREEDY = "tiny@router=aligned,temperature=0"
PROMPTS = ("Name a place to visit.", "Suggest a gift for a friend.", "Name a pet.", "Hi there!")
BASE = str(WEIGHTS / "base")


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving({"tiny": ModelPair.tiny()}) as running:
        yield running


@pytest.fixture(scope="module")
def pair(served: Serving) -> BlackBoxPair:
    chat = {"url": served.api, "model": GREEDY, "max_retries": 0}
    return BlackBoxPair.connect(BASE, chat, dtype="float32")


@pytest.fixture(scope="module")
def decoder(pair: BlackBoxPair) -> Iterator[Decoder]:
    engine.warn_approximate.cache_clear()
    with Decoder(pair) as decoder:
        with pytest.warns(UserWarning, match="aligned's words are taken as certain"):
            decoder.generate("Hi", max_tokens=2)
        yield decoder


@pytest.mark.parametrize("router", ["p-punc", "punc", "fc", "p", "aligned", "base"])
def test_words_are_those_of_a_pair_with_probabilities(router: str, decoder: Decoder) -> None:
    """At temperature 0 what an aligned model says next is what its chat goes on with."""
    settings: dict[str, Any] = {"router": router, "temperature": 0, "max_tokens": 30}
    if router.startswith("p") and router != "punc":
        settings["gamma"] = 0.6
    with Decoder(ModelPair.tiny()) as exact:
        for prompt in PROMPTS:
            (there,), (here,) = (each.generate(prompt, **settings) for each in (decoder, exact))
            assert there.text == here.text
            assert [s.source for s in there.steps] == [s.source for s in here.steps]


def test_what_comes_is_labelled(decoder: Decoder, served: Serving) -> None:
    (found,) = decoder.generate(PROMPTS[0], gamma=0.6, temperature=0)
    assert found.approximate
    assert "approximate" in repr(decoder.pair)
    assert any("approximate" in note for note in decoder.pair.notes)
    (exact,) = RemoteDecoder(served.api).generate(PROMPTS[0], max_tokens=2)
    assert not exact.approximate


def test_the_label_goes_over_the_network(pair: BlackBoxPair) -> None:
    with serving({"mine": pair}) as running:
        body = {"model": "mine", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        told = httpx.post(f"{running.api}/chat/completions", json=body, timeout=60).json()
    assert told["choices"][0]["baco"]["approximate"] is True


@pytest.mark.parametrize("streaming", [False, True])
def test_a_seed_that_nobody_gave_is_not_refused(pair: BlackBoxPair, streaming: bool) -> None:
    with serving({"mine": pair}) as running:
        decoder = RemoteDecoder.shared(running.api)
        if streaming:
            with decoder.stream("Hi", max_tokens=4, n=2) as stream:
                assert len(list(stream)) == 8
            found = stream.completions
        else:
            found = decoder.generate("Hi", max_tokens=4, n=2)
        assert [each.approximate for each in found] == [True, True]
        with pytest.raises(ParameterError, match="seed must be left out with this engine"):
            decoder.generate("Hi", max_tokens=4, seed=3)
        decoder.close()


def test_the_chat_is_asked_only_where_it_is_to_speak(decoder: Decoder) -> None:
    before = decoder.metrics.forwards
    (found,) = decoder.generate(PROMPTS[0], router="base", temperature=0, max_tokens=8)
    assert found.base_share == 1
    assert decoder.metrics.forwards - before <= 8
    (found,) = decoder.generate(PROMPTS[0], gamma=0.6, temperature=0)
    assert all(
        b.source == a.source or b.text[0] in " .,!"
        for a, b in zip(found.steps, found.steps[1:-1], strict=False)
    )


def test_sampling_base_and_a_begun_answer(decoder: Decoder) -> None:
    found = decoder.generate(PROMPTS[0], gamma=0.9, temperature=1.0, n=6, max_tokens=20)
    assert len({each.text for each in found}) > 1
    asked = [{"role": "user", "content": "Name a city."}, {"role": "assistant", "content": "I"}]
    (more,) = decoder.generate(asked, continue_final_message=True, router="aligned")
    assert re.match(r" \w", more.text)


def test_base_may_be_an_endpoint_too(served: Serving, decoder: Decoder) -> None:
    params = SamplingParams(gamma=0.6, temperature=0, max_tokens=20)
    chat = {"url": served.api, "model": GREEDY}
    with listening(server_of(ModelPair.tiny(), "base")) as url:
        pair = BlackBoxPair.connect({"url": url, "files": BASE}, chat)
        with Decoder(pair) as other:
            assert (
                other.generate(PROMPTS[0], params)[0].text
                == decoder.generate(PROMPTS[0], params)[0].text
            )


def test_what_needs_probabilities_is_refused(decoder: Decoder) -> None:
    for name, value in {"seed": 1, "alternatives": 2, "regex": "a+"}.items():
        with pytest.raises(ParameterError, match="left out with this engine"):
            decoder.generate("Hi", **{name: value})
    with pytest.raises(ParameterError, match="signal_model must be 'base' where aligned tells"):
        decoder.generate("Hi", signal_model="aligned")
    with pytest.raises(ParameterError, match="continuation must be 'flag'"):
        BlackBoxPair.connect(BASE, {"url": "http://a", "continuation": "magic"})


def test_chats_that_are_none() -> None:
    models = answer("200 OK", '{"data": [{"id": "chat"}]}')
    with other_server(models, models, answer("200 OK", "{}")) as other:
        pair = BlackBoxPair.connect(BASE, other.url)
        with (
            Decoder(pair) as decoder,
            pytest.raises(ServerError, match="as no completion endpoint does"),
        ):
            decoder.generate("Hi", router="aligned")


@pytest.mark.parametrize(
    ("content", "finish", "said"),
    [
        (None, "length", "The aligned model's server at .* said nothing within 12 tokens"),
        (["a"], "stop", "as no completion endpoint does"),
    ],
)
def test_chats_that_say_nothing(content: Any, finish: str, said: str) -> None:
    models = answer("200 OK", '{"data": [{"id": "chat"}]}')
    told = {"choices": [{"message": {"content": content}, "finish_reason": finish}]}
    with other_server(models, models, answer("200 OK", json.dumps(told))) as other:
        pair = BlackBoxPair.connect(BASE, other.url)
        with Decoder(pair) as decoder, pytest.raises(ServerError, match=said):
            decoder.generate("Hi", router="aligned", max_tokens=8)


@pytest.mark.parametrize(
    ("said", "text", "whole", "added"),
    [
        ("", "I would go", False, "I would"),
        ("", "I would go", True, "I would go"),
        ("I would", " go to", False, " go"),
        ("I would", "go to Rome", False, " go to"),
        ("I would ", "go", True, "go"),
        ("Rome", ". It is", False, ". It"),
        ("Rome", "", True, ""),
        ("", "Donau", False, "Donau"),
        ("", "東京\ufffd", False, "東京"),
        ("", "東京\ufffd", True, "東京\ufffd"),
    ],
)
def test_whole_words_and_their_spaces(said: str, text: str, whole: bool, added: str) -> None:
    assert continued(said, text, whole) == added


def test_ways_to_ask_for_more(pair: BlackBoxPair) -> None:
    _, client = pair.clients()
    messages = [{"role": "user", "content": "Name a city."}]
    begun = {"role": "assistant", "content": "I"}
    flagged = client.asked(messages, "I")
    assert flagged == {"messages": [*messages, begun], "continue_final_message": True}
    client.endpoint = client.endpoint.replace(continuation="prefill")
    assert client.asked(messages, "I") == {"messages": [*messages, begun]}
    client.endpoint = client.endpoint.replace(continuation="instruction")
    (told,) = client.asked(messages, "I")["messages"]
    assert told["content"].startswith("Name a city.") and told["content"].endswith("of it: I)")
    assert client.asked(messages, "") == {"messages": messages}
