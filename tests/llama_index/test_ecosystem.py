"""What LlamaIndex builds around an LLM: agents, engines, retrievers, pipelines and tracing."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core import PromptHelper, Settings, VectorStoreIndex
from llama_index.core.agent.workflow import (
    AgentOutput,
    AgentStream,
    AgentWorkflow,
    FunctionAgent,
    ReActAgent,
    ToolCallResult,
)
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.indices.property_graph import SchemaLLMPathExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel
from workflows.errors import WorkflowCancelledByUser

from baco_integrations.llama_index import BACoLLM
from tests.llama_index.embedding import NGrams
from tests.llama_index.pairs import call, told
from tests.scripted import Meeting, endless, eventually, idle

# Core's own: making an agent reads attributes that pydantic deprecates, and `ReActAgent` asks
# within a step whether it runs.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.* attribute .*is deprecated:pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
)

DONE = "It is 42, and that is loud."


class Town(BaseModel):
    """A town."""

    name: str


class Always:
    """A router that always gives the word to one side."""

    def __init__(self, whom: str) -> None:
        self.whom = whom

    def route(self, inputs: Any) -> Any:
        return inputs.uniform >= 0 if self.whom == "base" else inputs.uniform < 0


class Heard(BaseEventHandler):
    events: list[Any] = []

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.events.append(event)

    def of(self, name: str) -> list[Any]:
        return [event for event in self.events if event.class_name() == name]


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, root = Heard(), get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def tools(seen: list[str]) -> list[Callable[..., str]]:
    """Two tools that note what they were called with."""

    def double(number: int) -> str:
        """Double a number."""
        seen.append(f"double {number}")
        return str(2 * number)

    async def shout(text: str) -> str:
        """Shout a text."""
        seen.append(f"shout {text}")
        return text.upper()

    return [double, shout]


# -- agents ----------------------------------------------------------------------------------------


def by_calls(prompt: str) -> str:
    """Double, then shout, then answer."""
    turns = (call(("double", {"number": 21})), call(("shout", {"text": "loud"})), DONE)
    return turns[prompt.count("\ntool: ")]


def by_reasoning(prompt: str) -> str:
    """The same in the words of ReAct."""
    turns = (
        'Thought: I need a tool.\nAction: double\nAction Input: {"number": 21}',
        'Thought: I need another.\nAction: shout\nAction Input: {"text": "loud"}',
        f"Thought: I can answer without using any more tools.\nAnswer: {DONE}",
    )
    return turns[prompt.count("\nuser: Observation: ")]


async def _run(agent: Any, question: str = "Double 21, loudly.") -> tuple[AgentOutput, list[Any]]:
    handler = agent.run(question)
    events = [event async for event in handler.stream_events()]
    return await handler, events


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("kind", "script"), [(FunctionAgent, by_calls), (ReActAgent, by_reasoning)]
)
async def test_an_agent_calls_two_tools_and_answers(
    kind: Any, script: Any, streaming: bool, tools: list[Any], seen: list[str]
) -> None:
    llm = BACoLLM(pair=told(script))
    output, events = await _run(kind(tools=tools, llm=llm, streaming=streaming, timeout=60))
    assert seen == ["double 21", "shout loud"]
    assert str(output.response.content) == DONE
    assert output.raw["usage"]["completion_tokens"] > len(DONE)
    results = [event for event in events if isinstance(event, ToolCallResult)]
    assert [str(result.tool_output) for result in results] == ["42", "LOUD"]
    deltas = [event.delta for event in events if isinstance(event, AgentStream)]
    assert "".join(deltas).endswith(DONE) if streaming else not deltas


async def test_an_agent_streams_calls_as_they_grow(tools: list[Any], seen: list[str]) -> None:
    _, events = await _run(FunctionAgent(tools=tools, llm=BACoLLM(pair=told(by_calls))))
    grown = [
        event.tool_calls[0].tool_kwargs
        for event in events
        if isinstance(event, AgentStream) and event.tool_calls
    ]
    assert grown[0] == {} and {"text": "lo"} in grown and grown[-1] == {"text": "loud"}


async def test_an_agent_remembers_its_calls_in_the_next_run(
    tools: list[Any], seen: list[str]
) -> None:
    prompts: list[str] = []
    llm = BACoLLM(pair=told(lambda prompt: [prompts.append(prompt), by_calls(prompt)][1]))
    agent, memory = FunctionAgent(tools=tools, llm=llm), ChatMemoryBuffer.from_defaults()
    await agent.run("Double 21, loudly.", memory=memory)
    answer = await agent.run("Again?", memory=memory)
    assert answer.response.content == DONE
    results = f"assistant: {call(('shout', {'text': 'loud'}))}\ntool: LOUD\nassistant: {DONE}"
    assert prompts[-1].endswith(f"{results}\nuser: Again?")


async def test_an_agent_ends_where_a_call_is_cut_off(tools: list[Any], seen: list[str]) -> None:
    llm = BACoLLM(pair=told(by_calls), max_tokens=50)
    output, _ = await _run(FunctionAgent(tools=tools, llm=llm))
    assert not seen and output.tool_calls == []
    assert output.raw["finish_reason"] == "length" and output.raw["invalid_tool_calls"]


async def test_an_agents_first_call_can_be_named(tools: list[Any], seen: list[str]) -> None:
    # Its script would double; what is shouted instead is noise, which a seed keeps short.
    llm = BACoLLM(pair=told(by_calls), seed=1, max_tokens=2000)
    agent = FunctionAgent(tools=tools, llm=llm, initial_tool_choice="shout")
    with pytest.raises(Exception, match="Max iterations of 1"):
        await agent.run("Double 21, loudly.", max_iterations=1)
    handler = agent.run("Double 21, loudly.", max_iterations=2)
    with pytest.raises(Exception, match="Max iterations of 2"):
        await handler
    assert [each.split()[0] for each in seen] == ["shout"]


async def test_a_workflow_hands_over(tools: list[Any], seen: list[str]) -> None:
    def script(prompt: str) -> str:
        if '"name": "shout"' in prompt:
            return DONE if "\ntool: LOUD" in prompt else call(("shout", {"text": "loud"}))
        if "\ntool: 42" in prompt:
            return call(("handoff", {"to_agent": "crier", "reason": "It is loud."}))
        return call(("double", {"number": 21}))

    llm = BACoLLM(pair=told(script), max_tokens=400)
    double, shout = tools
    agents: list[Any] = [
        FunctionAgent(
            name="clerk", description="Counts.", tools=[double], llm=llm, can_handoff_to=["crier"]
        ),
        FunctionAgent(name="crier", description="Shouts.", tools=[shout], llm=llm),
    ]
    output, _ = await _run(AgentWorkflow(agents=agents, root_agent="clerk"))
    assert seen == ["double 21", "shout loud"]
    assert (output.current_agent_name, output.response.content) == ("crier", DONE)


async def test_an_agent_gives_an_object_in_the_end(tools: list[Any], seen: list[str]) -> None:
    def script(prompt: str) -> str:
        return '{"name": "Oslo"}' if "<current_conversation>" in prompt else by_calls(prompt)

    agent = FunctionAgent(tools=tools, llm=BACoLLM(pair=told(script)), output_cls=Town)
    output, _ = await _run(agent)
    assert output.structured_response == {"name": "Oslo"}


@pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent])
async def test_an_agent_that_is_cancelled_frees_its_row(kind: Any, tools: list[Any]) -> None:
    llm = BACoLLM(pair=endless(0.002), max_tokens=2000)
    llm.pair.context = (65536, 65536)
    handler = kind(tools=tools, llm=llm).run("Go on.")
    async for event in handler.stream_events():
        if isinstance(event, AgentStream) and llm.decoder.metrics.tokens > 3:
            break
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert await asyncio.to_thread(idle, llm.decoder)
    assert not llm.decoder.running and llm.decoder.metrics.tokens < 2000


# -- engines and retrievers ------------------------------------------------------------------------

FACTS = ["Oslo lies by the fjord.", "Rome lies by the Tiber.", "Lima lies by the ocean."]


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    nodes = [TextNode(text=fact, id_=str(number)) for number, fact in enumerate(FACTS)]
    return VectorStoreIndex(nodes, embed_model=NGrams())


def knowing(prompts: list[str]) -> Callable[[str], str]:
    """Answer with the facts that the prompt holds, and note the prompt."""

    def script(prompt: str) -> str:
        prompts.append(prompt)
        known = [fact.split()[0] for fact in FACTS if fact in prompt]
        return f"I read of {' and '.join(known) or 'nothing'}."

    return script


def asked(prompts: list[str]) -> list[str]:
    """The distinct prompts, in order."""
    return list(dict.fromkeys(prompts))


@pytest.mark.parametrize(
    ("mode", "count", "answer"),
    [
        (ResponseMode.COMPACT, 1, "I read of Oslo and Rome and Lima."),
        (ResponseMode.REFINE, 3, "I read of Lima."),
        (ResponseMode.TREE_SUMMARIZE, 1, "I read of Oslo and Rome and Lima."),
    ],
)
async def test_query_engines(
    index: VectorStoreIndex, mode: ResponseMode, count: int, answer: str
) -> None:
    prompts: list[str] = []
    llm = BACoLLM(pair=told(knowing(prompts)), max_tokens=60)
    settings: Any = {"llm": llm, "response_mode": mode, "similarity_top_k": 3}
    engine = index.as_query_engine(use_async=True, **settings)
    question = "What lies by the ocean, the Tiber and the fjord?"
    response = str(await engine.aquery(question))
    assert len(asked(prompts)) == count
    if mode == ResponseMode.REFINE:
        assert response == f"I read of {asked(prompts)[-1].split(' lies')[0].split()[-1]}."
    else:
        assert sorted(response) == sorted(answer)
    streamed: Any = await asyncio.to_thread(
        index.as_query_engine(streaming=True, **settings).query, question
    )
    assert "".join(streamed.response_gen) == response


async def test_an_engine_that_answers_with_objects(index: VectorStoreIndex) -> None:
    llm = BACoLLM(pair=told('{"name": "Rome"}'))
    for mode in (ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE):
        engine = index.as_query_engine(llm=llm, output_cls=Town, response_mode=mode)
        response: Any = await engine.aquery("By the Tiber?")
        found = response.response
        assert found == Town(name="Rome")


async def test_a_chunk_that_is_cut_off_leaves_the_others_of_a_graph_alone() -> None:
    def script(prompt: str) -> str:
        entity = {"type": "LOCATION", "name": "Rome" if "Rome" in prompt else "R" * 999}
        other = {"type": "LOCATION", "name": "Tiber"}
        triplet = {"subject": entity, "relation": {"type": "LOCATED_IN"}, "object": other}
        return json.dumps({"triplets": [triplet]})

    llm = BACoLLM(pair=told(script), max_tokens=300)
    extractor = SchemaLLMPathExtractor(llm, num_workers=1)
    nodes = await extractor.acall([TextNode(text=fact) for fact in FACTS])
    found = [[entity.name for entity in node.metadata["nodes"]] for node in nodes]
    assert found == [[], ["Rome", "Tiber"], []]


def _summarizer(llm: BACoLLM) -> Any:
    return get_response_synthesizer(
        llm=llm,
        response_mode=ResponseMode.TREE_SUMMARIZE,
        use_async=True,
        prompt_helper=PromptHelper(context_window=400, num_output=16, chunk_size_limit=100),
    )


@pytest.mark.parametrize("awaited", [False, True])
def test_the_summaries_of_a_tree_meet_in_one_batch(awaited: bool) -> None:
    texts = ["One fox after another ran along the sea. " * 8] * 9
    llm = BACoLLM(pair=Meeting(8), max_tokens=24)
    summarizer = _summarizer(llm)
    if awaited:
        assert asyncio.run(summarizer.aget_response("What ran?", texts))
    else:
        assert summarizer.get_response("What ran?", texts)
    # Some may be through before the last prompt is read.
    assert llm.decoder.metrics.largest_batch >= 4


async def test_a_chat_engine_condenses_the_question(index: VectorStoreIndex) -> None:
    prompts: list[str] = []

    def script(prompt: str) -> str:
        prompts.append(prompt)
        if "standalone question" in prompt:
            return "What lies by the Tiber?"
        return "Rome." if "Rome lies" in prompt else "No idea."

    llm = BACoLLM(pair=told(script), max_tokens=60)
    engine: Any = index.as_chat_engine(
        chat_mode="condense_plus_context",
        llm=llm,
        similarity_top_k=1,
        memory=ChatMemoryBuffer.from_defaults(),  # the default is a database that stays open
    )
    assert str(engine.chat("What lies by the fjord?")) == "No idea."
    assert str(engine.chat("And by the Tiber?")) == "Rome."
    assert any("user: What lies by the fjord?\nassistant: No idea." in each for each in prompts)
    streamed = await engine.astream_chat("Once more?")
    pieces = [piece async for piece in streamed.async_response_gen()]
    assert "".join(pieces) == "Rome." and len(pieces) > 3
    assert "".join(engine.stream_chat("And again?").response_gen) == "Rome."


@pytest.mark.parametrize("awaited", [False, True])
def test_a_retriever_asks_for_queries_at_its_own_gamma(
    index: VectorStoreIndex, awaited: bool, heard: Heard
) -> None:
    llm = BACoLLM(pair=told("the fjord\nthe Tiber"), gamma=0.1)
    retriever = QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=1)],
        llm=llm.with_gamma(0.9),
        num_queries=3,
        similarity_top_k=3,
        use_async=False,
    )
    find: Any = retriever.aretrieve if awaited else retriever.retrieve
    found = asyncio.run(find("the ocean")) if awaited else find("the ocean")
    assert {each.node.text for each in found} == set(FACTS)
    (told_of,) = heard.of("LLMCompletionStartEvent")
    assert told_of.model_dict["gamma"] == 0.9


def test_settings_llm(
    index: VectorStoreIndex, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    llm = BACoLLM(pair=told("Rome."))
    monkeypatch.setattr(Settings, "_llm", None)
    for gamma in (0.2, 0.9):
        Settings.llm = llm.with_gamma(gamma)
        assert str(index.as_query_engine().query("By the Tiber?")) == "Rome."
    assert [each.model_dict["gamma"] for each in heard.of("LLMChatStartEvent")] == [0.2, 0.9]


# -- pipelines -------------------------------------------------------------------------------------


def test_a_pipelines_cache_knows_the_gamma(monkeypatch: pytest.MonkeyPatch) -> None:
    from baco_integrations.models.checkpoint import Checkpoint

    loads: list[object] = []
    load = Checkpoint.load
    monkeypatch.setattr(Checkpoint, "load", lambda *given: loads.append(given) or load(*given))
    llm = BACoLLM(pair="tiny", gamma=0.2, max_tokens=8)

    def extract(llm: BACoLLM) -> int:
        """Run the one pipeline with an LLM; return how many tokens were decoded for it."""
        before = llm.decoder.metrics.tokens
        pipeline.transformations = [SummaryExtractor(llm=llm, show_progress=False)]
        (node,) = pipeline.run(nodes=[TextNode(text="A fox ran.", id_="fox")])
        assert node.metadata["section_summary"]
        return llm.decoder.metrics.tokens - before

    pipeline = IngestionPipeline(transformations=[])
    assert extract(llm) > 0
    loads.clear()  # if another test has not loaded the pair, this one has
    assert extract(llm) == 0
    assert extract(llm.with_gamma(0.2)) == 0
    assert extract(pickle.loads(pickle.dumps(llm))) == 0
    assert extract(llm.with_gamma(0.9)) > 0
    assert not loads
    for whom, fresh in (("base", True), ("aligned", True), ("base", False)):
        llm = BACoLLM(pair="tiny", router=Always(whom), max_tokens=8)
        assert (extract(llm) > 0) == fresh
    for _ in range(2):  # pairs of one name
        assert extract(BACoLLM(pair=told("A fox."), max_tokens=8)) > 0


# -- tracing ---------------------------------------------------------------------------------------


async def test_events_of_calls_and_objects(heard: Heard) -> None:
    def greet(name: str) -> str:
        """Greet somebody."""
        return name

    text = call(("greet", {"name": "Ann"}))
    llm = BACoLLM(pair=told(text), gamma=0.3)
    list(llm.stream_chat_with_tools([FunctionTool.from_defaults(greet)], "Hi", seed=2))
    (start,), (end,) = heard.of("LLMChatStartEvent"), heard.of("LLMChatEndEvent")
    assert (start.model_dict["gamma"], start.additional_kwargs["seed"]) == (0.3, 2)
    assert start.additional_kwargs["tools"][0]["function"]["name"] == "greet"
    assert end.response.message.additional_kwargs["tool_calls"]
    assert (
        len(heard.of("LLMChatInProgressEvent"))
        == end.response.raw["usage"]["completion_tokens"] + 1
    )
    heard.events.clear()
    llm = BACoLLM(pair=told('{"name": "Rome"}'))
    prompt = PromptTemplate("A town in {land}?")
    llm.structured_predict(Town, prompt, land="Italy")
    await llm.astructured_predict(Town, prompt, land="Italy")
    list(llm.stream_structured_predict(Town, prompt, land="Italy"))
    _ = [each async for each in await llm.astream_structured_predict(Town, prompt, land="Italy")]
    names = Counter(event.class_name() for event in heard.events)
    assert names["LLMStructuredPredictStartEvent"] == names["LLMStructuredPredictEndEvent"] == 4
    assert names["LLMStructuredPredictInProgressEvent"] > 10
    starts = heard.of("LLMStructuredPredictStartEvent")
    assert all(each.template_args == {"land": "Italy"} for each in starts)
    ends = heard.of("LLMStructuredPredictEndEvent")
    assert [each.output for each in ends] == [Town(name="Rome")] * 4


async def test_every_token_is_counted(tools: list[Any]) -> None:
    def script(prompt: str) -> str:
        return '{"name": "Oslo"}' if "this schema" in prompt else by_calls(prompt)

    counter = TokenCountingHandler()
    manager = CallbackManager([counter])
    llm = BACoLLM(pair=told(script), gamma=0, callback_manager=manager)
    agent = FunctionAgent(tools=tools, llm=llm)
    await agent.run("Double 21, loudly.")
    llm.chat([ChatMessage(content="Hi")])
    synthesizer = get_response_synthesizer(llm=llm, callback_manager=manager)
    await synthesizer.aget_response("By the Tiber?", FACTS)
    llm.structured_predict(Town, PromptTemplate("A town?"))
    metrics = llm.decoder.metrics
    assert counter.completion_llm_token_count == metrics.tokens
    assert 0 < counter.prompt_llm_token_count < metrics.prefilled + metrics.reused
    assert eventually(lambda: not llm.decoder.running)
