"""Distinct queries, documents, questions and answers in LlamaIndex."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.mock import MockLLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RetrieverQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool
from pydantic import BaseModel, ConfigDict, field_validator

from baco_integrations import ScriptedPair
from baco_integrations.adapters.distinct import BreadthParams
from baco_integrations.core.errors import BacoError, CutOffError, ParameterError, PromptError
from baco_integrations.llama_index import (
    BACoLLM,
    BreadthHyDE,
    BreadthQueryEngine,
    BreadthQueryFusion,
    BreadthQuestions,
    Idea,
    embedding_similarity,
)
from baco_integrations.llama_index.hashing import HashingEmbedding
from baco_integrations.models.scripted import Context
from tests.llama_index.pairs import call, told
from tests.scripted import Meeting, cities, endless, idle

TOWNS = {"Oslo.", "Bergen."}
NODES = [
    TextNode(text=text, id_=text, metadata={"about": text[0]})
    for text in ("Oslo lies in a fjord.", "Bergen is rainy.", "Rome is old.", "Cats purr.")
]


class Words(BaseRetriever):
    """Finds the nodes that share a word with a query, those that share most first."""

    def __init__(self, nodes: list[TextNode] = NODES) -> None:
        self.nodes = nodes
        self.asked: list[str] = []
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.asked.append(query_bundle.query_str)
        words = set(query_bundle.query_str.strip(".?").split())
        scores = [len(words & set(node.text.strip(".").split())) for node in self.nodes]
        found = [
            NodeWithScore(node=n, score=s) for n, s in zip(self.nodes, scores, strict=True) if s
        ]
        return sorted(found, key=lambda each: -(each.score or 0))


@pytest.fixture
def llm() -> BACoLLM:
    return BACoLLM(pair=cities())


def _texts(ideas: list[Any]) -> set[str]:
    return {idea.text for idea in ideas}


def _ids(nodes: list[NodeWithScore]) -> list[str]:
    return [each.node.node_id for each in nodes]


def _saying(*answers: str) -> ScriptedPair:
    """A pair whose base says each of these equally often, its aligned side the first."""

    def script(possible: tuple[str, ...]) -> dict[str, dict[str, float]]:
        return {"": {text: 1 / len(possible) for text in possible}}

    return ScriptedPair(script(answers), script(answers[:1]), context=2048)


def _watching(seen: list[str]) -> ScriptedPair:
    """A pair that says "ok" and tells what it was fed."""

    def script(context: Context) -> dict[str, float]:
        seen.append(context.prompt)
        return {" ok": 1.0} if not context.tokens else {"<end>": 1.0}

    return ScriptedPair(script, script, vocabulary=[" ok"], context=2048)


# What is made with a model and some settings, asked in both ways.
Ask = Callable[..., list[Any]]


def _fusion(llm: Any, n: int = 8, **settings: Any) -> BreadthQueryFusion:
    return BreadthQueryFusion([Words()], llm, num_queries=n + 1, **settings)


def _engine(llm: Any, **settings: Any) -> BreadthQueryEngine:
    return BreadthQueryEngine(RetrieverQueryEngine.from_args(Words(), llm=llm), **settings)


WAYS: dict[str, Ask] = {
    "fusion": lambda llm, **s: _fusion(llm, **s).queries("Town?"),
    "afusion": lambda llm, **s: asyncio.run(_fusion(llm, **s).aqueries("Town?")),
    "hyde": lambda llm, **s: BreadthHyDE(llm, **s).documents("Rome?"),
    "ahyde": lambda llm, **s: asyncio.run(BreadthHyDE(llm, **s).adocuments("Rome?")),
    "questions": lambda llm, **s: BreadthQuestions(llm, **s).generate(NODES[2:3]).questions,
    "aquestions": lambda llm, **s: (
        asyncio.run(BreadthQuestions(llm, **s).agenerate(NODES[2:3])).questions
    ),
    "answers": lambda llm, **s: _engine(llm, **s).answers("Rome?"),
    "aanswers": lambda llm, **s: asyncio.run(_engine(llm, **s).aanswers("Rome?")),
}
each_way = pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
MADE = {
    "fusion": _fusion,
    "hyde": BreadthHyDE,
    "questions": BreadthQuestions,
    "engine": _engine,
}
each_class = pytest.mark.parametrize("make", MADE.values(), ids=MADE)


# -- what all have in common -----------------------------------------------------------------------


@each_way
def test_ideas_are_distinct_and_tell_how_they_came_about(llm: BACoLLM, ask: Ask) -> None:
    found = ask(llm, n=2, gamma=0.9, max_samples=40, seed=1)
    assert _texts(found) == TOWNS
    for idea in found:
        again = llm.chat([ChatMessage(content="Rome?")], gamma=idea.gamma, seed=idea.seed)
        assert again.message.content == idea.text == idea.value
        expected = {name: again.raw[name] for name in ("gamma", "router", "base_share", "switches")}
        assert expected.items() <= idea.model_dump().items()
        assert idea.seed == 1 + idea.sample


@each_way
def test_the_llms_own_gamma_or_a_ladder(llm: BACoLLM, ask: Ask) -> None:
    assert _texts(ask(llm.with_gamma(0), n=2)) == {"Rome."}
    for similarity in (lambda one, other: 0.0, embedding_similarity(HashingEmbedding())):
        found = ask(llm, n=4, ladder=(0, 0.9), similarity=similarity, max_samples=40, seed=1)
        assert [(i.gamma == 0.9) == (i.text in TOWNS) for i in found] == [True] * len(found)
        assert {idea.gamma for idea in found} == {0, 0.9}


@pytest.mark.parametrize("way", ["fusion", "hyde", "questions", "answers"])
def test_a_seed_repeats_in_both_ways_and_none_is_fresh(way: str) -> None:
    llm = BACoLLM(pair="tiny", gamma=0.8, max_tokens=30)
    found = WAYS[way](llm, n=3, seed=5)
    assert found == WAYS[way](llm, n=3, seed=5) == WAYS[f"a{way}"](llm, n=3, seed=5)
    assert len(found) == 3
    assert WAYS[way](llm, n=1)[0].seed != WAYS[way](llm, n=1)[0].seed


@each_way
def test_samples_meet_in_one_batch(ask: Ask) -> None:
    llm = BACoLLM(pair=Meeting(24), max_tokens=10)
    ask(llm, n=24, max_samples=24)
    assert llm.decoder.metrics.largest_batch == 24


@pytest.mark.parametrize(
    "work",
    [
        lambda llm: _fusion(llm).aretrieve("Rome?"),
        lambda llm: BreadthHyDE(llm).adocuments("Rome?"),
        lambda llm: BreadthQuestions(llm).agenerate(NODES[:1]),
        lambda llm: _engine(llm).aquery("Rome?"),
    ],
    ids=MADE,
)
async def test_cancelled_work_frees_the_rows(work: Any) -> None:
    llm = BACoLLM(pair=endless(0.001), max_tokens=3000)
    task = asyncio.ensure_future(work(llm))
    while llm.decoder.metrics.largest_batch < 8:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(idle, llm.decoder)
    assert llm.decoder.metrics.tokens < 8 * 1000


async def test_the_sync_ways_work_where_a_loop_runs(llm: BACoLLM) -> None:
    settings = {"n": 2, "gamma": 0.9, "max_samples": 40}
    for way in ("fusion", "hyde", "questions", "answers"):
        assert _texts(WAYS[way](llm, **settings)) == TOWNS
    assert _fusion(llm, **settings).retrieve("Rome?")
    assert _engine(llm, **settings).query("Rome?").response


@each_class
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"n": 0}, "must be a whole number of at least 1"),
        ({"gamma": 1.5}, "gamma must be"),
        ({"ladder": ()}, "ladder must be"),
        ({"gamma": 0.5, "ladder": (0.2,)}, "ladder must be left out"),
        ({"threshold": -1}, "threshold must be"),
        ({"n": 3, "max_samples": 2}, "max_samples must be at least n, 3"),
        ({"similarity": 1}, "similarity must be"),
        ({"seed": -1}, "seed must be"),
        ({"gama": 0.5}, "Did you mean 'gamma'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_decoded(
    llm: BACoLLM, make: Any, given: dict[str, Any], says: str
) -> None:
    if make is _fusion and given == {"n": 0}:
        given = {"n": -1}  # 0 further queries are none too few
    with pytest.raises(ParameterError, match=says):
        make(llm, **given)
    assert llm.decoder.metrics.tokens == 0


@pytest.fixture
def settings() -> Iterator[Any]:
    before = Settings._llm
    Settings._llm = None
    yield Settings
    Settings._llm = before


@each_class
def test_only_our_llm_has_a_gamma(settings: Any, make: Any) -> None:
    with pytest.raises(ParameterError, match="llm must be a BACoLLM, got 'MockLLM'.*Settings.llm"):
        make(MockLLM())
    if make is not _engine:  # as core's engines do, it would ask for somebody's API key
        with pytest.raises(ParameterError, match="llm must be a BACoLLM, got None"):
            make(None)
    settings.llm = BACoLLM(pair=cities())
    assert make(None)
    settings.llm = MockLLM()
    with pytest.raises(ParameterError, match="llm must be a BACoLLM, got 'MockLLM'"):
        make(None)


# -- query fusion ----------------------------------------------------------------------------------


def _index(nodes: list[TextNode] = NODES) -> VectorStoreIndex:
    return VectorStoreIndex(nodes, embed_model=HashingEmbedding())


@pytest.mark.parametrize("mode", FUSION_MODES)
async def test_fusion_finds_what_its_queries_name(llm: BACoLLM, mode: FUSION_MODES) -> None:
    kept = {"num_queries": 3, "gamma": 0.9, "seed": 1, "max_samples": 40, "mode": mode}
    retrievers = [_index().as_retriever(similarity_top_k=1), Words()]
    found = []
    for use_async in (False, True):
        fusion = BreadthQueryFusion(retrievers, llm, use_async=use_async, **kept)
        found += [fusion.retrieve("Which town?"), await fusion.aretrieve("Which town?")]
    for nodes in found:
        assert {NODES[0].node_id, NODES[1].node_id} <= set(_ids(nodes))
        assert _ids(nodes) == _ids(found[0])
    assert not {NODES[0].node_id, NODES[1].node_id} & set(_ids(Words().retrieve("Which town?")))


def test_a_sync_retrieval_leaves_no_event_loop_open(llm: BACoLLM) -> None:
    assert _fusion(llm, n=1).retrieve("Rome?")
    asyncio.set_event_loop(None)
    gc.collect()  # an open loop would be a warning, and so an error


def test_further_queries_differ_from_the_original(llm: BACoLLM) -> None:
    fusion = BreadthQueryFusion([Words()], llm, num_queries=3, gamma=0.9, max_samples=40)
    assert [idea.text for idea in fusion.queries("Oslo.")] == ["Bergen."]


def test_one_query_is_the_original(llm: BACoLLM) -> None:
    words = Words()
    fusion = BreadthQueryFusion([words], llm, num_queries=1)
    assert fusion.queries("Rome?") == []
    assert _ids(fusion.retrieve("Rome?")) == [NODES[2].node_id]
    assert (words.asked, llm.decoder.metrics.tokens) == (["Rome?"], 0)


def test_a_query_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    llm = BACoLLM(pair=_saying("```\nOslo\nRome\n```"))
    words = Words()
    fusion = BreadthQueryFusion([words], llm, num_queries=2, use_async=False, verbose=True)
    fusion.retrieve("Bergen")
    assert words.asked == ["Bergen", "Oslo"]
    assert capsys.readouterr().out == "Generated queries:\nOslo\n"


def test_fusion_is_asked_with_cores_prompts() -> None:
    seen: list[str] = []
    fusion = BreadthQueryFusion([Words()], BACoLLM(pair=_watching(seen)), num_queries=2)
    fusion.queries("Rome?")
    assert "for this:\nRome?\nWrite one other" in seen[-1]
    assert list(fusion.get_prompts()) == ["query_gen_prompt"]
    fusion.update_prompts({"query_gen_prompt": PromptTemplate('Not {query}, {{"but"}}:')})
    fusion.queries("Rome?")
    assert seen[-1] == 'user: Not Rome?, {"but"}:'


@pytest.mark.parametrize("kind", [str, PromptTemplate])
def test_a_prompt_for_queries_may_be_a_template(kind: Any) -> None:
    seen: list[str] = []
    llm = BACoLLM(pair=_watching(seen))
    fusion = BreadthQueryFusion([Words()], llm, kind("Not {query}:"), num_queries=2)
    fusion.update_prompts(fusion.get_prompts())
    fusion.queries("Rome?")
    assert seen[-1] == "user: Not Rome?:"


@pytest.mark.parametrize(
    "prompt",
    [
        ChatPromptTemplate([ChatMessage(content="Not {query}:")]),
        PromptTemplate("{tone}: not {query}:").partial_format(tone="Kindly"),
        'Not {query}, {"but"}:',
        7,
    ],
)
def test_a_prompt_that_core_cannot_fill_in_is_refused(prompt: Any) -> None:
    with pytest.raises(ParameterError, match="query_gen_prompt must be a text or"):
        BreadthQueryFusion([Words()], BACoLLM(pair="tiny"), prompt)


async def test_concurrent_retrievals_keep_apart() -> None:
    llm = BACoLLM(pair="tiny", gamma=0.8, max_tokens=30)
    fusion = BreadthQueryFusion([Words()], llm, "{query}", num_queries=3, seed=1)
    asked = ("Suggest a hobby.", "Suggest a gift.", "Suggest a meal.")
    together = await asyncio.gather(*map(fusion.aqueries, asked))
    assert together == [await fusion.aqueries(query) for query in asked]
    assert len({idea.text for ideas in together for idea in ideas}) == 6


def test_settings_are_those_of_core_and_breadth(llm: BACoLLM) -> None:
    fusion = BreadthQueryFusion([Words(), Words()], llm, retriever_weights=[1, 3], gamma=0.3)
    assert fusion._retriever_weights == [0.25, 0.75]
    assert (fusion.num_queries, fusion.params) == (4, BreadthParams(n=3, gamma=0.3))
    for given, says in (
        ({"n": 3}, "n must be left out.*num_queries"),
        ({"num_queries": 0}, "num_queries must be"),
        ({"num_queries": 2.5}, "num_queries must be"),
        ({"mod": "simple"}, "Did you mean 'mode'"),
    ):
        with pytest.raises(ParameterError, match=says):
            BreadthQueryFusion([Words()], llm, **given)


# -- HyDE ------------------------------------------------------------------------------------------


def test_hyde_searches_for_every_document(llm: BACoLLM) -> None:
    settings = {"n": 2, "gamma": 0.9, "max_samples": 40}
    bundle = BreadthHyDE(llm, **settings).run("Rome?")
    assert bundle.query_str == "Rome?"
    assert {*bundle.embedding_strs} == {*TOWNS, "Rome?"}
    assert bundle.embedding_strs[-1] == "Rome?"
    alone = BreadthHyDE(llm, include_original=False, **settings)
    assert {*alone.run("Rome?").embedding_strs} == TOWNS
    found = _index().as_retriever(similarity_top_k=2).retrieve(alone.run("Rome?"))
    assert {*_ids(found)} == {NODES[0].node_id, NODES[1].node_id}
    engine = TransformQueryEngine(
        _index().as_query_engine(llm=llm.with_gamma(0), similarity_top_k=2), alone
    )
    response = engine.query("Rome?")
    assert (response.response, {*_ids(response.source_nodes)}) == ("Rome.", {*_ids(found)})


def test_without_a_document_the_query_is_searched_for() -> None:
    blank = BreadthHyDE(BACoLLM(pair=_saying(" ")), n=2, include_original=False)
    assert blank.documents("Rome?") == []
    assert blank.run("Rome?").embedding_strs == ["Rome?"]


def test_hyde_is_asked_with_cores_prompts() -> None:
    seen: list[str] = []
    hyde = BreadthHyDE(BACoLLM(pair=_watching(seen)), n=1)
    hyde.run("Rome?")
    assert "write a passage to answer the question" in seen[-1]
    hyde.update_prompts({"hyde_prompt": PromptTemplate("About {context_str}")})
    hyde.run("Rome?")
    assert seen[-1] == "user: About Rome?"


# -- questions -------------------------------------------------------------------------------------


def test_questions_differ_across_nodes_and_name_theirs(llm: BACoLLM) -> None:
    asking = BreadthQuestions(llm, n=1, gamma=0.9, max_samples=40, seed=1)
    dataset = asking.generate(NODES[:2])
    assert [each.node_id for each in dataset.questions] == _node_ids(NODES[:2])
    assert _texts(dataset.questions) == TOWNS
    assert dataset.failed == {}
    first, second = dataset.questions
    assert first.seed == 1 + first.sample and second.seed == 1 + 40 + second.sample
    [alone] = asking.generate(NODES[:1]).questions
    assert alone == first


def _node_ids(nodes: list[TextNode]) -> list[str]:
    return [node.node_id for node in nodes]


def test_questions_of_all_nodes_meet_in_one_batch() -> None:
    llm = BACoLLM(pair=Meeting(24), max_tokens=10)
    nodes = [TextNode(text=f"Number {i}.") for i in range(6)]
    dataset = BreadthQuestions(llm, n=4, max_samples=4).generate(nodes)
    assert llm.decoder.metrics.largest_batch == 24
    places = [_node_ids(nodes).index(each.node_id) for each in dataset.questions]
    assert places == sorted(places)


def test_questions_come_node_by_node_whenever_they_were_found() -> None:
    llm = BACoLLM(pair=_saying("One?", "Two?", "Three?", "Four?"))
    for seed in range(5):
        asking = BreadthQuestions(llm, n=2, gamma=0.9, max_samples=40, seed=seed)
        found = asking.generate(NODES[:2]).questions
        assert [each.node_id for each in found] == [n.node_id for n in NODES[:2] for _ in range(2)]


@pytest.mark.parametrize(
    ("text", "error"), [("far too long " * 500, PromptError), (" ", PromptError)]
)
def test_a_node_that_fails_leaves_the_others_alone(
    llm: BACoLLM, text: str, error: type[BacoError]
) -> None:
    broken = TextNode(text=text, id_="broken")
    asking = BreadthQuestions(llm, n=1, gamma=0.9, max_samples=40)
    dataset = asking.generate([NODES[0], broken, NODES[1]])
    assert _texts(dataset.questions) == TOWNS
    assert "broken" not in [each.node_id for each in dataset.questions]
    assert {name: type(each) for name, each in dataset.failed.items()} == {"broken": error}
    with pytest.raises(error):
        asking.generate([broken])


def test_a_node_that_is_given_twice_is_asked_about_once(llm: BACoLLM) -> None:
    assert len(BreadthQuestions(llm, n=1).generate(NODES[:1] * 2).questions) == 1
    assert BreadthQuestions(llm).generate([]).questions == []


def test_a_dataset_is_written_for_finetuning_and_as_lines(llm: BACoLLM, tmp_path: Path) -> None:
    dataset = BreadthQuestions(llm, n=2, gamma=0.9, max_samples=40).generate(NODES[:1])
    dataset.save_json(tmp_path / "d.json")
    data = json.loads((tmp_path / "d.json").read_text())
    assert data == dataset.to_dict()
    assert (data["mode"], data["corpus"]) == ("text", {NODES[0].node_id: NODES[0].text})
    assert {*data["queries"].values()} == TOWNS
    assert data["relevant_docs"] == {name: [NODES[0].node_id] for name in data["queries"]}
    dataset.save_jsonl(tmp_path / "d.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    for line, question in zip(lines, dataset.questions, strict=True):
        assert line == {**question.model_dump(), "passage": NODES[0].text}


def test_progress_is_shown_if_wanted(llm: BACoLLM, capsys: pytest.CaptureFixture[str]) -> None:
    BreadthQuestions(llm, n=1).generate(NODES[:2])
    assert capsys.readouterr().err == ""
    asking = BreadthQuestions(llm, n=2, gamma=0, max_samples=5, seed=1, show_progress=True)
    assert len(asking.generate(NODES[:2]).questions) == 1
    shown = capsys.readouterr().err
    assert "Samples: 100%" in shown and "10/10" in shown


def test_nodes_may_be_of_any_iterable(llm: BACoLLM) -> None:
    dataset = BreadthQuestions(llm, n=1).generate(node for node in NODES[:2])
    assert [*dataset.corpus] == _node_ids(NODES[:2])


def test_the_prompt_for_questions_can_be_replaced() -> None:
    seen: list[str] = []
    asking = BreadthQuestions(BACoLLM(pair=_watching(seen)), n=1)
    asking.generate(NODES[2:3])
    assert "Rome is old.\n\nWrite one question" in seen[-1]
    asking.update_prompts({"question_prompt": PromptTemplate("Ask: {context_str}")})
    asking.generate(NODES[2:3])
    assert seen[-1] == "user: Ask: Rome is old."
    assert list(asking.get_prompts()) == ["question_prompt"]


# -- answers ---------------------------------------------------------------------------------------


async def test_an_answer_in_several_ways_from_one_retrieval(llm: BACoLLM) -> None:
    words = Words()
    wrapped = RetrieverQueryEngine.from_args(words, llm=llm)
    engine = BreadthQueryEngine(wrapped, n=2, gamma=0.9, max_samples=40, seed=1)
    for response in (engine.query("Rome?"), await engine.aquery("Rome?")):
        assert {*response.response.split("\n\n")} == TOWNS
        assert _ids(response.source_nodes) == [NODES[2].node_id]
        assert response.metadata[NODES[2].node_id] == {"about": "R"}
        ideas = [Idea(**each) for each in json.loads(json.dumps(response.metadata["ideas"]))]
        assert ideas == engine.answers("Rome?")
    assert words.asked == ["Rome?"] * 4


UNANSWERED = (ResponseMode.NO_TEXT, ResponseMode.CONTEXT_ONLY)


@pytest.mark.parametrize("mode", [m for m in ResponseMode if m not in UNANSWERED])
def test_every_response_mode_is_of_the_gamma_asked_for(mode: ResponseMode) -> None:
    pair = cities()
    pair.context = (20_000, 20_000)
    nodes = [TextNode(text=f"Rome {i}. {'old ' * 150}", id_=str(i)) for i in range(3)]
    wrapped = RetrieverQueryEngine.from_args(
        Words(nodes), llm=BACoLLM(pair=pair), response_mode=mode
    )
    found = BreadthQueryEngine(wrapped, n=2, gamma=0.9, max_samples=20, seed=1).answers("Rome old?")
    assert found
    for idea in found:
        assert "Rome." not in idea.text
        assert (idea.router, idea.gamma, idea.base_share) == ("p-punc", 0.9, pytest.approx(1 / 3))


async def test_what_is_wrapped_stays_as_it_is_even_meanwhile(llm: BACoLLM) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    careful = BACoLLM(pair=llm.pair, gamma=0, callback_manager=CallbackManager([debug]))
    wrapped = RetrieverQueryEngine.from_args(Words(), llm=careful, streaming=True)
    engine = BreadthQueryEngine(wrapped, n=2, gamma=0.9, max_samples=40, seed=1)
    synthesizer = wrapped._response_synthesizer
    before = [dict(vars(each)) for each in (wrapped, synthesizer, careful)]
    handlers = list(careful.callback_manager.handlers)

    async def plain() -> str:
        return str(await (await wrapped.aquery("Rome?")).get_response())

    found, *whole = await asyncio.gather(engine.aanswers("Rome?"), *(plain() for _ in range(5)))
    assert (_texts(found), whole) == (TOWNS, ["Rome."] * 5)
    assert [dict(vars(each)) for each in (wrapped, synthesizer, careful)] == before
    assert careful.callback_manager.handlers == handlers


def test_callbacks_see_every_sample(llm: BACoLLM) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm.callback_manager = CallbackManager([debug])
    wrapped = RetrieverQueryEngine.from_args(
        Words(),
        llm=llm,
        response_synthesizer=get_response_synthesizer(llm, callback_manager=llm.callback_manager),
        callback_manager=llm.callback_manager,
    )
    engine = BreadthQueryEngine(wrapped, n=3, gamma=0, max_samples=3)
    engine.query("Rome?")
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 3
    assert len(debug.get_event_pairs(CBEventType.QUERY)) == 1


class Town(BaseModel):
    name: str


class Even(Town):
    model_config = ConfigDict(title="Town")

    @field_validator("name")
    @classmethod
    def even(cls, name: str) -> str:
        assert len(name) % 2 == 0
        return name


def test_what_has_not_the_structure_is_passed_over_unless_nothing_has() -> None:
    def texts(output_cls: type[Town], max_tokens: int = 60) -> list[str]:
        llm = BACoLLM(pair="tiny", max_tokens=max_tokens).as_structured_llm(output_cls)
        wrapped = RetrieverQueryEngine.from_args(Words(), llm=llm)
        every = {"n": 16, "max_samples": 16, "similarity": lambda one, other: 0.0}
        found = BreadthQueryEngine(wrapped, gamma=0.9, seed=2, **every).answers("Rome is?")
        return [idea.text for idea in found]

    even = [text for text in texts(Town) if len(json.loads(text)["name"]) % 2 == 0]
    assert texts(Even) == even
    assert 0 < len(even) < 16
    with pytest.raises(CutOffError, match="Raise max_tokens"):
        texts(Town, max_tokens=2)


@pytest.mark.parametrize("mode", [ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE])
def test_objects_that_are_all_cut_off_are_an_error(mode: ResponseMode) -> None:
    wrapped = RetrieverQueryEngine.from_args(
        Words(), llm=BACoLLM(pair="tiny", max_tokens=2), output_cls=Town, response_mode=mode
    )
    with pytest.raises(CutOffError, match="cut off after 2 tokens.*Raise max_tokens"):
        BreadthQueryEngine(wrapped, n=2).answers("Rome is?")


def test_structured_answers_are_objects() -> None:
    llm = BACoLLM(pair="tiny", temperature=0.5, max_tokens=60)
    wrapped = RetrieverQueryEngine.from_args(Words(), llm=llm.as_structured_llm(Town))
    found = BreadthQueryEngine(wrapped, n=2, gamma=0.9, seed=2).answers("Rome is?")
    assert found
    for idea in found:
        assert isinstance(idea.value, Town)
        assert json.loads(idea.text) == idea.value.model_dump()
    response = BreadthQueryEngine(wrapped, n=2, gamma=0.9, seed=2).query("Rome is?")
    assert response.metadata["ideas"][0]["value"] == found[0].value.model_dump()


def test_it_is_an_engine_among_others(llm: BACoLLM) -> None:
    cited = CitationQueryEngine.from_args(
        _index(), llm=llm, retriever=Words(), citation_chunk_size=64, citation_chunk_overlap=0
    )
    engine = BreadthQueryEngine(cited, n=2, gamma=0.9, max_samples=40)
    response = engine.query("Rome?")
    assert {*str(response).split("\n\n")} == TOWNS
    assert response.source_nodes[0].text.startswith("Source 1:")
    tool = QueryEngineTool.from_defaults(engine, name="towns")
    assert {*tool.call("Rome?").content.split("\n\n")} == TOWNS
    hyde = BreadthHyDE(llm, n=1, gamma=0)
    assert {*str(TransformQueryEngine(engine, hyde).query("Rome?")).split("\n\n")} == TOWNS


def test_prompts_are_those_of_what_is_wrapped() -> None:
    seen: list[str] = []
    wrapped = RetrieverQueryEngine.from_args(Words(), llm=BACoLLM(pair=_watching(seen)))
    engine = BreadthQueryEngine(wrapped, n=1)
    assert engine.get_prompts().keys() == wrapped.get_prompts().keys()
    asks = PromptTemplate("{context_str} So: {query_str}")
    engine.update_prompts({"response_synthesizer:text_qa_template": asks})
    engine.query("Rome?")
    assert seen[-1].endswith("Rome is old. So: Rome?")


@pytest.mark.parametrize("streaming", [False, True])
async def test_nothing_retrieved_is_cores_empty_response(llm: BACoLLM, streaming: bool) -> None:
    wrapped = RetrieverQueryEngine.from_args(Words(), llm=llm, streaming=streaming)
    engine = BreadthQueryEngine(wrapped, n=2)
    assert engine.answers("Where?") == await engine.aanswers("Where?") == []
    for response in (engine.query("Where?"), await engine.aquery("Where?")):
        assert response == Response("Empty Response")
    assert llm.decoder.metrics.tokens == 0


@pytest.mark.parametrize("mode", [m for m in ResponseMode if m not in UNANSWERED])
def test_a_blank_answer_is_passed_over(mode: ResponseMode) -> None:
    def engine(llm: BACoLLM, streaming: bool = False) -> BreadthQueryEngine:
        wrapped = RetrieverQueryEngine.from_args(
            Words(), llm=llm, response_mode=mode, streaming=streaming
        )
        return BreadthQueryEngine(wrapped, n=2, gamma=0.9, max_samples=20, seed=1)

    some = BACoLLM(pair=_saying(" ", "Oslo."))
    [idea] = engine(some).answers("Rome?")
    assert "Oslo." in idea.text
    none = BACoLLM(pair=_saying(" "))
    plain = str(engine(none)._query_engine.query("Rome?"))
    for streaming in (False, True):
        assert engine(none, streaming).answers("Rome?") == []
        response = engine(none, streaming).query("Rome?")
        assert isinstance(response, Response) and str(response) == plain
        assert _ids(response.source_nodes) == [NODES[2].node_id]


@pytest.mark.parametrize(("satisfied", "found"), [(True, {"Hm."}), (False, set())])
def test_an_answer_that_leaves_the_query_open_is_passed_over(
    satisfied: bool, found: set[str]
) -> None:
    said = call(("StructuredRefineResponse", {"query_satisfied": satisfied, "answer": "Hm."}))
    synthesizer = get_response_synthesizer(
        BACoLLM(pair=told(said)),
        response_mode=ResponseMode.REFINE,
        structured_answer_filtering=True,
    )
    wrapped = RetrieverQueryEngine(Words(), response_synthesizer=synthesizer)
    assert _texts(BreadthQueryEngine(wrapped, n=2, max_samples=2).answers("Rome?")) == found


def test_an_engine_that_does_not_retrieve_first_is_refused(llm: BACoLLM) -> None:
    inner = RetrieverQueryEngine.from_args(Words(), llm=llm)
    for wrapped in (TransformQueryEngine(inner, BreadthHyDE(llm)), "engine"):
        with pytest.raises(ParameterError, match="query_engine must be.*put the result inside"):
            BreadthQueryEngine(wrapped)  # type: ignore[arg-type]
    assert isinstance(BreadthQueryEngine(inner), BaseQueryEngine)


# -- the embedding of examples ---------------------------------------------------------------------


async def test_hashing_is_the_same_in_every_process() -> None:
    model = HashingEmbedding(dimensions=16)
    vector = model.get_text_embedding("Oslo")
    assert {place for place, value in enumerate(vector) if value} == {2, 6, 7, 9, 10, 12}
    assert min(vector) < 0 < max(vector)
    assert model.get_query_embedding("oslo!") == vector == await model.aget_query_embedding("OSLO")
    assert HashingEmbedding.from_dict(model.to_dict()).get_text_embedding("Oslo") == vector
    alike = embedding_similarity(HashingEmbedding())
    assert alike("gardens", "gardening") > 0.3 > alike("gardens", "a fox")
    assert sum(HashingEmbedding().get_text_embedding("?")) == 1


@pytest.mark.parametrize(
    ("kind", "prompt"),
    [
        (BreadthHyDE, "Write about {query}."),
        (BreadthHyDE, PromptTemplate("Write.")),
        (BreadthQuestions, "Ask about {text}."),
        (BreadthQuestions, 7),
        (lambda llm, prompt: BreadthQueryFusion([Words()], llm, prompt), "Suggest a hobby."),
    ],
)
def test_a_prompt_without_a_place_for_what_is_asked_is_refused(kind: Any, prompt: Any) -> None:
    with pytest.raises(ParameterError, match=r"prompt must be .*\{(context_str|query)\} in it"):
        kind(BACoLLM(pair="tiny"), prompt)


def test_prompts_may_be_plain_text() -> None:
    llm = BACoLLM(pair="tiny", max_tokens=40)
    assert BreadthHyDE(llm, "Suggest {context_str}.", n=1, seed=1).documents("a hobby")
    questions = BreadthQuestions(llm, "Suggest {context_str}.", n=1, seed=1)
    assert questions.generate([TextNode(text="a hobby")]).questions


@pytest.mark.parametrize("nodes", [["a text"], TextNode(text="a hobby")])
def test_what_is_no_node_is_refused(nodes: Any) -> None:
    with pytest.raises(ParameterError, match="nodes must be nodes"):
        BreadthQuestions(BACoLLM(pair="tiny")).generate(nodes)


def test_fusion_needs_a_retriever() -> None:
    with pytest.raises(ParameterError, match="retrievers must be one or more"):
        BreadthQueryFusion([], BACoLLM(pair="tiny"))
