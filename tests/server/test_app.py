"""Endpoints, as a program sees them."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from baco_integrations import Decoder, SamplingParams
from baco_integrations.api import responses
from baco_integrations.core.params import DEFAULT_GAMMA
from baco_integrations.server import ServedPairs, answers
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


def alike(one: Any, other: Any) -> bool:
    """Compare JSON; what shares the batch changes last bits of probabilities."""
    if isinstance(one, float):
        return isinstance(other, float) and math.isclose(one, other, abs_tol=1e-3)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


def test_same_seed_same_text_as_the_decoder(served: Serving, local: Decoder) -> None:
    params = SamplingParams(gamma=0.8, n=3, seed=5, alternatives=2)
    here = local.generate(ASKED["messages"], params)
    answer = chat(served, gamma=0.8, n=3, seed=5, logprobs=True, top_logprobs=2).json()
    assert [c["message"]["content"] for c in answer["choices"]] == [each.text for each in here]
    for choice, completion in zip(answer["choices"], here, strict=True):
        tokens = choice["logprobs"]["content"]
        assert [t["baco"]["source"] for t in tokens] == [s.source for s in completion.steps]
        for token, step in zip(tokens, completion.steps, strict=True):
            assert token["logprob"] == pytest.approx(math.log(step.p_sampled), abs=1e-4)
            assert token["baco"]["p_base"] == pytest.approx(step.p_base, abs=1e-4)
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
        assert alike(tokens, choice["logprobs"]["content"])
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
        assert mine[-1]["baco"] == choice["baco"]


@pytest.mark.parametrize(("path", "logprobs"), [("chat/completions", True), ("completions", 1)])
def test_long_answers_are_written_beside_the_event_loop(
    served: Serving, path: str, logprobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def written(*given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return responses.token_of(*given)

    monkeypatch.setattr(answers, "token_of", written)
    body = {**ASKED, "prompt": "The", "max_tokens": 2, "logprobs": logprobs}
    httpx.post(f"{served.api}/{path}", json=body, timeout=60).raise_for_status()
    assert threads and "server" not in threads


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
    blank = chat(served, max_tokens=1, prompt="x", **{"": 1, " ": 2, "x" * 39 + " y": 4})
    assert blank.headers["x-baco-ignored"] == f"prompt, {'x' * 39}"


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


def test_a_router_takes_only_the_defaults_that_go_with_it() -> None:
    with serving(defaults={"router": "h", "threshold": 1.5}) as served:
        made = [chat(served, **body).json() for body in ({}, {"router": "p"}, {"router": "punc"})]
    told = [each["choices"][0]["baco"] for each in made]
    assert [each["router"] for each in told] == ["h", "p", "punc"]
    assert [each["gamma"] for each in told] == [pytest.approx(math.exp(-1.5)), DEFAULT_GAMMA, None]
    with serving(defaults={"gamma": 0.1}) as served:
        made = [chat(served, router=name).json() for name in ("h", "fc")]
    assert [each["choices"][0]["baco"]["gamma"] for each in made] == [0.1, None]


# -- completions -----------------------------------------------------------------------------------


def complete(served: Serving, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.api}/completions", json={"model": "tiny", **body}, timeout=60)


def test_completions_go_on_with_a_text(served: Serving, local: Decoder) -> None:
    params = SamplingParams(raw=True, n=2, seed=4, max_tokens=8, alternatives=2)
    asked = {"n": 2, "seed": 4, "max_tokens": 8, "logprobs": 2}
    prompts = ["Q: Suggest a hobby.\nA:", "I would"]
    here = [each for prompt in prompts for each in local.generate(prompt, params)]
    answer = complete(served, prompt=prompts, **asked).json()
    assert [choice["text"] for choice in answer["choices"]] == [each.text for each in here]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    for choice, completion in zip(answer["choices"], here, strict=True):
        told = choice["logprobs"]
        assert told["token_logprobs"] == pytest.approx(
            [math.log(step.p_sampled) for step in completion.steps], abs=1e-4
        )
        ends = [*told["text_offset"][1:], len(choice["text"])]
        pieces = [choice["text"][a:b] for a, b in zip(told["text_offset"], ends, strict=True)]
        assert pieces == [step.text for step in completion.steps]
    one = complete(served, prompt=prompts[1], **asked).json()["choices"]
    assert [each["text"] for each in one] == [each.text for each in here[2:]]


def test_completions_stream_the_same(served: Serving) -> None:
    body = {"prompt": ["I would", "My"], "n": 2, "seed": 4, "max_tokens": 6, "logprobs": 1}
    whole = complete(served, **body).json()
    came = chunks(served, "completions", **body, messages=None)
    for choice in whole["choices"]:
        mine = [c for chunk in came for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(each["text"] for each in mine) == choice["text"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
        for name in ("tokens", "token_logprobs", "text_offset", "baco"):
            listed = [one for each in mine if each["logprobs"] for one in each["logprobs"][name]]
            assert alike(listed, choice["logprobs"][name])


def test_token_ids_are_a_prompt(served: Serving, local: Decoder) -> None:
    ids = local.pair.encode("I would")
    text = complete(served, prompt="I would", seed=1, max_tokens=5).json()["choices"][0]["text"]
    assert complete(served, prompt=ids, seed=1, max_tokens=5).json()["choices"][0]["text"] == text
    both = complete(served, prompt=[ids, ids], seed=1, max_tokens=5).json()["choices"]
    assert [each["text"] for each in both] == [text, text]


def test_the_prompt_can_be_repeated(served: Serving) -> None:
    body = {"prompt": "I would", "seed": 1, "max_tokens": 5}
    text = complete(served, **body).json()["choices"][0]["text"]
    assert complete(served, **body, echo=True).json()["choices"][0]["text"] == "I would" + text
    came = chunks(served, "completions", **body, echo=True, messages=None)
    assert "".join(chunk["choices"][0]["text"] for chunk in came) == "I would" + text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": ["a", [1]]}, None),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
        ({"prompt": ["a"] * 200}, "prompt"),
        ({}, "prompt"),
    ],
)
def test_completion_errors(served: Serving, body: dict[str, Any], param: str | None) -> None:
    answer = complete(served, max_tokens=3, **body)
    assert answer.status_code == (200 if param is None else 400)
    assert param is None or answer.json()["error"]["param"] == param


def test_an_answer_goes_on_where_it_was_cut(served: Serving) -> None:
    whole = chat(served, router="aligned", temperature=0).json()["choices"][0]["message"]["content"]
    begun, rest = whole[: whole.index(" ") + 1].rstrip(), whole[whole.index(" ") :]
    messages = [*ASKED["messages"], {"role": "assistant", "content": begun}]
    more = {"messages": messages, "continue_final_message": True}
    answer = chat(served, router="aligned", temperature=0, **more).json()
    assert answer["choices"][0]["message"]["content"] == rest


# -- pairs -----------------------------------------------------------------------------------------


def test_pairs_are_loaded_on_first_use_and_a_broken_one_harms_no_other(tmp_path: Path) -> None:
    for side in ("base", "aligned"):
        (tmp_path / side).mkdir()
    broken = (str(tmp_path / "base"), str(tmp_path / "aligned"))
    with serving({"tiny": "tiny", "broken": broken}) as served:
        for _ in range(2):  # the next request tries again
            answer = chat(served, model="broken")
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "model_unavailable"
        with ThreadPoolExecutor(8) as threads:  # all ask before it is loaded
            answers = list(threads.map(lambda _: chat(served, seed=1).json(), range(8)))
        assert len({each["choices"][0]["message"]["content"] for each in answers}) == 1
        told = httpx.get(f"{served.api}/models").json()["data"]
        assert [each["baco"]["loaded"] for each in told] == [True, False]


async def test_a_pair_is_there_although_who_asked_for_it_has_gone() -> None:
    pairs = ServedPairs({"tiny": "tiny"})
    (served,) = pairs
    asking = asyncio.create_task(pairs.decoder(served))
    await asyncio.sleep(0)
    assert served.opening is not None
    asking.cancel()
    decoder = await served.opening
    assert served.decoder is decoder and served.opening is None
    pairs.close()
    assert decoder.closed
