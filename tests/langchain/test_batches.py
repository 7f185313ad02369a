"""One seed for a batch: its rows differ, and can be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableConfig
from langchain_core.runnables.configurable import RunnableConfigurableFields

from baco_integrations import BacoError
from baco_integrations.langchain import BACoLLM, ChatBACo
from baco_integrations.langchain.batches import seed_at
from tests.scripted import cities

PAIR = cities()
ROWS = ["City?"] * 5
SEEDS = [seed_at(7, place) for place in range(5)]
CHAT = ChatBACo(pair=PAIR, gamma=0.9, seed=7)
PLAIN = BACoLLM(pair=PAIR, gamma=0.9, seed=7)
ALONE = [CHAT.invoke("City?", seed=seed).text for seed in SEEDS]
GAMMA = {"gamma": ConfigurableField(id="gamma")}
EACH_ITS_OWN: list[RunnableConfig] = [{"configurable": {"gamma": 0.9 - x / 100}} for x in range(5)]


def completed(llm: Any, *args: Any) -> list[Any]:
    return [answer for _, answer in sorted(llm.batch_as_completed(*args), key=lambda row: row[0])]


def acompleted(llm: Any, *args: Any) -> list[Any]:
    async def rows() -> list[Any]:
        return [row async for row in llm.abatch_as_completed(*args)]

    return [answer for _, answer in sorted(asyncio.run(rows()), key=lambda row: row[0])]


WAYS: dict[str, Callable[..., list[Any]]] = {
    "batch": lambda llm, *args: llm.batch(*args),
    "abatch": lambda llm, *args: asyncio.run(llm.abatch(*args)),
    "batch_as_completed": completed,
    "abatch_as_completed": acompleted,
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def seeds(answers: list[Any]) -> list[int]:
    return [answer.response_metadata["seed"] for answer in answers]


def test_seeds_of_places() -> None:
    assert SEEDS[0] == 7 and len(set(SEEDS)) == 5 and max(SEEDS) < 2**53
    assert not set(SEEDS) & {seed_at(8, place) for place in range(5)}


@every_way
@pytest.mark.parametrize(
    ("llm", "config"),
    [
        (CHAT, None),
        (CHAT, {"max_concurrency": 2}),
        (ChatBACo(pair=PAIR, seed=3).bind(seed=7), None),
        (CHAT.with_retry(), None),
        (CHAT.configurable_fields(**GAMMA), EACH_ITS_OWN),
        (CHAT.configurable_fields(**GAMMA).with_config(configurable={"gamma": 0.5}), None),
        (
            CHAT.configurable_alternatives(ConfigurableField(id="llm"), other=CHAT.bind(gamma=1)),
            {"configurable": {"llm": "other"}},
        ),
    ],
    ids=["plain", "few at once", "bound", "retry", "fields", "field", "alternatives"],
)
def test_rows_of_one_seed_differ_and_repeat(
    way: Callable[..., list[Any]], llm: Any, config: Any
) -> None:
    assert seeds(way(llm, ROWS, config)) == SEEDS


@every_way
def test_their_texts_are_those_of_their_seeds(way: Callable[..., list[Any]]) -> None:
    assert [answer.text for answer in way(CHAT, ROWS)] == ALONE and len(set(ALONE)) > 1
    assert way(PLAIN, ROWS) == ALONE
    assert way(PLAIN, ROWS, {"max_concurrency": 2}) == ALONE
    assert way(PLAIN.configurable_fields(**GAMMA), ROWS, EACH_ITS_OWN) == ALONE
    chain = ChatPromptTemplate.from_template("{text}") | CHAT
    assert seeds(chain.batch([{"text": "City?"}] * 5)) == SEEDS
    assert len(set(seeds(way(ChatBACo(pair=PAIR), ROWS)))) == 5


def test_a_seed_that_a_row_chooses_is_its_own() -> None:
    llm = CHAT.configurable_fields(seed=ConfigurableField(id="s"))
    chosen: list[RunnableConfig] = [{"configurable": {"s": seed}} for seed in (1, 2, 1, 2, 3)]
    own = [1, 2, seed_at(1, 1), seed_at(2, 1), 3]
    assert seeds(llm.batch(ROWS, chosen)) == own


def test_a_call_of_one_input_keeps_the_seed() -> None:
    assert seeds([CHAT.invoke("City?"), *CHAT.batch(["City?"])]) == [7, 7]
    assert PLAIN.invoke("City?") == PLAIN.batch(["City?"])[0] == ALONE[0]
    assert CHAT.batch([]) == PLAIN.batch([]) == []


def test_what_is_no_seed_is_refused() -> None:
    for llm in (CHAT, PLAIN):
        for seed in (-1, "one", 0.5):
            with pytest.raises(BacoError, match="seed must be"):
                llm.batch(ROWS, seed=seed)
    llm = CHAT.configurable_fields(seed=ConfigurableField(id="s"))
    with pytest.raises(BacoError, match="seed must be"):
        llm.batch(ROWS, {"configurable": {"s": [1]}})


class Starts(BaseCallbackHandler):
    """Counts the runs it is told of, and keeps what their traces hold."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_llm_start(self, *_: Any, **about: Any) -> None:
        self.told.append(about)

    on_chat_model_start = on_llm_start


def test_generations_of_several_prompts() -> None:
    messages = [[HumanMessage("City?")] for _ in ROWS]
    for result in (CHAT.generate(messages), asyncio.run(CHAT.agenerate(messages))):
        assert [each[0].text for each in result.generations] == ALONE
    for result in (PLAIN.generate(ROWS), asyncio.run(PLAIN.agenerate(ROWS))):
        assert [each[0].text for each in result.generations] == ALONE
        assert result.llm_output and result.llm_output["token_usage"]["completion_tokens"] == 15
    listeners = [Starts() for _ in ROWS]
    names = [f"run {place}" for place in range(5)]
    tags = [[name] for name in names]
    PLAIN.generate(ROWS, callbacks=[[each] for each in listeners], run_name=names, tags=tags)
    told = [(about["name"], about["tags"]) for each in listeners for about in each.told]
    assert told == [(name, [name]) for name in names]
    shared = Starts()
    PLAIN.generate(ROWS, callbacks=[shared], tags=["t"])
    assert [about["tags"] for about in shared.told] == [["t"]] * 5


def test_a_cache_knows_each_row_by_its_seed() -> None:
    for llm in (ChatBACo(pair=PAIR, gamma=0.9, seed=7), BACoLLM(pair=PAIR, gamma=0.9, seed=7)):
        llm.cache = cache = InMemoryCache()
        first = llm.batch(ROWS)
        assert len(cache._cache) == 5
        assert [getattr(each, "text", each) for each in first] == ALONE
        assert [getattr(each, "text", each) for each in llm.batch(ROWS)] == ALONE
        assert getattr(llm.invoke("City?"), "text", llm.invoke("City?")) == ALONE[0]
        assert len(cache._cache) == 5


def test_traces_do_not_tell_places() -> None:
    listener = Starts()
    CHAT.batch(ROWS, {"callbacks": [listener]})
    assert len(listener.told) == 5 and "place" not in str(listener.told)
    fields = PLAIN.configurable_fields(**GAMMA)
    assert dumpd(fields)["id"] == RunnableConfigurableFields.lc_id()
