"""The plain LLM as LangChain sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, load
from langchain_core.runnables import ConfigurableField

from baco_integrations import BacoError
from baco_integrations.core.errors import PromptError
from baco_integrations.langchain import BACoLLM
from tests.scripted import Meeting, cities, endless, idle


@pytest.fixture
def llm() -> BACoLLM:
    return BACoLLM(pair=cities())


def test_text_in_text_out() -> None:
    llm = BACoLLM(pair="tiny", gamma=0.9, seed=5)
    whole = llm.invoke("Name a city.")
    assert isinstance(whole, str)
    assert whole == asyncio.run(llm.ainvoke("Name a city."))
    assert whole == "".join(llm.stream("Name a city."))

    async def streamed() -> str:
        return "".join([part async for part in llm.astream("Name a city.")])

    assert whole == asyncio.run(streamed())


def test_bad_settings_are_refused(llm: BACoLLM) -> None:
    for given, says in (({"gamma": -1}, "gamma must be"), ({"gama": 0.5}, "Did you mean 'gamma'")):
        with pytest.raises(BacoError, match=says):
            BACoLLM(pair="tiny", **given)
        with pytest.raises(BacoError, match=says):
            llm.invoke("City?", **given)
        with pytest.raises(BacoError, match=says):
            list(llm.stream("City?", **given))


def test_gamma_at_run_time(llm: BACoLLM) -> None:
    configurable = llm.configurable_fields(gamma=ConfigurableField(id="gamma"))
    assert llm.invoke("City?", gamma=0) == "Rome."
    assert llm.bind(gamma=0.9).invoke("City?") in ("Oslo.", "Bergen.")
    assert configurable.invoke("City?", config={"configurable": {"gamma": 0.0}}) == "Rome."


def test_stop_of_the_call_overrides_that_of_the_object() -> None:
    llm = BACoLLM(pair=cities(), gamma=0, stop=".")
    assert llm.invoke("City?") == "Rome"
    assert llm.invoke("City?", stop=["me"]) == "Ro"
    assert "".join(llm.stream("City?")) == "Rome"


def test_prompts_are_one_batch() -> None:
    prompts = [f"Number {i}." for i in range(24)]
    for way in (lambda llm: llm.batch(prompts), lambda llm: asyncio.run(llm.abatch(prompts))):
        llm = BACoLLM(pair=Meeting(24), max_tokens=100)
        assert len(way(llm)) == 24
        assert llm.decoder.metrics.largest_batch == 24


def test_a_result_tells_how_it_came_about(llm: BACoLLM) -> None:
    async def agenerate() -> Any:
        return await llm.agenerate(["City?", "A city?"], gamma=0.9, n=2, logprobs=True)

    for result in (
        llm.generate(["City?", "A city?"], gamma=0.9, n=2, logprobs=True),
        asyncio.run(agenerate()),
    ):
        assert [len(each) for each in result.generations] == [2, 2]
        assert result.llm_output == {
            "token_usage": {"prompt_tokens": 24, "completion_tokens": 12, "total_tokens": 36},
            "model_name": "scripted",
        }
        info = result.generations[1][0].generation_info
        assert (info["gamma"], info["finish_reason"], len(info["logprobs"])) == (0.9, "stop", 3)


class Listener(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.last: Any = None

    def on_llm_new_token(self, token: str, *, chunk: Any = None, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.last = response.generations[0][0]


async def test_callbacks_hear_every_token(llm: BACoLLM) -> None:
    for _ in range(2):
        listener = Listener()
        text = "".join(llm.stream("City?", {"callbacks": [listener]}, gamma=0, logprobs=True))
        assert "".join(listener.tokens) == text == "Rome."
        info = listener.last.generation_info
        assert info["token_usage"]["completion_tokens"] == len(info["logprobs"]) == 3
    listener = Listener()
    async for _ in llm.astream("City?", {"callbacks": [listener]}, gamma=0):
        pass
    assert "".join(listener.tokens) == "Rome."


async def test_one_bad_prompt_stops_its_neighbours() -> None:
    llm = BACoLLM(pair=endless(0.002), max_tokens=4000)
    with pytest.raises(PromptError):
        llm.batch(["Go.", " "])
    with pytest.raises(PromptError):
        await llm.abatch(["Go.", " "])
    assert await asyncio.to_thread(idle, llm.decoder)
    assert llm.decoder.metrics.tokens < 1000


async def test_a_cancelled_task_frees_the_rows() -> None:
    llm = BACoLLM(pair=endless(0.002), max_tokens=4000)
    task = asyncio.create_task(llm.abatch(["Go.", "On."]))
    while llm.decoder.metrics.tokens < 10:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(idle, llm.decoder)


async def test_a_cache_tells_calls_apart() -> None:
    cache = InMemoryCache()
    llm = BACoLLM(pair=cities(), cache=cache)
    first = llm.invoke("City?", gamma=0.9)
    assert await llm.ainvoke("City?", gamma=0.9) == first
    assert len(cache._cache) == 1
    assert llm.invoke("City?", gamma=0) == "Rome."
    assert BACoLLM(pair=llm.pair, cache=cache, gamma=0, stop=["e"]).invoke("City?") == "Rom"
    assert len(cache._cache) == 3
    assert llm.gamma is None


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_serialization(llm: BACoLLM) -> None:
    named = BACoLLM(pair="tiny", n=2)
    data = dumpd(named)
    assert data["id"] == ["baco_integrations", "langchain", "BACoLLM"]
    assert (
        load(data, allowed_objects=[BACoLLM], valid_namespaces=["baco_integrations"]).decoder
        is named.decoder
    )
    assert llm._llm_type == "baco-llm"
    assert llm._get_ls_params()["ls_model_type"] == "llm"
    assert llm.get_num_tokens("abc") == 3
