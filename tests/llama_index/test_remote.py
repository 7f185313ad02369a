"""LlamaIndex on one machine with the models of another: all as with the models here."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from baco_integrations.core.errors import ParameterError, ServerError
from baco_integrations.llama_index import BACoLLM
from tests.llama_index.pairs import call, told
from tests.llama_index.test_breadth import WAYS, Ask
from tests.scripted import cities, endless, idle
from tests.server.serving import Serving, serving

PAIR = cities()
HERE = BACoLLM(pair=PAIR, gamma=0.9)


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving({"cities": PAIR}) as running:
        yield running


@pytest.fixture(scope="module")
def there(served: Serving) -> BACoLLM:
    return BACoLLM(base_url=served.api, gamma=0.9)


def plain(response: Any) -> dict[str, Any]:
    """A response without the pair's name."""
    data: dict[str, Any] = response.model_dump()
    for part in (data["raw"], data["additional_kwargs"]):
        part.pop("model", None)
    return data


@pytest.mark.parametrize("alternatives", [0, 2])
async def test_responses_as_here(there: BACoLLM, alternatives: int) -> None:
    settings = {"seed": 3, "alternatives": alternatives}
    asked = [ChatMessage(content="City?")]
    wanted = plain(HERE.chat(asked, **settings))
    assert plain(there.chat(asked, **settings)) == wanted
    assert plain(await there.achat(asked, **settings)) == wanted
    wanted = plain(HERE.complete("City?", **settings))
    assert plain(there.complete("City?", **settings)) == wanted
    assert plain(await there.acomplete("City?", **settings)) == wanted
    pieces = [plain(each) for each in HERE.stream_chat(asked, **settings)]
    assert [plain(each) for each in there.stream_chat(asked, **settings)] == pieces
    astream = await there.astream_chat(asked, **settings)
    assert [plain(each) async for each in astream] == pieces
    assert there.complete("City?").raw["model"] == "cities"


def test_metadata_and_names_come_from_the_server(served: Serving) -> None:
    llm = BACoLLM(base_url=served.api)
    assert llm.metadata == HERE.metadata.model_copy(update={"model_name": "cities"})
    assert llm.to_payload() == {
        "class_name": "BACoLLM",
        "model_name": "cities",
        "base_url": served.api,
        "pair": None,
    }
    with pytest.raises(ServerError, match="no server can be reached"):
        BACoLLM(base_url="http://127.0.0.1:1", max_retries=0).metadata  # noqa: B018


def test_objects_and_calls_as_here() -> None:
    class Town(BaseModel):
        """A town."""

        name: str

    def visit(town: str) -> str:
        """Visit a town."""
        return town

    tool, prompt = FunctionTool.from_defaults(visit), PromptTemplate("Which town?")
    for answer in ('{"name": "Oslo"}', call(("visit", {"town": "Oslo"}))):
        pair = told(answer)
        with serving({"told": pair}) as running:
            here, there = BACoLLM(pair=pair), BACoLLM(base_url=running.api)
            if "visit" not in answer:
                assert there.structured_predict(Town, prompt) == Town(name="Oslo")
                continue
            calls = [
                llm.get_tool_calls_from_response(llm.chat_with_tools([tool], "Go.", seed=1))
                for llm in (here, there)
            ]
            assert calls[0] == calls[1] and calls[0][0].tool_kwargs == {"town": "Oslo"}
            cut: dict[str, Any] = {"seed": 1, "max_tokens": 40, "tool_required": True}
            wrong = [
                llm.chat_with_tools([tool], "Go.", **cut).raw["invalid_tool_calls"]
                for llm in (here, there)
            ]
            assert wrong[0] == wrong[1] != []


@pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
def test_the_breadth_kit_as_here(there: BACoLLM, ask: Ask) -> None:
    settings: dict[str, Any] = {"n": 2, "ladder": (0.5, 0.9), "max_samples": 40, "seed": 1}
    wanted = ask(HERE, **settings)
    assert len(wanted) == 2
    assert ask(there, **settings) == wanted


async def test_leaving_a_stream_frees_the_servers_rows() -> None:
    with serving({"p": endless(0.001)}) as running:
        llm = BACoLLM(base_url=running.api, max_tokens=4000)
        stream = llm.stream_complete("Go on.")
        next(stream)
        stream.close()
        assert await asyncio.to_thread(idle, running.decoder)
        astream = await llm.astream_complete("Go on.")
        await anext(astream)
        await astream.aclose()  # type: ignore[attr-defined]
        assert await asyncio.to_thread(idle, running.decoder)


def test_dicts_and_pickles_find_the_server_again(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = BACoLLM(base_url=served.api, api_key="sk-secret", gamma=0.9)
    data = llm.to_dict()
    assert "sk-secret" not in f"{data}{llm!r}{llm.to_payload()}"
    monkeypatch.setenv("BACO_API_KEY", "sk-secret")
    for again in (BACoLLM.from_dict(data), pickle.loads(pickle.dumps(llm)), llm.with_gamma(0.1)):
        assert again.decoder is llm.decoder
    assert BACoLLM.from_dict(data).complete("City?", seed=3).text == (
        HERE.complete("City?", seed=3).text
    )


def test_errors_as_here(there: BACoLLM) -> None:
    with pytest.raises(ParameterError, match="n must be left out"):
        there.complete("City?", n=2)
    with pytest.raises(ParameterError, match="shorter than the base model's context window"):
        there.complete("Oslo? " * 400)
