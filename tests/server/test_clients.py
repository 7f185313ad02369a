"""The official client of OpenAI's API, as its users write it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import httpx
import openai
import pytest
from jsonschema import validate
from pydantic import BaseModel

from baco_integrations import Decoder
from tests.scripted import endless, eventually
from tests.server.serving import Serving, serving

ASKED: Any = [{"role": "user", "content": "Name a place to visit."}]
GIFT: Any = [{"role": "user", "content": "Suggest a gift for a friend."}]
WIDE: Any = {"gamma": 0.6, "router": "p-punc"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "find_ideas",
        "description": "Suggests ideas for a request.",
        "parameters": {
            "type": "object",
            "properties": {"request": {"type": "string"}},
            "required": ["request"],
        },
    },
}


class Gift(BaseModel):
    """A gift for somebody."""

    idea: str
    reason: str
    effort: Literal["low", "medium", "high"]


@pytest.fixture(scope="module")
def client(served: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.api, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
async def aclient(served: Serving) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=served.api, api_key="EMPTY") as made:
        yield made


def texts(answer: Any) -> list[str]:
    return [choice.message.content for choice in answer.choices]


def test_one_seed_says_what_the_decoder_says(client: openai.OpenAI, local: Decoder) -> None:
    asked: Any = {"model": "tiny", "messages": ASKED, "n": 4, "seed": 4, "extra_body": WIDE}
    answer = client.chat.completions.create(**asked)
    here = local.generate(ASKED, **WIDE, n=4, seed=4)
    assert texts(answer) == [completion.text for completion in here]
    assert texts(answer) == texts(client.chat.completions.create(**asked))
    assert len(set(texts(answer))) > 1
    told = [choice.model_extra["baco"] for choice in answer.choices if choice.model_extra]
    assert [each["seed"] for each in told] == [completion.seed for completion in here]
    assert [each["base_share"] for each in told] == [c.base_share for c in here]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}
    assert answer.usage is not None and answer.system_fingerprint
    assert answer.usage.completion_tokens == sum(c.usage.completion_tokens for c in here)
    assert answer.usage.prompt_tokens == here[0].usage.prompt_tokens


def test_without_a_seed_answers_differ(client: openai.OpenAI) -> None:
    said = [client.chat.completions.create(model="tiny", messages=ASKED) for _ in range(6)]
    assert len({texts(answer)[0] for answer in said}) > 1


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_has_every_choice_and_perhaps_the_usage(
    client: openai.OpenAI, local: Decoder, usage: bool
) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    asked: Any = {"model": "tiny", "messages": ASKED, "n": 3, "seed": 7, "extra_body": WIDE}
    said, ends, last = ["", "", ""], {}, None
    for chunk in client.chat.completions.create(**asked, stream=True, **options):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
        last = chunk
    assert said == [c.text for c in local.generate(ASKED, **WIDE, n=3, seed=7)]
    assert ends == {0: "stop", 1: "stop", 2: "stop"} and last is not None
    if usage:
        assert not last.choices and last.usage is not None
        assert last.usage == client.chat.completions.create(**asked).usage
    else:
        assert last.choices and last.usage is None


async def test_async_calls_and_streams_meet(aclient: openai.AsyncOpenAI, local: Decoder) -> None:
    async def ask(seed: int) -> str:
        answer = await aclient.chat.completions.create(
            model="tiny", messages=ASKED, seed=seed, extra_body=WIDE
        )
        return answer.choices[0].message.content or ""

    async def stream(seed: int) -> str:
        asked: Any = {"model": "tiny", "messages": ASKED, "seed": seed, "extra_body": WIDE}
        parts = await aclient.chat.completions.create(**asked, stream=True)
        return "".join([part.choices[0].delta.content or "" async for part in parts])

    said = await asyncio.gather(*map(ask, range(5)), *map(stream, range(5)))
    here = [local.generate(ASKED, **WIDE, seed=seed)[0].text for seed in range(5)]
    assert said == here * 2


def test_tokens_tell_their_source_and_probabilities(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=ASKED, seed=2, logprobs=True, top_logprobs=3, extra_body=WIDE
    )
    [choice] = answer.choices
    assert choice.logprobs is not None and choice.logprobs.content
    tokens = choice.logprobs.content
    told = [token.model_extra["baco"] for token in tokens if token.model_extra]
    assert "".join(each["text"] for each in told) == choice.message.content
    assert {each["source"] for each in told} == {"base", "aligned"}
    for token, each in zip(tokens, told, strict=True):
        assert math.exp(token.logprob) == pytest.approx(each["p_sampled"])
        assert 1 <= len(token.top_logprobs) <= 3
        best = max(math.exp(top.logprob) for top in token.top_logprobs)
        assert math.exp(token.logprob) <= best + 1e-9 <= 1 + 2e-9
        assert bytes(token.bytes or []).decode("utf-8", "replace") == token.token
        assert {"base", "aligned"} <= each["alternatives"].keys()


def test_stop_and_length_say_why_they_ended(client: openai.OpenAI, local: Decoder) -> None:
    whole = local.generate(ASKED, seed=3)[0].text
    word = whole.split()[2]
    asked: Any = {"model": "tiny", "messages": ASKED, "seed": 3}
    stopped = client.chat.completions.create(**asked, stop=[word]).choices[0]
    assert (stopped.message.content or "").rstrip() == whole[: whole.index(word)].rstrip()
    assert stopped.finish_reason == "stop"
    for limit in ("max_tokens", "max_completion_tokens"):
        short = client.chat.completions.create(**asked, **{limit: 2})
        assert short.choices[0].finish_reason == "length"
        assert short.usage is not None and short.usage.completion_tokens == 2


def test_tools_are_called_and_their_results_answered(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "tools": [TOOL], "seed": 5, "extra_body": {"gamma": 0.1}}
    answer = client.chat.completions.create(messages=GIFT, tool_choice="required", **asked)
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls
    [call] = choice.message.tool_calls
    assert call.type == "function" and call.function.name == "find_ideas"
    validate(json.loads(call.function.arguments), TOOL["function"]["parameters"])

    parts: dict[str, str] = {"id": "", "name": "", "arguments": ""}
    for chunk in client.chat.completions.create(
        messages=GIFT, tool_choice="required", stream=True, **asked
    ):
        for piece in chunk.choices[0].delta.tool_calls or []:
            assert piece.index == 0 and piece.function is not None
            parts["id"] += piece.id or ""
            parts["name"] += piece.function.name or ""
            parts["arguments"] += piece.function.arguments or ""
    assert parts["id"] and parts["name"] == "find_ideas"
    assert json.loads(parts["arguments"]) == json.loads(call.function.arguments)

    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "a puzzle\na globe"}
    history: Any = [*GIFT, choice.message.model_dump(exclude_none=True), result]
    final = client.chat.completions.create(messages=history, **asked).choices[0]
    assert final.finish_reason == "stop" and final.message.content


def test_tool_choice_none_calls_nothing_and_a_name_calls_that(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": GIFT, "tools": [TOOL], "seed": 1}
    answer = client.chat.completions.create(**asked, tool_choice="none")
    assert not answer.choices[0].message.tool_calls
    named: Any = {"type": "function", "function": {"name": "find_ideas"}}
    answer = client.chat.completions.create(**asked, tool_choice=named)
    assert answer.choices[0].message.tool_calls


def test_structured_answers_follow_their_schema(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": GIFT, "seed": 3, "extra_body": WIDE}
    several = client.chat.completions.parse(**asked, response_format=Gift, n=3)
    gifts = [choice.message.parsed for choice in several.choices]
    assert len({gift.idea for gift in gifts if gift}) > 1
    with client.chat.completions.stream(**asked, response_format=Gift) as stream:
        streamed = stream.get_final_completion().choices[0].message.parsed
    assert streamed == gifts[0]
    schema = {"name": "gift", "schema": Gift.model_json_schema(), "strict": True}
    form: Any = {"type": "json_schema", "json_schema": schema}
    [given] = texts(client.chat.completions.create(**asked, response_format=form))
    assert Gift.model_validate_json(given) == gifts[0]
    form = {"type": "json_object"}
    [given] = texts(client.chat.completions.create(**asked, response_format=form))
    assert isinstance(json.loads(given), dict)


def test_models_are_listed_and_ids_may_carry_settings(
    client: openai.OpenAI, local: Decoder
) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "baco"
    answer = client.chat.completions.create(
        model="tiny@gamma=0.9,router=h", messages=ASKED, seed=6, n=4
    )
    here = local.generate(ASKED, gamma=0.9, router="h", seed=6, n=4)
    assert texts(answer) == [completion.text for completion in here]
    assert answer.model == "tiny@gamma=0.9,router=h"


def test_completions_go_on_with_raw_text(client: openai.OpenAI, local: Decoder) -> None:
    start = "I would suggest"
    asked: Any = {"model": "tiny", "max_tokens": 12, "seed": 1, "extra_body": WIDE}
    answer = client.completions.create(prompt=start, n=2, logprobs=2, **asked)
    here = local.generate(start, raw=True, **WIDE, n=2, seed=1, max_tokens=12)
    assert [choice.text for choice in answer.choices] == [c.text for c in here]
    told = answer.choices[0].logprobs
    assert told is not None and told.tokens and told.top_logprobs
    assert len(told.tokens) == len(told.token_logprobs or []) == len(told.top_logprobs)
    several = client.completions.create(prompt=[start, "A place"], n=2, echo=True, **asked)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert [c.text.startswith(start) for c in several.choices] == [True, True, False, False]
    said = [""] * 4
    for chunk in client.completions.create(
        prompt=[start, "A place"], n=2, echo=True, stream=True, **asked
    ):
        for choice in chunk.choices:
            said[choice.index] += choice.text
    assert said == [choice.text for choice in several.choices]


def test_what_is_wrong_raises_the_class_that_the_client_has_for_it(
    client: openai.OpenAI,
) -> None:
    asked: Any = {"model": "tiny", "messages": ASKED}
    with pytest.raises(openai.BadRequestError, match="gamma must be a number from 0") as raised:
        client.chat.completions.create(**asked, extra_body={"gamma": 7})
    assert raised.value.param == "gamma" and raised.value.code == "invalid_value"
    long: Any = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="tiny", messages=long)
    assert raised.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError, match="tiny"):
        client.chat.completions.create(model="tyni", messages=ASKED)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_a_stream_that_cannot_begin_raises_before_its_first_chunk(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": ASKED, "stream": True}
    with pytest.raises(openai.BadRequestError, match="top_p"):
        client.chat.completions.create(**asked, top_p=7.0)


def test_keys_are_asked_for() -> None:
    with serving(api_keys=["right"]) as server:
        asked: Any = {"model": "tiny", "messages": ASKED, "max_tokens": 1}
        with openai.OpenAI(base_url=server.api, api_key="right") as client:
            assert client.chat.completions.create(**asked).choices
            with pytest.raises(openai.AuthenticationError) as raised:
                client.with_options(api_key="wrong").chat.completions.create(**asked)
            assert raised.value.code == "invalid_api_key"


async def test_a_full_queue_is_a_rate_limit() -> None:
    one = {"max_rows": 1, "max_waiting": 1}
    asked: Any = {"model": "endless", "messages": ASKED, "max_tokens": 100_000}
    with serving({"endless": endless(0.001)}, engine=one) as server:
        async with openai.AsyncOpenAI(base_url=server.api, api_key="none", max_retries=0) as client:
            running = await client.chat.completions.create(**asked, stream=True)
            waiting = asyncio.ensure_future(client.chat.completions.create(**asked))
            assert await asyncio.to_thread(eventually, lambda: server.decoder.waiting == 1)
            with pytest.raises(openai.RateLimitError) as raised:
                await client.chat.completions.create(**asked)
            assert raised.value.code == "queue_full"
            assert int(raised.value.response.headers["retry-after"]) >= 1
            waiting.cancel()
            await running.close()
        assert eventually(lambda: server.decoder.running + server.decoder.waiting == 0)


def test_fields_without_a_meaning_are_named(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="tiny",
        messages=ASKED,
        max_tokens=1,
        presence_penalty=0.5,
        frequency_penalty=0,
        user="somebody",
        extra_body={"repetition_penalty": 1.1},
    )
    assert raw.headers["x-baco-ignored"] == "presence_penalty, repetition_penalty"
    assert raw.parse().choices


async def test_noveltybench_asks_like_this(aclient: openai.AsyncOpenAI) -> None:
    """Many samples of one conversation, one answer after another, and a system prompt."""
    shared: Any = {"model": "tiny@gamma=0.6", "max_tokens": 512, "temperature": 1.0}
    system: Any = {"role": "system", "content": "Be brief."}
    kinds: Any = [(ASKED, 10), ([system, *ASKED], 10), (GIFT, 10)]
    answers = await asyncio.gather(
        *(aclient.chat.completions.create(messages=m, n=n, **shared) for m, n in kinds)
    )
    assert all(len(texts(answer)) == 10 and all(texts(answer)) for answer in answers)
    assert all(len(set(texts(answer))) > 1 for answer in answers)
    messages = list(ASKED)
    for _ in range(3):
        answer = await aclient.chat.completions.create(messages=messages, **shared)
        said: Any = {"role": "assistant", "content": texts(answer)[0]}
        more: Any = {"role": "user", "content": "Can you think of another one?"}
        messages += [said, more]
        assert texts(answer)[0]


def test_the_client_may_run_in_a_page_of_another_origin() -> None:
    """Before it calls, the browser asks whether the client's own headers are let through."""
    asks = {
        "Origin": "null",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    with serving(api_keys=["right"], allow_origins=["*"]) as server:
        where = f"{server.api}/chat/completions"
        assert httpx.options(where, headers=asks).status_code == 200
        refused = httpx.post(where, headers={"Origin": "null"}, json={})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "*"
