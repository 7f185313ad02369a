"""What LangChain and LangGraph build around a chat model: agents, graphs, chains and tracing."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict
from uuid import UUID

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, SummarizationMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.embeddings import Embeddings
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import (
    ConfigurableField,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tracers import BaseTracer, Run
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import END as DONE
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel

from baco_integrations import ScriptedPair
from baco_integrations.langchain import ChatBACo
from baco_integrations.models.scripted import END, Context
from tests.langchain.test_standard import PAIR
from tests.scripted import Meeting, cities

ASK = "Use double on 21, please."
HELLO = "Hello there, what can I do for you today?"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class Town(BaseModel):
    """A town."""

    name: str


@pytest.fixture
def llm() -> ChatBACo:
    return ChatBACo(pair=PAIR, max_tokens=400)


def told(answer: Callable[[str], str]) -> ScriptedPair:
    """A pair whose answer is a function of the prompt that was rendered for it."""
    characters = [chr(code) for code in range(32, 127)]

    def script(context: Context) -> dict[str, float]:
        following = answer(context.prompt)[len(context.text) :][:1] or END
        return {**dict.fromkeys(characters, 1e-9), following: 1.0}

    return ScriptedPair(script, script, vocabulary=characters)


def doubling() -> tuple[list[int], Callable[..., Any]]:
    """A tool and the list of what it was called with."""
    seen: list[int] = []

    def double(number: int) -> str:
        """Double a number."""
        seen.append(number)
        return str(2 * number)

    return seen, double


class Flaky:
    """A router that raises the first times it is asked."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.raised = 0

    def route(self, view: Any) -> Any:
        if self.raised < self.failures:
            self.raised += 1
            raise RuntimeError("the router is out of order")
        return view.p_max < 2


# -- agents ----------------------------------------------------------------------------------------


def run_agent(agent: Any, text: str, awaited: bool = False) -> dict[str, Any]:
    asked = {"messages": [HumanMessage(text)]}
    answer: dict[str, Any] = asyncio.run(agent.ainvoke(asked)) if awaited else agent.invoke(asked)
    return answer


@pytest.mark.parametrize("awaited", [False, True])
def test_an_agent_calls_its_tool_and_answers(llm: ChatBACo, awaited: bool) -> None:
    seen, double = doubling()
    _, call, result, last = run_agent(create_agent(llm, [double]), ASK, awaited)["messages"]
    assert seen == [21]
    assert [(each["name"], each["args"]) for each in call.tool_calls] == [
        ("double", {"number": 21})
    ]
    assert isinstance(result, ToolMessage) and result.content == "42"
    assert result.tool_call_id == call.tool_calls[0]["id"]
    assert last.text == HELLO and not last.tool_calls


class Dialled(AgentMiddleware):
    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model_settings={"gamma": 0.2}))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(model_settings={"gamma": 0.2}))


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("tools", [False, True])
def test_middleware_sets_the_gamma(llm: ChatBACo, awaited: bool, tools: bool) -> None:
    offered = [doubling()[1]] if tools else []
    agent = create_agent(llm, offered, middleware=[Dialled()])
    messages = run_agent(agent, ASK, awaited)["messages"]
    gammas = [each.response_metadata["gamma"] for each in messages if isinstance(each, AIMessage)]
    assert gammas == [0.2] * (2 if tools else 1)


@pytest.mark.parametrize("form", [Person, ProviderStrategy(Person), ToolStrategy(Person)])
@pytest.mark.parametrize("awaited", [False, True])
def test_an_agent_gives_an_instance_of_the_response_format(
    llm: ChatBACo, form: Any, awaited: bool
) -> None:
    agent = create_agent(llm, response_format=form)
    found = run_agent(agent, "Person 'Erik' is 34.", awaited)["structured_response"]
    assert found == Person(name="Erik", age=34)


@pytest.mark.parametrize("awaited", [False, True])
def test_brainstorming_is_a_tool(llm: ChatBACo, awaited: bool) -> None:
    ideas = ChatBACo(pair=cities()).brainstorm(n=2, gamma=0.9, max_samples=40)
    agent = create_agent(llm, [ideas.tool(name="towns")])
    _, call, result, last = run_agent(agent, "Ask towns for some.", awaited)["messages"]
    assert call.tool_calls[0]["args"] == {"question": "Ask towns for some."}
    assert set(result.text.split("\n")) == {"Oslo.", "Bergen."}
    assert last.text == HELLO


@pytest.mark.parametrize("awaited", [False, True])
def test_an_agent_streams_tokens_and_calls(llm: ChatBACo, awaited: bool) -> None:
    agent = create_agent(llm, [doubling()[1]])
    asked: Any = {"messages": [HumanMessage(ASK)]}

    async def streamed() -> list[Any]:
        return [each async for each in agent.astream(asked, stream_mode="messages")]

    pieces = (
        asyncio.run(streamed()) if awaited else list(agent.stream(asked, stream_mode="messages"))
    )
    answers: dict[str, list[AIMessageChunk]] = {}
    for piece, about in pieces:
        if isinstance(piece, AIMessageChunk):
            assert about["langgraph_node"] == "model"
            answers.setdefault(str(piece.id), []).append(piece)
    call, last = answers.values()
    assert len([piece for piece in call if piece.tool_call_chunks]) > 3
    assert sum(call[1:], call[0]).tool_calls[0]["args"] == {"number": 21}
    assert len([piece for piece in last if piece.text]) > 10
    assert "".join(piece.text for piece in last) == HELLO


@pytest.mark.parametrize("least", [0, 1])
def test_summaries_come_once_the_models_own_count_is_reached(llm: ChatBACo, least: int) -> None:
    history: list[BaseMessage] = [
        HumanMessage("I am Erik."),
        AIMessage("Hello, Erik."),
        HumanMessage("Go on."),
    ]
    count = llm.get_num_tokens_from_messages
    summing = SummarizationMiddleware(
        llm,
        trigger=("tokens", count(history) + least),
        keep=("messages", 1),
        token_counter=count,
    )
    messages = create_agent(llm, middleware=[summing]).invoke({"messages": history})["messages"]
    if least:
        assert messages[:-1] == history
    else:
        summary, kept, _ = messages
        assert HELLO in summary.text and kept.text == "Go on."
    assert messages[-1].text == HELLO


# -- graphs ----------------------------------------------------------------------------------------


class Fan(TypedDict):
    gammas: list[float]
    answers: Annotated[list[AIMessage], operator.add]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_fan_out_meets_in_one_batch(awaited: bool) -> None:
    llm = ChatBACo(pair=Meeting(6), max_tokens=20)
    gammas = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]

    def ask(state: dict[str, float]) -> dict[str, Any]:
        return {"answers": [llm.invoke("Go.", gamma=state["gamma"])]}

    async def aask(state: dict[str, float]) -> dict[str, Any]:
        return {"answers": [await llm.ainvoke("Go.", gamma=state["gamma"])]}

    def fan(state: Fan) -> list[Send]:
        names = ["calm", "wild"]
        return [Send(names[gamma > 0.5], {"gamma": gamma}) for gamma in state["gammas"]]

    building: Any = StateGraph(Fan)
    building.add_conditional_edges(START, fan, ["calm", "wild"])
    for name in ("calm", "wild"):
        building.add_node(name, RunnableLambda(ask, aask))
        building.add_edge(name, DONE)
    graph = building.compile()
    start = {"gammas": gammas, "answers": []}
    found = asyncio.run(graph.ainvoke(start)) if awaited else graph.invoke(start)
    assert sorted(each.response_metadata["gamma"] for each in found["answers"]) == gammas
    assert llm.decoder.metrics.largest_batch >= 6


def _node(llm: ChatBACo) -> Any:
    def ask(state: dict[str, Any]) -> dict[str, Any]:
        return {"answers": [llm.invoke("Hi.")]}

    async def aask(state: dict[str, Any]) -> dict[str, Any]:
        return {"answers": [await llm.ainvoke("Hi.")]}

    building: Any = StateGraph(Fan)
    building.add_node("ask", RunnableLambda(ask, aask))
    building.add_edge(START, "ask")
    building.add_edge("ask", DONE)
    return building.compile()


async def test_a_node_streams_though_it_only_invokes(llm: ChatBACo) -> None:
    graph, start = _node(llm), {"gammas": [], "answers": []}
    whole = list(graph.stream(start, stream_mode="messages"))
    later = [each async for each in graph.astream(start, stream_mode="messages")]
    for pieces in (whole, later):
        assert len(pieces) > 10
        assert "".join(piece.text for piece, _ in pieces) == HELLO
        assert sum(bool(piece.usage_metadata) for piece, _ in pieces) == 1


# -- settings at run time --------------------------------------------------------------------------


def test_a_configured_gamma_survives_binding_tools(llm: ChatBACo) -> None:
    bound = llm.configurable_fields(gamma=ConfigurableField(id="gamma")).bind_tools([doubling()[1]])
    answer = bound.invoke(ASK, config={"configurable": {"gamma": 0.3}})
    assert answer.tool_calls[0]["args"] == {"number": 21}
    assert answer.response_metadata["gamma"] == 0.3


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_configured_gamma_survives_structured_output(llm: ChatBACo, method: str) -> None:
    dialled = llm.configurable_fields(gamma=ConfigurableField(id="gamma"))
    chain = dialled.with_structured_output(Person, method=method, include_raw=True)
    found = chain.invoke("Person 'Erik' is 34.", config={"configurable": {"gamma": 0.3}})
    assert found["parsed"] == Person(name="Erik", age=34)
    assert found["raw"].response_metadata["gamma"] == 0.3


def test_a_configured_gamma_survives_brainstorming() -> None:
    dialled = ChatBACo(pair=cities()).configurable_fields(gamma=ConfigurableField(id="gamma"))
    (idea,) = dialled.brainstorm(n=1).invoke("City?", config={"configurable": {"gamma": 0.3}})
    assert idea.gamma == 0.3


# -- chains ----------------------------------------------------------------------------------------


# Core retires these classes in its 2.0; chains written with them are still about.
@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")
@pytest.mark.filterwarnings("ignore:The class `InMemoryChatMessageHistory` was deprecated")
def test_a_history_is_told_and_grows() -> None:
    llm = ChatBACo(pair=told(lambda prompt: f"{prompt.count('user: ')} questions"))
    histories: dict[str, InMemoryChatMessageHistory] = {}
    chat = RunnableWithMessageHistory(
        llm, lambda session_id: histories.setdefault(session_id, InMemoryChatMessageHistory())
    )
    for session, says in (("a", 1), ("a", 2), ("b", 1), ("a", 3)):
        config: Any = {"configurable": {"session_id": session}}
        answer = chat.invoke([HumanMessage("And?")], config)
        assert answer.text == f"{says} questions"
    assert [len(history.messages) for history in histories.values()] == [6, 2]


async def test_retries_and_fallbacks() -> None:
    failing, other = Flaky(10**6), ChatBACo(pair=PAIR, gamma=0.4)
    broken = ChatBACo(pair=cities(), router=failing)
    safe = broken.with_fallbacks([other])
    for answer in (safe.invoke("Hi."), await safe.ainvoke("Hi.")):
        assert answer.text == HELLO and answer.response_metadata["gamma"] == 0.4
    assert failing.raised == 2
    with pytest.raises(RuntimeError, match="out of order"):
        broken.invoke("City?")

    once = Flaky(1)
    flaky = ChatBACo(pair=cities(), router=once)
    again = flaky.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    assert again.invoke("City?").text.endswith(".")
    assert once.raised == 1


class Letters(Embeddings):
    """How often each letter comes."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(text.lower().count(chr(97 + i))) for i in range(26)] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def test_a_chain_answers_from_what_it_retrieves() -> None:
    store = InMemoryVectorStore.from_texts(
        ["A zebra grazes.", "Foxes sleep.", "The pump hums."], Letters()
    )
    llm = ChatBACo(pair=told(lambda prompt: prompt.split("Context: ")[1].split("\n")[0]))
    chain: Any = (
        {
            "context": store.as_retriever(search_kwargs={"k": 1})
            | (lambda found: found[0].page_content),
            "question": RunnablePassthrough(),
        }
        | ChatPromptTemplate.from_template("Context: {context}\nQuestion: {question}")
        | llm
        | StrOutputParser()
    )
    assert chain.invoke("zebras graze?") == "A zebra grazes."
    assert list(chain.stream("pump hum?"))[:3] == ["T", "h", "e"]


def test_parallel_branches_have_gammas_of_their_own() -> None:
    llm = ChatBACo(pair=cities())
    branches = RunnableParallel(calm=llm.bind(gamma=0), wild=llm.bind(gamma=1))
    found = branches.invoke("City?")
    assert found["calm"].text == "Rome." and found["wild"].text in ("Oslo.", "Bergen.")
    together = ChatBACo(pair=Meeting(2), max_tokens=9)
    RunnableParallel(one=together.bind(gamma=0.1), two=together.bind(gamma=0.9)).invoke("Go.")
    assert together.decoder.metrics.largest_batch == 2


# -- tracing ---------------------------------------------------------------------------------------


class Listener(BaseCallbackHandler):
    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.chunks: list[Any] = []
        self.usage: list[Any] = []
        self.errors: list[BaseException] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.started.append({"text": messages[0][-1].text, **kwargs})

    def on_llm_new_token(self, token: str, *, chunk: Any = None, **kwargs: Any) -> None:
        self.chunks.append(chunk)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.usage.append(response.generations[0][0].message.usage_metadata)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)


async def test_a_listener_hears_the_start_each_token_and_the_end(llm: ChatBACo) -> None:
    listener = Listener()
    config: Any = {"callbacks": [listener]}
    list(llm.bind(gamma=0.3).stream("Hi.", config))
    assert [each async for each in llm.bind(gamma=0.3).astream("Hi.", config)]
    for start in listener.started:
        assert start["text"] == "Hi."
        assert start["invocation_params"]["gamma"] == 0.3
        assert start["metadata"]["ls_provider"] == "baco"
    assert "".join(chunk.text for chunk in listener.chunks) == HELLO * 2
    assert len(listener.started) == len(listener.usage) == 2
    for usage in listener.usage:
        assert usage["output_tokens"] >= len(HELLO) and usage["input_tokens"] > 0
    assert not listener.errors


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
def test_a_listener_hears_of_a_failure_once(way: str) -> None:
    llm, listener = ChatBACo(pair=cities(), router=Flaky(1)), Listener()
    config: Any = {"callbacks": [listener]}

    async def astreamed() -> None:
        async for _ in llm.astream("City?", config):
            pass

    calls: dict[str, Callable[[], Any]] = {
        "invoke": lambda: llm.invoke("City?", config),
        "stream": lambda: list(llm.stream("City?", config)),
        "ainvoke": lambda: asyncio.run(llm.ainvoke("City?", config)),
        "astream": lambda: asyncio.run(astreamed()),
    }
    with pytest.raises(RuntimeError, match="out of order") as caught:
        calls[way]()
    assert listener.errors == [caught.value] and not listener.usage


class Tracer(BaseTracer):
    """Keeps finished trees of runs, as a tracing service would get them."""

    def __init__(self) -> None:
        super().__init__(_schema_format="original+chat")
        self.roots: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)

    def runs(self) -> dict[UUID, Run]:
        found, todo = {}, list(self.roots)
        while todo:
            run = todo.pop()
            found[run.id] = run
            todo += run.child_runs
        return found


def test_a_tracer_gets_a_chain_as_a_tree(llm: ChatBACo) -> None:
    tracer = Tracer()
    chain = ChatPromptTemplate.from_template("Hi, {name}.") | llm | StrOutputParser()
    chain.invoke({"name": "Erik"}, {"callbacks": [tracer]})
    (root,) = tracer.roots
    assert root.inputs == {"name": "Erik"} and root.outputs == {"output": HELLO}
    assert [child.run_type for child in root.child_runs] == ["prompt", "chat_model", "parser"]
    asked = root.child_runs[1]
    assert (asked.name, asked.parent_run_id, asked.error) == ("ChatBACo", root.id, None)
    assert asked.inputs["messages"][0][0]["kwargs"]["content"] == "Hi, Erik."
    said = asked.outputs["generations"][0][0]
    assert said["text"] == HELLO
    assert said["message"]["kwargs"]["usage_metadata"]["output_tokens"] >= len(HELLO)
    assert asked.extra["metadata"]["ls_model_name"] == "scripted"


def test_a_tracer_gets_an_agents_calls_and_tools(llm: ChatBACo) -> None:
    tracer = Tracer()
    agent = create_agent(llm, [doubling()[1]])
    agent.invoke({"messages": [HumanMessage(ASK)]}, {"callbacks": [tracer]})
    runs = tracer.runs()
    first, last = sorted(
        (run for run in runs.values() if run.run_type == "chat_model"),
        key=lambda run: run.start_time,
    )
    (tool,) = (run for run in runs.values() if run.run_type == "tool")
    assert first.extra["invocation_params"]["tools"][0]["function"]["name"] == "double"
    assert first.start_time <= tool.start_time <= last.start_time
    assert tool.name == "double" and tool.inputs["number"] == 21
    assert runs[first.parent_run_id].name == "model" and runs[tool.parent_run_id].name == "tools"
    assert len(tracer.roots) == 1


# -- what core does around a call ------------------------------------------------------------------


def test_a_cache_tells_tools_and_schemas_apart() -> None:
    cache = InMemoryCache()
    llm = ChatBACo(pair=PAIR, max_tokens=400, cache=cache)
    double = doubling()[1]

    def triple(number: int) -> str:
        """Triple a number."""
        return str(3 * number)

    text = "Take 'Rome' and 21, a name."
    ways = [
        llm,
        llm.bind_tools([double]),
        llm.bind_tools([triple]),
        llm.bind_tools([double], tool_choice="any"),
        llm.with_structured_output(Person),
        llm.with_structured_output(Town),
    ]
    firsts = []
    for kept, way in enumerate(ways, 1):
        firsts.append(way.invoke(text))
        assert len(cache._cache) == kept
    tokens = llm.decoder.metrics.tokens
    for way, first in zip(ways, firsts, strict=True):
        again = way.invoke(text)
        if isinstance(first, AIMessage):
            assert (again.text, again.tool_calls) == (first.text, first.tool_calls)
        else:
            assert again == first
    assert len(cache._cache) == len(ways)
    assert llm.decoder.metrics.tokens == tokens
    assert firsts[-2:] == [Person(name="Rome", age=21), Town(name="Rome")]


class Counting(BaseRateLimiter):
    asked = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        self.asked += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire()


async def test_the_rate_limiter_is_asked_before_every_call() -> None:
    limiter = Counting()
    llm = ChatBACo(pair=cities(), rate_limiter=limiter)
    llm.invoke("City?")
    list(llm.stream("City?"))
    assert limiter.asked == 2
    await llm.ainvoke("City?")
    assert [each async for each in llm.astream("City?")]
    llm.batch(["City?", "Town?"])
    assert limiter.asked == 6


def test_streaming_can_be_turned_off_for_tools() -> None:
    llm = ChatBACo(pair=PAIR, max_tokens=400, disable_streaming="tool_calling")
    (whole,) = llm.bind_tools([doubling()[1]]).stream(ASK)
    assert whole.tool_calls[0]["args"] == {"number": 21}
    assert len(list(llm.stream("Hi."))) > 10
