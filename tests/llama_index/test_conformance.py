"""Every way of asking gives what the bare decoder gives, and none stands in another's way."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock

from baco_integrations import ModelPair, SamplingParams
from baco_integrations.core.errors import PromptError
from baco_integrations.core.outputs import Completion
from baco_integrations.llama_index import BACoLLM
from tests.scripted import cities, endless, idle

QUESTION = "Name a hobby."
TOOL = {
    "type": "function",
    "function": {
        "name": "pick",
        "parameters": {
            "type": "object",
            "properties": {"thing": {"enum": ["scarf", "mug"]}, "count": {"enum": [1, 2, 3]}},
            "required": ["thing", "count"],
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"idea": {"type": "string", "maxLength": 24}},
    "required": ["idea"],
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"max_tokens": 30},
    "tools": {"tools": [TOOL], "tool_choice": "any", "parallel_tool_calls": False},
    "structured": {"json_schema": SCHEMA},
}


@pytest.fixture(scope="module")
def llm() -> BACoLLM:
    return BACoLLM(pair="tiny", gamma=0.8, temperature=1)


@pytest.fixture(scope="module")
def bare(llm: BACoLLM) -> dict[str, Completion]:
    """What the decoder itself says to each kind of request."""
    own = {"gamma": 0.8, "temperature": 1, "seed": 11}
    return {
        kind: llm.decoder.generate(QUESTION, SamplingParams(**own, **settings))[0]
        for kind, settings in KINDS.items()
    }


async def _ask(llm: BACoLLM, way: str, awaited: bool, streamed: bool, **settings: Any) -> Any:
    """Ask in one of eight ways; return the last response."""
    name = ("a" if awaited else "") + ("stream_" if streamed else "") + way
    asked: Any = [ChatMessage(role="user", content=QUESTION)] if way == "chat" else QUESTION
    found = getattr(llm, name)(asked, **settings)
    found = await found if awaited else found
    if not streamed:
        return found
    return [each async for each in found][-1] if awaited else list(found)[-1]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("way", ["chat", "complete"])
async def test_as_the_bare_decoder(
    llm: BACoLLM, bare: dict[str, Completion], way: str, awaited: bool, streamed: bool, kind: str
) -> None:
    found = await _ask(llm, way, awaited, streamed, seed=11, **KINDS[kind])
    wanted = bare[kind]
    chat = way == "chat"
    assert ((found.message.content or "") if chat else found.text) == wanted.text
    assert len(wanted.tool_calls) == (kind == "tools")
    besides = found.message.additional_kwargs if chat else found.additional_kwargs
    written = [(call["id"], call["function"]) for call in besides.get("tool_calls", ())]
    assert written == [
        (call.id, {"name": call.name, "arguments": call.arguments}) for call in wanted.tool_calls
    ]
    if chat:
        blocks = [each for each in found.message.blocks if isinstance(each, ToolCallBlock)]
        assert [each.tool_kwargs for each in blocks] == [call.parsed for call in wanted.tool_calls]
    assert found.delta == ("" if streamed else None)
    usage = {"prompt_tokens": wanted.usage.prompt_tokens, "completion_tokens": len(wanted.steps)}
    assert found.raw["usage"].items() >= usage.items()
    assert found.additional_kwargs.items() >= usage.items()
    assert found.raw["finish_reason"] == wanted.finish_reason
    assert json.loads(json.dumps(found.raw)) == found.raw  # plain data


# -- many at once ----------------------------------------------------------------------------------

LONG = {"regex": "[a-z ]{400}", "max_tokens": 500}


async def test_the_loop_ticks_while_tokens_are_decoded() -> None:
    llm = BACoLLM(pair=ModelPair.tiny())
    await llm.achat([ChatMessage(content="Hi")], max_tokens=1)
    started, ticks = time.monotonic(), 0
    while time.monotonic() < started + 0.5:  # until it took long enough, on any machine
        task = asyncio.create_task(llm.achat([ChatMessage(content="Go on.")], **LONG))
        while not task.done():
            await asyncio.sleep(0.005)
            ticks += 1
        assert (await task).raw["usage"]["completion_tokens"] > 50
    assert ticks >= 50


@pytest.mark.slow
async def test_calls_at_once_share_their_iterations() -> None:
    llm = BACoLLM(pair=ModelPair.tiny(), temperature=1)
    asked = [ChatMessage(content="Go on.")]
    await llm.achat(asked, **LONG)
    began = time.monotonic()
    alone = await llm.achat(asked, seed=3, **LONG)
    one = time.monotonic() - began
    metrics = llm.decoder.metrics
    rows, iterations, began = metrics.rows, metrics.iterations, time.monotonic()
    answers = await asyncio.gather(*(llm.achat(asked, seed=3, **LONG) for _ in range(8)))
    rows, iterations = metrics.rows - rows, metrics.iterations - iterations
    print(f"8 calls took {(time.monotonic() - began) / one:.1f} times as long as one")
    assert rows / iterations >= 6, f"{rows / iterations:.1f} rows per iteration"
    assert {str(answer) for answer in answers} == {str(alone)}


@pytest.mark.parametrize("way", ["chat", "complete"])
async def test_a_stream_that_is_left_frees_its_row(way: str) -> None:
    llm = BACoLLM(pair=endless(0.002), max_tokens=4000)
    asked: Any = [ChatMessage(content="Go on.")] if way == "chat" else "Go on."
    tools = {"tools": [TOOL]}

    async def listen() -> None:
        async for _ in await getattr(llm, f"astream_{way}")(asked, **tools):
            pass

    task = asyncio.create_task(listen())
    while llm.decoder.metrics.tokens < 5:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(idle, llm.decoder)
    stream = getattr(llm, f"stream_{way}")(asked, **tools)
    next(stream)
    stream.close()
    assert await asyncio.to_thread(idle, llm.decoder)
    assert llm.decoder.metrics.tokens < 1000
    assert not llm.decoder.running


async def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_decoded() -> None:
    pair = cities()
    llm = BACoLLM(pair=pair)
    text = "Oslo? " * 400
    for way in ("chat", "complete"):
        asked: Any = [ChatMessage(content=text)] if way == "chat" else text
        for name in (way, f"stream_{way}"):
            with pytest.raises(PromptError, match=r"window of 2048 tokens, got '24\d\d tokens'"):
                getattr(llm, name)(asked)
            with pytest.raises(PromptError, match=r"window of 2048 tokens, got '24\d\d tokens'"):
                answer = await getattr(llm, f"a{name}")(asked)
                await anext(answer)  # a stream tells with its first token
    assert llm.decoder.metrics.tokens == llm.decoder.metrics.prefilled == 0
