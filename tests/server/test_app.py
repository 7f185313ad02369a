"""Endpoints, as a program sees them."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest

from baco_integrations import Decoder, SamplingParams
from tests.server.serving import Serving, serving

ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "Name a place to visit."}]}


def chat(served: Serving, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.api}/chat/completions", json={**ASKED, **body}, timeout=60)


def chunks(served: Serving, path: str = "chat/completions", **body: Any) -> list[Any]:
    """Return a stream's chunks, without the last line, which says that it is done."""
    lines = httpx.post(
        f"{served.api}/{path}", json={**ASKED, **body, "stream": True}, timeout=60
    ).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_same_seed_same_text_as_the_decoder(served: Serving, local: Decoder) -> None:
    params = SamplingParams(gamma=0.8, n=3, seed=5, alternatives=2)
    here = local.generate(ASKED["messages"], params)
    answer = chat(served, gamma=0.8, n=3, seed=5, logprobs=True, top_logprobs=2).json()
    assert [c["message"]["content"] for c in answer["choices"]] == [each.text for each in here]
    for choice, completion in zip(answer["choices"], here, strict=True):
        tokens = choice["logprobs"]["content"]
        assert [t["baco"]["source"] for t in tokens] == [s.source for s in completion.steps]
        for token, step in zip(tokens, completion.steps, strict=True):
            assert token["logprob"] == pytest.approx(math.log(step.p_sampled))
            assert token["baco"]["p_base"] == pytest.approx(step.p_base)
            assert bytes(token["bytes"]).decode("utf-8", "replace") == token["token"]
        assert choice["baco"]["base_share"] == completion.base_share


def test_streams_say_the_same(served: Serving) -> None:
    whole = chat(served, n=2, seed=3, logprobs=True).json()
    options = {"include_usage": True}
    came = chunks(served, n=2, seed=3, logprobs=True, stream_options=options)
    assert came[-1]["choices"] == [] and came[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in came[:-1])
    for index, choice in enumerate(whole["choices"]):
        mine = [c for chunk in came for c in chunk["choices"] if c["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(each["delta"].get("content") or "" for each in mine)
        assert text == choice["message"]["content"]
        tokens = [t for each in mine if each["logprobs"] for t in each["logprobs"]["content"]]
        assert tokens == choice["logprobs"]["content"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
        assert mine[-1]["baco"] == choice["baco"]


def test_no_usage_unless_asked(served: Serving) -> None:
    assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks(served, seed=1))


def test_settings_in_the_models_id(served: Serving) -> None:
    named = chat(served, model="tiny@gamma=0.9,router=h", seed=1).json()["choices"][0]["baco"]
    assert (named["gamma"], named["router"]) == (0.9, "h")
    body = chat(served, model="tiny@gamma=0.9", gamma=0.2).json()["choices"][0]["baco"]
    assert body["gamma"] == 0.2


def test_fields_without_meaning_are_listed(served: Serving) -> None:
    body = {"logit_bias": {"3": 1}, "frequency_penalty": 0.5, "presence_penalty": 0, "é\n": 1}
    header = chat(served, max_tokens=1, **body).headers["x-baco-ignored"]
    assert header == "logit_bias, frequency_penalty, \\xe9\\n"
    assert "x-baco-ignored" not in chat(served, max_tokens=1, user="me").headers


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"gamma": 2}, 400, "gamma", "invalid_value"),
        ({"temperature": "hot"}, 400, "temperature", "invalid_value"),
        ({"messages": []}, 400, "messages", "invalid_value"),
        ({"messages": "hello"}, 400, "messages", "invalid_value"),
        ({"model": None}, 400, "model", "invalid_value"),
        ({"model": "gpt-4"}, 404, "model", "model_not_found"),
        ({"model": "tiny@gama=1"}, 400, "model", "invalid_value"),
        ({"n": 1000}, 400, "n", "invalid_value"),
        ({"response_format": {"type": "xml"}}, 400, "response_format", "invalid_value"),
        ({"gamma": 0.1, "threshold": 0.1}, 400, "threshold", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": "word " * 5000}]},
            *(400, "messages", "context_length_exceeded"),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            *(400, "messages[0].content[0]", "invalid_value"),
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors(
    served: Serving, body: dict[str, Any], status: int, param: str, code: str, stream: bool
) -> None:
    answer = chat(served, stream=stream, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert error["type"] == "invalid_request_error" and error["message"]


def test_a_message_may_come_in_parts_and_from_a_developer(served: Serving) -> None:
    parts = [{"type": "text", "text": "Name a place"}, {"type": "text", "text": " to visit."}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": parts},
    ]
    plain = [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Be kind."},
        ASKED["messages"][0],
    ]
    assert (
        chat(served, messages=messages, seed=2).json()["choices"]
        == (chat(served, messages=plain, seed=2).json()["choices"])
    )


def test_models_and_their_defaults() -> None:
    with serving(defaults={"gamma": 0.1}) as served:
        (told,) = httpx.get(f"{served.api}/models").json()["data"]
        assert told["id"] == "tiny" and told["baco"]["defaults"] == {"gamma": 0.1}
        assert told["baco"]["loaded"] is False  # on first use
        assert chat(served).json()["choices"][0]["baco"]["gamma"] == 0.1
        assert httpx.get(f"{served.api}/models/tiny").json()["baco"]["loaded"] is True
        assert httpx.get(f"{served.api}/models/huge").status_code == 404
