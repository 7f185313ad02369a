"""The LLM as LlamaIndex sees it."""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
import math
import pickle
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.prompts import PromptTemplate

from baco_integrations import BacoError, ModelPair, SamplingParams, ScriptedPair
from baco_integrations.api.data import provenance
from baco_integrations.core.errors import MissingExtraError, ParameterError, PromptError
from baco_integrations.llama_index import BACoLLM
from baco_integrations.llama_index.messages import conversation_of
from tests.scripted import Meeting, cities, endless, idle

CITY = [ChatMessage(role="user", content="City?")]


@pytest.fixture
def llm() -> BACoLLM:
    return BACoLLM(pair=cities())


# -- the eight ways of asking ----------------------------------------------------------------------


async def _ask_in_every_way(llm: BACoLLM, **settings: Any) -> tuple[list[Any], list[list[Any]]]:
    whole = [
        llm.chat(CITY, **settings),
        await llm.achat(CITY, **settings),
        llm.complete("City?", **settings),
        await llm.acomplete("City?", **settings),
    ]
    streamed = [
        list(llm.stream_chat(CITY, **settings)),
        [piece async for piece in await llm.astream_chat(CITY, **settings)],
        list(llm.stream_complete("City?", **settings)),
        [piece async for piece in await llm.astream_complete("City?", **settings)],
    ]
    return whole, streamed


def _text(response: Any) -> str:
    return str(response.message.content if hasattr(response, "message") else response.text)


@pytest.mark.parametrize("pair", ["tiny", cities()], ids=["tiny", "scripted"])
async def test_every_way_of_asking_gives_the_same(pair: Any) -> None:
    whole, streamed = await _ask_in_every_way(BACoLLM(pair=pair), gamma=0.9, seed=4, max_tokens=40)
    text = _text(whole[0])
    for response in whole:
        assert _text(response) == text
        assert response.raw == whole[0].raw
    for pieces in streamed:
        for piece, following in zip(pieces, pieces[1:], strict=False):
            assert _text(following) == _text(piece) + following.delta
        assert "".join(piece.delta for piece in pieces) == _text(pieces[-1]) == text
        assert [piece.raw for piece in pieces[:-1]] == [{}] * (len(pieces) - 1)
        assert pieces[-1].raw == whole[0].raw
        assert len(pieces) == whole[0].raw["usage"]["completion_tokens"] + 1


def test_a_response_tells_how_it_came_about(llm: BACoLLM) -> None:
    response = llm.chat(CITY, gamma=0.9, seed=4)
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    totals = {
        "model": "scripted",
        "finish_reason": "stop",
        "gamma": 0.9,
        "router": "p-punc",
        "base_share": pytest.approx(1 / 3),
        "switches": 1,
        "seed": 4,
    }
    assert response.message.role == MessageRole.ASSISTANT
    sources, said = response.raw.pop("sources"), response.message.content
    assert sources[0][0] == "base" and "".join(text for _, text in sources) == said
    assert response.raw == {"usage": usage, **totals}
    assert response.additional_kwargs == {**usage, **totals}


async def test_tokens_tell_where_they_come_from_if_alternatives_are_asked_for(
    llm: BACoLLM,
) -> None:
    plain, _ = await _ask_in_every_way(llm, gamma=0.9, seed=4)
    whole, streamed = await _ask_in_every_way(llm, gamma=0.9, seed=4, alternatives=3)
    [completion] = llm.decoder.generate("City?", SamplingParams(gamma=0.9, seed=4, alternatives=3))
    told = [provenance(step) for step in completion.steps]
    likely = [
        [(each.text, each.probability) for each in step.alternatives["sampled"]]  # type: ignore[index]
        for step in completion.steps
    ]
    assert {"base", "aligned"} == {step["source"] for step in told}
    for response, without in zip(whole, plain, strict=True):
        assert response.raw == {**without.raw, "tokens": told}
        assert response.additional_kwargs == without.additional_kwargs
        assert without.logprobs is None
        assert [
            [(each.token, pytest.approx(math.exp(each.logprob))) for each in token]
            for token in response.logprobs
        ] == likely
        assert bytes(response.logprobs[0][0].bytes).decode() == response.logprobs[0][0].token
        assert len(json.loads(response.model_dump_json())["raw"]["tokens"]) == len(told)
    for pieces in streamed:
        assert [piece.raw for piece in pieces[:-1]] == [{"tokens": [each]} for each in told]
        assert sum((piece.logprobs for piece in pieces[:-1]), []) == whole[0].logprobs
        assert (pieces[-1].raw, pieces[-1].logprobs) == (plain[0].raw, None)


def test_a_completion_is_one_user_message() -> None:
    seen: list[str] = []

    def script(context: Any) -> dict[str, float]:
        seen.append(context.prompt)
        return {" yes": 1.0}

    pair = ScriptedPair(script, script, vocabulary=[" yes"])
    llm = BACoLLM(pair=pair, max_tokens=1, completion_to_prompt=lambda prompt: f"<{prompt}>")
    llm.complete("a")
    llm.complete("a", formatted=True)
    assert list(dict.fromkeys(seen)) == ["user: <a>", "user: a"]
    assert llm.predict(PromptTemplate("{x}"), x="b") == "yes"


def test_gamma_per_object_call_and_copy(llm: BACoLLM) -> None:
    varied = ("Oslo.", "Bergen.")
    assert _text(BACoLLM(pair=llm.pair, gamma=0.9).complete("City?")) in varied
    assert _text(llm.complete("City?", gamma=0.9)) in varied
    assert _text(llm.complete("City?", gamma=0)) == "Rome."
    bold = llm.with_gamma(0.9)
    assert _text(bold.complete("City?")) in varied
    assert (bold.decoder, llm.gamma) == (llm.decoder, None)
    assert bold.callback_manager is llm.callback_manager


async def test_bad_settings_are_refused_per_object_and_per_call(llm: BACoLLM) -> None:
    for given, says in (({"gamma": 2}, "gamma must be"), ({"gama": 0.5}, "Did you mean 'gamma'")):
        with pytest.raises(BacoError, match=says):
            BACoLLM(pair="tiny", **given)
        with pytest.raises(BacoError, match=says):
            llm.chat(CITY, **given)
        with pytest.raises(BacoError, match=says):
            llm.stream_complete("City?", **given)  # at once, not at the first token
        with pytest.raises(BacoError, match=says):
            await llm.astream_chat(CITY, **given)
    with pytest.raises(ParameterError, match="gamma must be"):
        llm.with_gamma(-1)
    several = r"n must be left out.*got 2\. For several, gather calls.*BreadthQueryEngine"
    with pytest.raises(ParameterError, match=several):
        llm.complete("City?", n=2)
    with pytest.raises(ParameterError, match=several):
        BACoLLM(pair="tiny", n=2)


def test_how_messages_are_rendered_is_said_elsewhere() -> None:
    with pytest.raises(ParameterError, match="messages_to_prompt must be left out.*base_prompt"):
        BACoLLM(pair="tiny", messages_to_prompt=str)
    llm = BACoLLM(pair="tiny", messages_to_prompt=None, system_prompt="Be kind.")
    for same in (
        pickle.loads(pickle.dumps(llm)),
        copy.deepcopy(llm),
        BACoLLM.from_dict(llm.to_dict()),
        llm.with_gamma(0.3),
    ):
        assert (same.decoder, same.system_prompt) == (llm.decoder, "Be kind.")


# -- callbacks -------------------------------------------------------------------------------------


class Events(BaseEventHandler):
    names: list[str] = []

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.names.append(event.class_name())


@pytest.fixture
def events() -> Iterator[Events]:
    handler, root = Events(), get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


async def test_events_and_token_counts(events: Events) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    llm = BACoLLM(pair=cities(), callback_manager=CallbackManager([counter]))
    await _ask_in_every_way(llm)
    assert events.names.count("LLMChatStartEvent") == events.names.count("LLMChatEndEvent") == 4
    assert events.names.count("LLMCompletionStartEvent") == 4
    assert events.names.count("LLMCompletionEndEvent") == 4
    assert events.names.count("LLMChatInProgressEvent") == 8
    assert counter.prompt_llm_token_count == 8 * 11
    assert counter.completion_llm_token_count == 8 * 3


# -- stopping and sharing the loop -----------------------------------------------------------------


async def test_closing_a_stream_frees_the_row() -> None:
    llm = BACoLLM(pair=endless(0.002), max_tokens=4000)
    stream = llm.stream_chat(CITY)
    next(stream)
    stream.close()
    assert await asyncio.to_thread(idle, llm.decoder)
    astream = await llm.astream_complete("City?")
    await anext(astream)
    await astream.aclose()
    assert await asyncio.to_thread(idle, llm.decoder)
    del stream, astream
    llm.stream_chat(CITY)  # never begun
    assert await asyncio.to_thread(idle, llm.decoder)
    assert llm.decoder.metrics.tokens < 1000


async def test_a_cancelled_task_frees_the_row_and_the_loop_ticks() -> None:
    llm = BACoLLM(pair=endless(0.002), max_tokens=4000)
    task = asyncio.create_task(llm.achat(CITY))
    ticks, started = 0, time.monotonic()
    while llm.decoder.metrics.tokens < 20 and time.monotonic() < started + 10:
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 5
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(idle, llm.decoder)


async def test_the_loop_ticks_while_the_models_load(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ModelPair.tiny
    monkeypatch.setattr(ModelPair, "tiny", lambda **options: (time.sleep(0.3), tiny())[1])
    task = asyncio.create_task(BACoLLM(pair="tiny", trust_remote_code=True).achat(CITY))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 50
    assert _text(await task)


async def test_concurrent_calls_meet_in_one_batch() -> None:
    llm = BACoLLM(pair=Meeting(24), max_tokens=100)
    await asyncio.gather(*(llm.acomplete(f"Number {i}.") for i in range(24)))
    assert llm.decoder.metrics.largest_batch == 24


# -- identity --------------------------------------------------------------------------------------


def test_metadata_names_the_smaller_context() -> None:
    pair = cities()
    pair.context = (2048, 512)
    metadata = BACoLLM(pair=pair, max_tokens=9).metadata
    assert (metadata.context_window, metadata.num_output) == (512, 9)
    assert (metadata.model_name, metadata.is_chat_model) == ("scripted", True)
    assert metadata.is_function_calling_model and metadata.system_role == MessageRole.SYSTEM


def test_metadata_loads_the_models_only_where_nothing_else_tells_their_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    llm = BACoLLM(pair="tiny")
    loaded = llm.decoder
    monkeypatch.setattr(BACoLLM, "decoder", property(lambda self: pytest.fail("was loaded")))
    assert llm.metadata.context_window == min(loaded.pair.context)
    monkeypatch.setattr(BACoLLM, "decoder", loaded)
    monkeypatch.setattr(BACoLLM, "context_window", lambda self, fetch: None)
    assert llm.metadata.context_window == min(loaded.pair.context)


def test_dicts_payloads_and_pickles_carry_settings_only() -> None:
    llm = BACoLLM(pair="tiny", gamma=0.3, token="hf_secret")
    data = llm.to_dict()
    assert (data["class_name"], data["gamma"], data["pair"]) == ("BACoLLM", 0.3, "tiny")
    assert "secret" not in str(data) + str(llm.to_payload()) + llm.to_json()
    assert llm.to_payload()["gamma"] == 0.3
    assert llm.with_gamma(0.4).to_dict() != data
    assert BACoLLM.from_dict(data).decoder is llm.decoder
    assert pickle.loads(pickle.dumps(llm)).decoder is llm.decoder
    with pytest.raises(ParameterError, match="not pickled"):
        pickle.dumps(BACoLLM(pair=ModelPair.tiny()))
    loaded = [ModelPair.tiny(), ModelPair.tiny(), ModelPair.tiny(base_prompt="plain")]
    told = [BACoLLM(pair=pair).to_dict()["pair"] for pair in loaded]
    assert told[0] == told[1] != told[2]


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("baco_integrations.llama_index")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "llama_index.core", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'baco-integrations\[llama-index\]'"):
        importlib.import_module("baco_integrations.llama_index")


# -- messages --------------------------------------------------------------------------------------


def test_messages_of_every_kind_become_a_conversation() -> None:
    call = ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={"at": "map"})
    messages = [
        ChatMessage(role="developer", content="Be kind."),
        ChatMessage(role="user", blocks=[TextBlock(text="A city,"), TextBlock(text="please.")]),
        ChatMessage(role="assistant", blocks=[ThinkingBlock(content="hm"), call]),
        ChatMessage(role="tool", content="Oslo", additional_kwargs={"tool_call_id": "c1"}),
        ChatMessage(role="model", content="Oslo."),
    ]
    function = {"name": "look", "arguments": {"at": "map"}}
    assert conversation_of(messages) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "A city,\nplease."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "id": "c1", "function": function}],
        },
        {"role": "tool", "content": "Oslo", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Oslo."},
    ]


def test_half_a_character_is_refused(llm: BACoLLM) -> None:
    with pytest.raises(PromptError, match=r"messages\[0\]\['content'\] must be whole characters"):
        llm.complete("A gift \ud835")


def test_what_is_not_text_is_refused(llm: BACoLLM) -> None:
    with pytest.raises(PromptError, match=r"messages\[0\].blocks must be text.*image"):
        llm.chat([ChatMessage(role="user", blocks=[ImageBlock(url="http://x.y/z.png")])])


def test_no_gamma_is_no_gamma() -> None:
    with pytest.raises(ParameterError, match="gamma must be a number from 0"):
        BACoLLM(pair="tiny").with_gamma(None)  # type: ignore[arg-type]


def test_prompt_helpers_have_room_left() -> None:
    metadata = BACoLLM(pair="tiny", max_tokens=4000).metadata
    assert metadata.num_output < metadata.context_window
