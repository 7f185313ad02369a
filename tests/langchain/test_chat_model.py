"""The chat model as LangChain sees it."""

from __future__ import annotations

import asyncio
import importlib
import pickle
import sys
import time
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, load
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda

from baco_integrations import BacoError, ModelPair
from baco_integrations.core.errors import MissingExtraError, ParameterError, PromptError
from baco_integrations.langchain import ChatBACo
from baco_integrations.langchain.messages import conversation_of
from tests.scripted import Meeting, cities, endless, eventually, idle


@pytest.fixture
def chat() -> ChatBACo:
    return ChatBACo(pair=cities())


# -- first contact ---------------------------------------------------------------------------------


def test_a_chain_runs_on_the_tiny_pair() -> None:
    prompt = ChatPromptTemplate.from_messages([("human", "Name a {thing}.")])
    chain = prompt | ChatBACo(pair="tiny", gamma=0.6) | StrOutputParser()
    assert chain.invoke({"thing": "city"})


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("baco_integrations.langchain")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'baco-integrations\[langchain\]'"):
        importlib.import_module("baco_integrations.langchain")


def test_bad_settings_are_refused_per_object_and_per_call(chat: ChatBACo) -> None:
    for given, says in (({"gamma": 2}, "gamma must be"), ({"gama": 0.5}, "Did you mean 'gamma'")):
        with pytest.raises(BacoError, match=says):
            ChatBACo(pair="tiny", **given)
        with pytest.raises(BacoError, match=says):
            chat.invoke("City?", **given)
    with pytest.raises(BacoError, match="Did you mean 'logprobs'"):
        chat.invoke("City?", logprob=True)


# -- what comes back -------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", ["tiny", cities()], ids=["tiny", "scripted"])
@pytest.mark.parametrize("name", ["api_key", "token"])
def test_a_secret_of_another_type_is_not_told(name: str, pair: Any) -> None:
    with pytest.raises(BacoError) as caught:
        ChatBACo(pair=pair, **{name: ["sk-secret"]})
    assert "sk-secret" not in f"{caught.value}{vars(caught.value)}"


def test_a_message_tells_how_it_came_about(chat: ChatBACo) -> None:
    answer = chat.invoke("City?", gamma=0.9, seed=3, logprobs=True)
    told = answer.response_metadata
    steps = told["logprobs"]
    assert answer.text in ("Oslo.", "Bergen.")
    assert [step["source"] for step in steps] == ["base", "aligned", "aligned"]
    assert answer.usage_metadata == {
        "input_tokens": len("user: City?"),
        "output_tokens": len(steps),
        "total_tokens": len("user: City?") + len(steps),
    }
    assert told["base_share"] == pytest.approx(1 / 3)
    expected = {
        "model_name": "scripted",
        "model_provider": "baco",
        "finish_reason": "stop",
        "gamma": 0.9,
        "router": "p-punc",
        "switches": 1,
        "seed": 3,
    }
    assert expected.items() <= told.items()
    assert told["sources"] == [["base", answer.text[:-1]], ["aligned", "."]]
    assert chat.invoke("City?", max_tokens=1).response_metadata["finish_reason"] == "length"


def test_gamma_per_object_call_binding_and_config(chat: ChatBACo) -> None:
    parser = StrOutputParser()
    configurable = chat.configurable_fields(gamma=ConfigurableField(id="gamma"))
    varied = [
        ChatBACo(pair=chat.pair, gamma=0.9).invoke("City?").text,
        chat.invoke("City?", gamma=0.9).text,
        (chat.bind(gamma=0.9) | parser).invoke("City?"),
        configurable.invoke("City?", config={"configurable": {"gamma": 0.9}}).text,
    ]
    assert set(varied) <= {"Oslo.", "Bergen."}
    assert chat.invoke("City?", gamma=0).text == "Rome."
    assert configurable.invoke("City?", config={"configurable": {"gamma": 0.0}}).text == "Rome."


def test_reconstruction_loads_once_and_still_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, tiny = [], ModelPair.tiny
    monkeypatch.setattr(ModelPair, "tiny", lambda **options: (loads.append(1), tiny(**options))[1])
    llm = ChatBACo(pair="tiny", attn_implementation="eager", max_tokens=2)
    configurable = llm.configurable_fields(gamma=ConfigurableField(id="gamma"))
    for step in range(100):
        configurable.invoke("Hi.", config={"configurable": {"gamma": step / 100}})
    assert len(loads) == 1
    chunks = list(configurable.stream("Hi.", config={"configurable": {"gamma": 0.5}}))
    assert len(chunks) == 3


def test_stop_of_the_call_overrides_that_of_the_object() -> None:
    llm = ChatBACo(pair=cities(), gamma=0, stop=["."])
    assert llm.invoke("City?").text == "Rome"
    assert llm.invoke("City?", stop=["me"]).text == "Ro"


def test_n_samples_are_n_generations(chat: ChatBACo) -> None:
    result = chat.generate([[HumanMessage("City?")]], n=20, gamma=0.9, seed=1)
    texts = [generation.text for generation in result.generations[0]]
    assert len(texts) == 20
    assert set(texts) == {"Oslo.", "Bergen."}
    assert result.llm_output == {
        "token_usage": {"prompt_tokens": 11, "completion_tokens": 60, "total_tokens": 71},
        "model_name": "scripted",
    }
    seeded = chat.bind(n=2, gamma=0.9, seed=1)
    assert "".join(chunk.text for chunk in seeded.stream("City?")) == seeded.invoke("City?").text


def test_tokens_are_counted_as_the_pair_reads_them() -> None:
    llm = ChatBACo(pair="tiny")
    messages = [HumanMessage("Name a city.")]
    pair = llm.decoder.pair
    assert llm.get_token_ids("a city") == pair.aligned_tokenizer.encode(
        "a city", add_special_tokens=False
    )
    assert llm.get_num_tokens("a city") == len(llm.get_token_ids("a city"))
    counted = llm.get_num_tokens_from_messages(messages)
    assert counted == llm.invoke(messages, max_tokens=1).usage_metadata["input_tokens"]
    assert ChatBACo(pair="tiny", custom_get_token_ids=lambda text: [1]).get_num_tokens("a b") == 1


# -- streaming -------------------------------------------------------------------------------------


async def _astreamed(llm: ChatBACo, **settings: Any) -> list[AIMessageChunk]:
    return [chunk async for chunk in llm.astream("Name a city.", **settings)]


@pytest.mark.parametrize("pair", ["tiny", cities()], ids=["tiny", "scripted"])
def test_streamed_and_whole_are_the_same(pair: Any) -> None:
    llm = ChatBACo(pair=pair, gamma=0.9, seed=7, logprobs=True)
    whole = llm.invoke("Name a city.")
    awhole = asyncio.run(llm.ainvoke("Name a city."))
    assert (whole.text, whole.response_metadata) == (awhole.text, awhole.response_metadata)
    for chunks in (list(llm.stream("Name a city.")), asyncio.run(_astreamed(llm))):
        assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
        assert [chunk.usage_metadata is not None for chunk in chunks].count(True) == 1
        assert [chunk.chunk_position for chunk in chunks].count("last") == 1
        joined = chunks[0]
        for chunk in chunks[1:]:
            joined += chunk
        assert joined.text == whole.text
        assert joined.usage_metadata == whole.usage_metadata
        assert {**whole.response_metadata, **joined.response_metadata} == whole.response_metadata
        assert len(joined.response_metadata["logprobs"]) == whole.usage_metadata["output_tokens"]


@pytest.mark.parametrize("n", [1, 3])
def test_a_stream_shows_the_first_of_several_samples(n: int) -> None:
    llm = ChatBACo(pair=cities(), gamma=0.9, seed=2, logprobs=True)
    first = llm.invoke("Name a city.", n=n)
    for chunks in (
        list(llm.stream("Name a city.", n=n)),
        asyncio.run(_astreamed(llm, n=n)),
        asyncio.run(_astreamed(ChatBACo(pair=llm.pair, gamma=0.9, seed=2, n=n, logprobs=True))),
    ):
        assert "".join(chunk.text for chunk in chunks) == first.text
        told = [
            step["token_id"] for c in chunks for step in c.response_metadata.get("logprobs", [])
        ]
        assert told == [step["token_id"] for step in first.response_metadata["logprobs"]]
        assert [chunk.chunk_position for chunk in chunks].count("last") == 1


class Listener(BaseCallbackHandler):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.tokens: list[str] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("start")

    def on_llm_new_token(self, token: str, *, chunk: Any = None, **kwargs: Any) -> None:
        assert chunk is not None
        self.tokens.append(token)

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("end")

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("error")


def test_callbacks_hear_every_token(chat: ChatBACo) -> None:
    for streamed in (chat.stream, lambda *a, **k: [chat.invoke(*a, stream=True, **k)]):
        listener = Listener()
        text = "".join(part.text for part in streamed("City?", {"callbacks": [listener]}))
        assert listener.events == ["start", "end"]
        assert "".join(listener.tokens) == text
    run = Listener()
    list(chat._stream([HumanMessage("City?")], run_manager=run, gamma=0))  # type: ignore[arg-type]
    assert "".join(run.tokens) == "Rome."
    failed = Listener()
    with pytest.raises(PromptError):
        chat.invoke(" ", {"callbacks": [failed]})
    assert failed.events == ["start", "error"]


async def test_events_reach_listeners(chat: ChatBACo) -> None:
    kinds = [event["event"] async for event in chat.astream_events("City?", version="v2")]
    assert kinds[0] == "on_chat_model_start"
    assert kinds[-1] == "on_chat_model_end"
    assert kinds.count("on_chat_model_stream") >= 3


async def test_a_listener_does_not_cost_samples(chat: ChatBACo) -> None:
    async def sampled(_: Any) -> int:
        return len((await chat.agenerate([[HumanMessage("City?")]], n=3)).generations[0])

    events = [event async for event in RunnableLambda(sampled).astream_events("", version="v2")]
    assert events[-1]["data"]["output"] == 3


def test_content_blocks_are_written_on_request() -> None:
    llm = ChatBACo(pair=cities(), gamma=0, output_version="v1")
    assert llm.invoke("City?").content == [{"type": "text", "text": "Rome."}]
    assert "".join(chunk.text for chunk in llm.stream("City?")) == "Rome."


# -- stopping and sharing the loop -----------------------------------------------------------------


def test_closing_a_stream_frees_the_row() -> None:
    llm = ChatBACo(pair=endless(0.002), max_tokens=4000)
    stream = llm.stream("Go.")
    next(stream)
    stream.close()
    assert idle(llm.decoder)
    assert llm.decoder.metrics.tokens < 1000


async def test_a_cancelled_task_frees_the_row_and_the_loop_ticks() -> None:
    llm = ChatBACo(pair=endless(0.002), max_tokens=4000)

    async def consume() -> None:
        async for _ in llm.astream("Go."):
            pass

    for asking in (llm.ainvoke("Go."), llm.abatch(["Go."] * 3), consume()):
        before = llm.decoder.metrics.tokens
        task = asyncio.ensure_future(asking)
        ticks, started = 0, time.monotonic()
        while llm.decoder.metrics.tokens < before + 20 and time.monotonic() < started + 10:
            await asyncio.sleep(0.001)
            ticks += 1
        assert ticks > 5
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(idle, llm.decoder)


async def test_closing_an_async_stream_frees_the_row() -> None:
    llm = ChatBACo(pair=endless(0.002), max_tokens=4000)
    stream = llm.astream("Go.")
    await anext(stream)
    await stream.aclose()
    assert await asyncio.to_thread(idle, llm.decoder)


# -- many inputs, one batch ------------------------------------------------------------------------


def test_a_batch_meets_in_one_batch() -> None:
    inputs = [f"Number {i}." for i in range(24)]
    ways = [
        lambda llm: llm.batch(inputs, return_exceptions=True),
        lambda llm: [answer for _, answer in llm.batch_as_completed(inputs)],
        lambda llm: llm.generate([[HumanMessage(each)] for each in inputs]).generations,
        lambda llm: asyncio.run(llm.abatch(inputs)),
        lambda llm: (ChatPromptTemplate.from_template("{x}") | llm).batch(inputs),
    ]
    for way in ways:
        llm = ChatBACo(pair=Meeting(24), max_tokens=100)
        assert len(way(llm)) == 24
        assert llm.decoder.metrics.largest_batch == 24


def test_the_callers_own_concurrency_is_kept() -> None:
    llm = ChatBACo(pair=endless(), max_tokens=20)
    llm.batch(["Go."] * 6, {"max_concurrency": 2})
    assert llm.decoder.metrics.largest_batch <= 2
    assert llm.batch([]) == []


def test_generate_keeps_order_runs_and_usage(chat: ChatBACo) -> None:
    listener = Listener()
    inputs = [[HumanMessage("City?" * i)] for i in range(1, 4)]
    result = chat.generate(inputs, callbacks=[listener], gamma=0)
    assert [len(each) for each in result.generations] == [1, 1, 1]
    prompts = [each[0].message.usage_metadata["input_tokens"] for each in result.generations]
    assert prompts == [11, 16, 21]
    assert result.llm_output is not None
    assert result.llm_output["token_usage"]["prompt_tokens"] == 48
    assert len({run.run_id for run in result.run or []}) == 3
    assert sorted(listener.events) == ["end"] * 3 + ["start"] * 3


# -- identity --------------------------------------------------------------------------------------


def test_a_cache_tells_gammas_seeds_and_pairs_apart() -> None:
    cache = InMemoryCache()
    llm = ChatBACo(pair=cities(), cache=cache)

    def kept() -> int:
        return len(cache._cache)

    first = llm.invoke("City?", gamma=0.9)
    assert llm.invoke("City?", gamma=0.9).text == first.text
    assert kept() == 1
    llm.invoke("City?", gamma=0.8)
    llm.invoke("City?", gamma=0.9, seed=1)
    llm.invoke("City?", gamma=0.9, stop=["x"])
    assert kept() == 4
    llm.gamma = 0.9
    llm.invoke("City?")
    assert kept() == 4
    ChatBACo(pair="tiny", cache=cache, gamma=0.9).invoke("City?")
    assert kept() == 5


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_serialization_leaves_the_secret_out_and_finds_the_decoder() -> None:
    llm = ChatBACo(pair="tiny", gamma=0.4, token="hf_secret", stop=["x"], tags=["t"])
    data = dumpd(llm)
    assert data["id"] == ["baco_integrations", "langchain", "ChatBACo"]
    assert data["kwargs"] == {
        "pair": "tiny",
        "gamma": 0.4,
        "stop": ["x"],
        "token": {"lc": 1, "type": "secret", "id": ["HF_TOKEN"]},
    }
    again = load(
        data,
        allowed_objects=[ChatBACo],
        secrets_map={"HF_TOKEN": "hf_secret"},
        valid_namespaces=["baco_integrations"],
    )
    assert again.token == llm.token
    assert again.decoder is llm.decoder
    assert pickle.loads(pickle.dumps(llm)).decoder is llm.decoder
    assert llm.model_copy(update={"gamma": 0.9}).decoder is llm.decoder


def test_tracing_parameters_honour_the_call(chat: ChatBACo) -> None:
    assert chat._llm_type == "baco-chat"
    assert chat._get_ls_params() == {
        "ls_provider": "baco",
        "ls_model_type": "chat",
        "ls_model_name": "scripted",
        "ls_temperature": 0.7,
        "ls_max_tokens": 256,
    }
    called = chat._get_ls_params(stop=["x"], model="m", temperature=0.5, max_tokens=3)
    assert called["ls_stop"] == ["x"]
    assert (called["ls_model_name"], called["ls_temperature"], called["ls_max_tokens"]) == (
        "m",
        0.5,
        3,
    )


# -- messages --------------------------------------------------------------------------------------


def test_half_a_character_is_refused_wherever_it_stands(chat: ChatBACo) -> None:
    half = "\ud835"
    call = {"name": "f", "args": {}, "id": "1", "type": "tool_call"}
    asked = HumanMessage("Hi.")
    for messages, place in (
        ([HumanMessage(half)], r"\[0\]\['content'\]"),
        ([asked, AIMessage("", tool_calls=[{**call, "args": {"x": half}}])], r"\[1\]\['tool_calls"),
        ([asked, AIMessage("", tool_calls=[call]), ToolMessage(half, tool_call_id="1")], r"\[2\]"),
    ):
        with pytest.raises(PromptError, match=f"messages{place}.* must be whole characters"):
            chat.invoke(messages)
    answers = chat.batch(["Hi.", half, "Hi."], return_exceptions=True)
    assert isinstance(answers[1], PromptError)
    assert [type(answers[place]) for place in (0, 2)] == [AIMessage, AIMessage]
    with pytest.raises(ParameterError, match="text must be whole characters"):
        chat.get_num_tokens(half)


def test_messages_of_every_kind_become_a_conversation() -> None:
    call = {"name": "look", "args": {"at": "map"}, "id": "c1"}
    blocks = [
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": "Let me "},
        {"type": "text", "text": "see."},
        {"type": "tool_call", **call},
    ]
    messages: list[BaseMessage] = [
        SystemMessage("Be kind."),
        HumanMessage(["A city, ", {"type": "text", "text": "please."}]),
        AIMessage(blocks, tool_calls=[call]),
        ToolMessage("Oslo", tool_call_id="c1", name="look"),
        FunctionMessage("Rome", name="old"),
        ChatMessage("So?", role="user"),
        AIMessageChunk(content="Oslo."),
    ]
    assert conversation_of(messages) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "A city, please."},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {
                    "type": "function",
                    "id": "c1",
                    "function": {"name": "look", "arguments": {"at": "map"}},
                }
            ],
        },
        {"role": "tool", "content": "Oslo", "tool_call_id": "c1", "name": "look"},
        {"role": "tool", "content": "Rome", "name": "old"},
        {"role": "user", "content": "So?"},
        {"role": "assistant", "content": "Oslo."},
    ]
    assert ChatBACo(pair="tiny", max_tokens=2).invoke(messages[:4])


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}},
        {"type": "image", "source_type": "base64", "data": "aaaa", "mime_type": "image/png"},
        {"type": "image", "base64": "aaaa", "mime_type": "image/png"},
        {"type": "audio", "base64": "aaaa", "mime_type": "audio/wav"},
    ],
)
def test_what_is_not_text_is_refused(chat: ChatBACo, block: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match=r"messages\[0\].content must be text.*image|audio"):
        chat.invoke([HumanMessage([{"type": "text", "text": "See:"}, block])])


def test_an_unknown_role_is_refused(chat: ChatBACo) -> None:
    with pytest.raises(PromptError, match="Did you mean 'user'"):
        chat.invoke([ChatMessage("Hi", role="usr")])
    assert eventually(lambda: idle(chat.decoder))
