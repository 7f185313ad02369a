"""Distinct answers from a chain."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.embeddings import Embeddings
from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from pydantic import BaseModel

from baco_integrations import ScriptedPair
from baco_integrations.core.errors import ParameterError, PromptError
from baco_integrations.langchain import (
    Brainstorm,
    ChatBACo,
    Idea,
    brainstorm,
    embedding_similarity,
    word_overlap,
)
from baco_integrations.models.scripted import Context
from tests.scripted import WORDS, Meeting, cities, endless, idle

ASK = ChatPromptTemplate.from_template("{city}?")
TOWNS = {"Oslo.", "Bergen."}


@pytest.fixture
def chat() -> ChatBACo:
    return ChatBACo(pair=cities())


async def _all(ideas: Brainstorm, question: Any) -> list[Idea]:
    return [idea async for idea in ideas.astream(question)]


WAYS: dict[str, Callable[[Brainstorm, Any], list[Idea]]] = {
    "invoke": lambda ideas, question: ideas.invoke(question),
    "ainvoke": lambda ideas, question: asyncio.run(ideas.ainvoke(question)),
    "stream": lambda ideas, question: list(ideas.stream(question)),
    "astream": lambda ideas, question: asyncio.run(_all(ideas, question)),
    "batch": lambda ideas, question: ideas.batch([question])[0],
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


# -- what comes back -------------------------------------------------------------------------------


@each_way
def test_answers_are_distinct_and_each_can_be_had_again(chat: ChatBACo, way: Any) -> None:
    found = way(brainstorm(chat, n=2, gamma=0.9, max_samples=40, seed=1), "City?")
    assert {str(idea) for idea in found} == TOWNS
    for idea in found:
        again = chat.invoke("City?", gamma=idea.gamma, seed=idea.seed)
        assert again.text == idea.text == idea.value
        told = again.response_metadata
        expected = {name: told[name] for name in ("gamma", "router", "base_share", "switches")}
        assert expected.items() <= idea.model_dump().items()
        assert f"<u>{idea.text[:-1]}</u>." in idea._repr_html_()
        assert idea.seed == 1 + idea.sample
    assert json.loads(found[0].model_dump_json())["text"] == found[0].text


def test_what_is_found_is_all_there_is_and_samples_end(chat: ChatBACo) -> None:
    before = chat.decoder.metrics.tokens
    assert [idea.text for idea in brainstorm(chat, n=3, gamma=0).invoke("City?")] == ["Rome."]
    assert chat.decoder.metrics.tokens - before == 12 * 3


def test_the_first_of_similar_samples_survives_whoever_finishes_first(chat: ChatBACo) -> None:
    late = threading.Event()

    def hold(message: Any) -> Any:
        assert message.response_metadata["seed"] or late.wait(20)  # sample 0 comes last
        return message

    ideas = brainstorm(chat | RunnableLambda(hold), n=3, gamma=0, seed=0, max_samples=3)
    stream = ideas.stream("City?")
    first = next(stream)
    late.set()
    assert first.sample > 0
    assert list(stream) == []
    assert [idea.sample for idea in ideas.invoke("City?")] == [0]


def test_a_seed_repeats_and_none_is_fresh(chat: ChatBACo) -> None:
    ideas = brainstorm(chat, n=2, gamma=0.9)
    assert ideas.invoke("City?", seed=5) == ideas.invoke("City?", seed=5)
    assert ideas.invoke("City?")[0].seed != ideas.invoke("City?")[0].seed


def test_samples_go_up_the_ladder_in_turn(chat: ChatBACo) -> None:
    ideas = brainstorm(chat, n=4, ladder=[0.2, 0.9], similarity=lambda one, other: 0.0)
    assert [idea.gamma for idea in ideas.invoke("City?")] == [0.2, 0.9, 0.2, 0.9]


def test_more_gamma_more_ideas() -> None:
    llm = ChatBACo(pair="tiny", stop=".")
    counts = [
        len(brainstorm(llm, n=8, gamma=gamma, max_samples=8, seed=3).invoke("Suggest a hobby."))
        for gamma in (0, 0.8)
    ]
    assert counts[0] < counts[1]


def test_a_call_has_settings_of_its_own(chat: ChatBACo) -> None:
    ideas = brainstorm(chat, n=2, gamma=0.9)
    assert [idea.text for idea in ideas.invoke("City?", gamma=0, max_tokens=1)] == ["Rome"]
    assert len(ideas.bind(n=1).invoke("City?")) == 1


# -- what is asked ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chain",
    [
        lambda llm: ASK | llm,
        lambda llm: {"city": RunnablePassthrough()} | ASK | llm,
        lambda llm: llm.bind(gamma=0, seed=1) | StrOutputParser(),
        lambda llm: llm.bind(threshold=0.1),
        lambda llm: llm.with_retry(),
        lambda llm: llm.with_fallbacks([llm]),
        lambda llm: llm.with_config(tags=["t"]),
        lambda llm: llm.configurable_fields(gamma=ConfigurableField(id="gamma")),
    ],
)
def test_settings_reach_the_model_wherever_it_stands(chat: ChatBACo, chain: Any) -> None:
    found = brainstorm(chain(chat), n=2, gamma=0.9, seed=1, max_samples=40).invoke("City")
    assert {idea.text for idea in found} == TOWNS
    assert {(idea.gamma, idea.seed - idea.sample) for idea in found} == {(0.9, 1)}


def test_a_model_out_of_reach_is_refused(chat: ChatBACo) -> None:
    for llm in (RunnableLambda(lambda question: chat.invoke(question)), "tiny"):
        with pytest.raises(ParameterError, match=r"prompt \| brainstorm\(llm\)"):
            brainstorm(llm)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"n": 0}, "n must be"),
        ({"n": 2.5}, "n must be"),
        ({"gamma": 1.5}, "gamma must be"),
        ({"ladder": ()}, "ladder must be"),
        ({"ladder": (0.2, 2)}, "ladder must be"),
        ({"ladder": "0.2"}, "ladder must be"),
        ({"gamma": 0.5, "ladder": (0.2,)}, "ladder must be left out"),
        ({"threshold": -1}, "threshold must be"),
        ({"n": 3, "max_samples": 2}, "max_samples must be at least n, 3"),
        ({"similarity": 1}, "similarity must be"),
        ({"seed": -1}, "seed must be"),
        ({"gama": 0.5}, "Did you mean 'gamma'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_decoded(given: Any, says: str) -> None:
    llm = ChatBACo(pair=cities())
    with pytest.raises(ParameterError, match=says):
        brainstorm(llm, **given)
    with pytest.raises(ParameterError, match=says if "gama" not in given else "'gamma'"):
        brainstorm(llm).invoke("City?", **given)
    assert llm.decoder.metrics.tokens == 0


# -- structured answers ----------------------------------------------------------------------------


class City(BaseModel):
    name: str


def _city(message: Any) -> City:
    return City(name=message.text.rstrip("."))


def _parsing(*outcomes: bool) -> Callable[[Any], City]:
    """Parse a message where the next outcome is true."""
    turns = itertools.chain(outcomes, itertools.repeat(True))

    def parse(message: Any) -> City:
        if not next(turns):
            raise OutputParserException("no city")
        return _city(message)

    return parse


def _with_raw(llm: ChatBACo, parse: Callable[[Any], City]) -> Runnable[Any, Any]:
    """The shape of ``with_structured_output(..., include_raw=True)``."""
    raw = RunnablePassthrough()
    parsed = raw.assign(parsed=lambda d: parse(d["raw"]), parsing_error=lambda _: None)
    failed = raw.assign(parsed=lambda _: None)
    return RunnableParallel(raw=llm) | parsed.with_fallbacks(
        [failed], exception_key="parsing_error"
    )


def test_structured_answers_with_and_without_their_message(chat: ChatBACo) -> None:
    for chain, told in ((chat | RunnableLambda(_city), False), (_with_raw(chat, _city), True)):
        [idea] = brainstorm(chain, n=1, gamma=0, seed=4).invoke("City?")
        assert (idea.value, idea.text) == (City(name="Rome"), '{"name":"Rome"}')
        assert (idea.gamma, idea.seed, idea.router) == (0, 4, "p-punc" if told else None)
        assert json.loads(idea.model_dump_json())["value"] == {"name": "Rome"}


@pytest.mark.parametrize("chained", [lambda llm, parse: llm | RunnableLambda(parse), _with_raw])
def test_what_cannot_be_parsed_is_passed_over_unless_nothing_can(
    chat: ChatBACo, chained: Any
) -> None:
    ideas = brainstorm(chained(chat, _parsing(True, False, False)), n=2, gamma=0.9, max_samples=40)
    assert {idea.value.name for idea in ideas.invoke("City?")} == {"Oslo", "Bergen"}
    with pytest.raises(OutputParserException, match="no city"):
        brainstorm(chained(chat, _parsing(False, False)), n=2).invoke("City?")


# -- what is similar -------------------------------------------------------------------------------


def test_word_overlap() -> None:
    assert word_overlap("Go to Rome!", "go, to ROME") == 1
    assert word_overlap("Go to Rome", "Go to Oslo") == 0.5
    assert word_overlap("", "Rome") == word_overlap("!", "?") == 0
    assert word_overlap(" !", "!") == 1


class Length(Embeddings):
    """Texts of one length point one way."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        return [[1.0 * (len(text) == n) for n in range(20)] for text in texts]

    embed_query = None  # type: ignore[assignment]


def test_embeddings_decide_and_are_asked_once(chat: ChatBACo) -> None:
    embeddings = Length()
    ideas = brainstorm(chat, n=3, gamma=0.9, similarity=embedding_similarity(embeddings))
    assert {idea.text for idea in ideas.invoke("City?")} == TOWNS
    assert sorted(embeddings.asked) == sorted(TOWNS)


@each_way
@pytest.mark.parametrize("score", [1.5, float("nan"), None, ZeroDivisionError()])
def test_a_bad_similarity_stops_its_own_samples_only(score: Any, way: Any) -> None:
    llm = ChatBACo(pair=endless(), max_tokens=5)

    def similarity(one: str, other: str) -> Any:
        if isinstance(score, Exception):
            raise score
        return score

    with pytest.raises(ParameterError, match="similarity must be a function that returns"):
        way(brainstorm(llm, n=2, similarity=similarity), "Go.")
    assert idle(llm.decoder)
    assert llm.invoke("Go.").text


# -- runs ------------------------------------------------------------------------------------------


class Runs(BaseCallbackHandler):
    def __init__(self) -> None:
        self.parents: dict[UUID, UUID | None] = {}
        self.models: list[UUID] = []
        self.outputs: list[Any] = []

    def on_chain_start(self, *args: Any, run_id: UUID, parent_run_id: Any, **kwargs: Any) -> None:
        self.parents[run_id] = parent_run_id

    def on_chat_model_start(self, *args: Any, parent_run_id: Any, **kwargs: Any) -> None:
        self.models.append(parent_run_id)

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.outputs.append(outputs)


@pytest.mark.parametrize("asked", ["invoke", "stream"])
def test_samples_are_children_of_one_run(chat: ChatBACo, asked: str) -> None:
    runs = Runs()
    ideas = brainstorm(chat, n=3, gamma=0.9, similarity=lambda one, other: 0)
    found = list(getattr(ideas, asked)("City?", {"callbacks": [runs]}))
    assert list(runs.parents.values()) == [None]
    assert runs.models == [*runs.parents] * 3
    assert runs.outputs == [found]


class Failing(BaseCallbackHandler):
    raise_error = True

    def __init__(self) -> None:
        self.left = 3

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if not self.left:
            raise LookupError("callback")


@each_way
def test_an_error_cancels_the_other_samples(way: Any) -> None:
    llm = ChatBACo(pair=endless(0.002), max_tokens=4000, callbacks=[Failing()])
    with pytest.raises(LookupError, match="callback"):
        way(brainstorm(llm, n=4), "Go.")
    assert idle(llm.decoder)
    assert llm.decoder.metrics.tokens < 1000


def test_a_bad_question_is_an_error_at_once(chat: ChatBACo) -> None:
    with pytest.raises(PromptError):
        brainstorm(chat).invoke(" ")


# -- together, and stopping ------------------------------------------------------------------------


@each_way
def test_samples_meet_in_one_batch(way: Any) -> None:
    llm = ChatBACo(pair=Meeting(24), max_tokens=10)
    way(brainstorm(llm, n=24, max_samples=24), "Go.")
    assert llm.decoder.metrics.largest_batch == 24


def test_inputs_meet_in_one_batch_and_keep_their_order() -> None:
    llm = ChatBACo(pair=Meeting(24), max_tokens=10)
    answers = brainstorm(llm, n=1).batch([f"Number {i}." for i in range(24)])
    assert [len(each) for each in answers] == [1] * 24
    assert llm.decoder.metrics.largest_batch == 24
    with pytest.raises(PromptError):
        brainstorm(llm).batch(["Go.", " "])
    [fine, failed] = brainstorm(llm, n=1).batch(["Go.", " "], return_exceptions=True)
    assert (len(fine), type(failed)) == (1, PromptError)


def test_the_callers_own_concurrency_is_kept() -> None:
    llm = ChatBACo(pair=endless(), max_tokens=10)
    brainstorm(llm, n=6).invoke("Go.", {"max_concurrency": 2})
    assert llm.decoder.metrics.largest_batch == 2


def _one_ends() -> ChatBACo:
    """At gamma 0 it says one word, at gamma 1 it never ends."""

    def words(context: Context) -> dict[str, float]:
        time.sleep(0.001)
        return dict.fromkeys(WORDS, 0.2)

    pair = ScriptedPair(words, {"": {" red": 1.0}}, vocabulary=WORDS)
    return ChatBACo(pair=pair, max_tokens=4000)


def threads_but_the_decoders() -> list[threading.Thread]:
    # Those of a decoder end when there has been nothing to render for a while.
    return [each for each in threading.enumerate() if each.name != "baco-prompts"]


def test_closing_a_stream_frees_the_rows() -> None:
    llm = _one_ends()
    decoder, threads = llm.decoder, threads_but_the_decoders()
    stream = brainstorm(llm, n=4, ladder=(0, 1, 1, 1)).stream("Go.")
    assert next(stream).text == "red"
    stream.close()
    assert not decoder.running
    assert decoder.metrics.tokens < 4000
    assert threads_but_the_decoders() == threads


async def test_closing_an_async_stream_frees_the_rows() -> None:
    llm = _one_ends()
    async with aclosing(brainstorm(llm, n=4, ladder=(0, 1, 1, 1)).astream("Go.")) as stream:
        assert (await anext(stream)).text == "red"
    assert not llm.decoder.running
    assert llm.decoder.metrics.tokens < 4000


async def test_a_cancelled_task_frees_the_rows() -> None:
    llm = ChatBACo(pair=endless(0.001), max_tokens=4000)
    task = asyncio.ensure_future(brainstorm(llm, n=8).ainvoke("Go."))
    while llm.decoder.metrics.largest_batch < 8:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not llm.decoder.running


# -- as a part of something ------------------------------------------------------------------------


@pytest.mark.parametrize("awaited", [False, True])
def test_a_tool_returns_a_line_for_each_idea(chat: ChatBACo, awaited: bool) -> None:
    question = {"question": "City?"}
    for chain, lines in (
        (chat | RunnableLambda(lambda message: message.text + "\n"), TOWNS),
        (chat | RunnableLambda(_city), {'{"name":"Oslo"}', '{"name":"Bergen"}'}),
    ):
        tool = brainstorm(chain, n=2, gamma=0.9, max_samples=40).tool(name="towns")
        assert (tool.name, list(tool.args)) == ("towns", ["question"])
        assert "up to 2 distinct" in tool.description
        text = asyncio.run(tool.ainvoke(question)) if awaited else tool.invoke(question)
        assert set(text.split("\n")) == lines


def test_a_chain_goes_on_with_all_ideas(chat: ChatBACo) -> None:
    ideas = brainstorm(chat, n=2, gamma=0.9, max_samples=40)
    chain = ASK | ideas | (lambda found: {idea.text for idea in found})
    assert chain.invoke({"city": "City"}) == TOWNS
    assert list(chain.stream({"city": "City"})) == [TOWNS]
