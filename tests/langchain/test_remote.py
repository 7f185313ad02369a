"""Chains of one machine with the models of another: all as with the models here."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.integration_tests import ChatModelIntegrationTests
from pydantic import BaseModel

from baco_integrations.core.errors import ParameterError, ServerError
from baco_integrations.langchain import BACoLLM, ChatBACo
from tests.langchain.test_standard import PAIR as COMPETENT
from tests.langchain.test_standard import TestUnit as LocalUnit
from tests.scripted import cities, endless, idle
from tests.server.serving import Serving, serving

PAIR = cities()


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving({"cities": PAIR}) as running:
        yield running


@pytest.fixture(scope="module")
def there(served: Serving) -> ChatBACo:
    return ChatBACo(base_url=served.api, gamma=0.9)


HERE = ChatBACo(pair=PAIR, gamma=0.9)


def plain(answer: Any) -> dict[str, Any]:
    """A message without what differs from call to call, and the pair's name."""
    data: dict[str, Any] = {**answer.model_dump(), "id": None}
    data["response_metadata"].pop("model_name", None)
    return data


async def test_messages_as_here(there: ChatBACo) -> None:
    call: dict[str, Any] = {"seed": 3, "logprobs": True, "alternatives": 2}
    wanted = HERE.invoke("City?", **call)
    assert plain(there.invoke("City?", **call)) == plain(wanted)
    assert plain(await there.ainvoke("City?", **call)) == plain(wanted)
    chunks = [plain(each) for each in HERE.stream("City?", **call)]
    assert [plain(each) for each in there.stream("City?", **call)] == chunks
    assert [plain(each) async for each in there.astream("City?", **call)] == chunks
    assert there.invoke("City?").response_metadata["model_name"] == "cities"


async def test_batches_as_here(there: ChatBACo) -> None:
    rows = ["City?"] * 6
    wanted = [plain(each) for each in HERE.batch(rows, seed=7)]
    assert [plain(each) for each in there.batch(rows, seed=7)] == wanted
    assert [plain(each) for each in await there.abatch(rows, seed=7)] == wanted
    generations = there.generate([[HumanMessage("City?")]], n=3, seed=7)
    local = HERE.generate([[HumanMessage("City?")]], n=3, seed=7)
    assert [each.text for each in generations.generations[0]] == [
        each.text for each in local.generations[0]
    ]
    assert generations.llm_output["token_usage"] == local.llm_output["token_usage"]


async def test_plain_llms_as_here(served: Serving) -> None:
    here, there = BACoLLM(pair=PAIR, gamma=0.9), BACoLLM(base_url=served.api, gamma=0.9)
    rows = ["City?"] * 4
    assert there.batch(rows, seed=7) == here.batch(rows, seed=7)
    assert await there.abatch(rows, seed=7) == here.batch(rows, seed=7)
    assert len(there.generate(rows).generations) == 4
    assert "".join(there.stream("City?", seed=7)) == here.invoke("City?", seed=7)


async def test_brainstorms_as_here(there: ChatBACo) -> None:
    asked: dict[str, Any] = {"n": 2, "seed": 5, "ladder": (0.5, 0.9)}
    chain = ChatPromptTemplate.from_template("{what}?")
    wanted = (chain | HERE).invoke({"what": "City"}) and HERE.brainstorm(**asked).invoke("City?")
    assert len(wanted) == 2
    assert there.brainstorm(**asked).invoke("City?") == wanted
    assert await there.brainstorm(**asked).ainvoke("City?") == wanted
    assert {idea.text for idea in there.brainstorm(**asked).stream("City?")} == {
        idea.text for idea in wanted
    }


def test_tools_objects_and_tokens_as_here() -> None:
    class Gift(BaseModel):
        """A gift."""

        name: str

    with serving({"competent": COMPETENT}) as running:
        here, there = ChatBACo(pair=COMPETENT), ChatBACo(base_url=running.api)
        for method in ("json_schema", "function_calling"):
            gifts = [
                llm.with_structured_output(Gift, method=method).invoke(
                    "A gift named 'mug'.", seed=1
                )
                for llm in (here, there)
            ]
            assert gifts[0] == gifts[1] == Gift(name="mug")
        wanted = here.bind_tools([Gift]).invoke("Use Gift, named 'mug'.", seed=1)
        assert wanted.tool_calls
        assert there.bind_tools([Gift]).invoke("Use Gift, named 'mug'.", seed=1).tool_calls == (
            wanted.tool_calls
        )
        cut: dict[str, Any] = {"seed": 1, "max_tokens": 50, "tool_choice": "any"}
        broken = [llm.bind_tools([Gift], **cut).invoke("Use Gift 'mug'.") for llm in (here, there)]
        assert (
            broken[0].invalid_tool_calls
            and plain(broken[0])["invalid_tool_calls"] == (plain(broken[1])["invalid_tool_calls"])
        )
        talk = [
            SystemMessage("Be brief."),
            HumanMessage("Which gift?"),
            AIMessage("", tool_calls=wanted.tool_calls),
            ToolMessage("done", tool_call_id=wanted.tool_calls[0]["id"]),
        ]
        assert there.get_num_tokens("A gift.") == here.get_num_tokens("A gift.")
        assert there.get_num_tokens_from_messages(talk, tools=[Gift]) == (
            here.get_num_tokens_from_messages(talk, tools=[Gift])
        )


async def test_leaving_a_stream_frees_the_servers_rows() -> None:
    with serving({"p": endless(0.001)}) as running:
        llm = ChatBACo(base_url=running.api, max_tokens=4000)
        stream = llm.stream("Go on.")
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert idle(running.decoder)

        async def listen() -> None:
            async for _ in llm.astream("Go on."):
                pass

        task = asyncio.create_task(listen())
        while not running.decoder.running:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(idle, running.decoder)


def test_retries_are_asked_for() -> None:
    gone = ChatBACo(base_url="http://127.0.0.1:1", pair="p", max_retries=0)
    with pytest.raises(ServerError, match="no server can be reached"):
        gone.invoke("Hi")
    assert gone.decoder.engine._client._retries == 0
    assert ChatBACo(base_url="http://127.0.0.1:1").decoder.engine._client._retries == 2


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_serialized_and_loaded_again(served: Serving) -> None:
    llm = ChatBACo(base_url=served.api, api_key="sk-secret", pair="cities", gamma=0.9)
    data = dumpd(llm)
    assert data["kwargs"] == {
        "base_url": served.api,
        "pair": "cities",
        "gamma": 0.9,
        "api_key": {"lc": 1, "type": "secret", "id": ["BACO_API_KEY"]},
    }
    loaded = load(
        data,
        allowed_objects=[ChatBACo],
        secrets_map={"BACO_API_KEY": "sk-secret"},
        valid_namespaces=["baco_integrations"],
    )
    for again in (loaded, pickle.loads(pickle.dumps(llm)), llm.model_copy()):
        assert again.decoder is llm.decoder
        assert again.invoke("City?", seed=3).text == llm.invoke("City?", seed=3).text
    assert "sk-secret" not in f"{llm!r}{llm._identifying_params}{llm._get_llm_string()}"


def test_one_key_for_the_wrong_server() -> None:
    with serving({"p": endless()}, api_keys=["right"]) as running:
        with pytest.raises(ParameterError, match="api_key must be") as caught:
            ChatBACo(base_url=running.api, api_key="sk-secret").invoke("Hi")
        assert "sk-secret" not in str(caught.value)
        assert ChatBACo(base_url=running.api, api_key="right", max_tokens=1).invoke("Hi").text


class TestUnit(LocalUnit):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": "http://127.0.0.1:1/v1", "pair": "competent"}


class TestIntegration(ChatModelIntegrationTests):
    url: str

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _served(cls) -> Iterator[None]:
        with serving({"competent": COMPETENT}) as running:
            cls.url = running.api
            yield

    @property
    def chat_model_class(self) -> type[ChatBACo]:
        return ChatBACo

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": self.url}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {**super().standard_chat_model_params, "max_tokens": 400}

    @property
    def supports_json_mode(self) -> bool:
        return True
