"""Structured output: objects of pydantic classes, whole and as they come."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Literal

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field, RootModel, ValidationError, create_model, field_validator

from baco_integrations.core.errors import CutOffError, DecoderError, ParameterError
from baco_integrations.llama_index import BACoLLM
from tests.llama_index.pairs import call, told
from tests.scripted import idle


class Gift(BaseModel):
    """A gift."""

    idea: str = Field(max_length=24)
    size: Literal["small", "large"]
    tags: list[Annotated[str, Field(max_length=8)]] = Field([], max_length=2)


class Even(BaseModel):
    """An even number, which no schema can say."""

    number: int

    @field_validator("number")
    @classmethod
    def _even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("odd")
        return number


SCARF = Gift(idea="a scarf", size="small", tags=["red", "warm"])
PROMPT = PromptTemplate("A gift for {name}.")


def written(value: BaseModel) -> str:
    return json.dumps(value.model_dump())


def giving(value: BaseModel) -> BACoLLM:
    return BACoLLM(pair=told(written(value)))


async def _in_every_way(llm: BACoLLM, cls: Any, **given: Any) -> tuple[list[Any], list[list[Any]]]:
    prompt = PromptTemplate(PROMPT.template)  # core leaves its parser in the one it is given
    whole = [
        llm.structured_predict(cls, prompt, given, name="Ann"),
        await llm.astructured_predict(cls, prompt, given, name="Ann"),
    ]
    astream = await llm.astream_structured_predict(cls, prompt, given, name="Ann")
    streamed = [
        list(llm.stream_structured_predict(cls, prompt, given, name="Ann")),
        [each async for each in astream],
    ]
    return whole, streamed


async def test_objects_whole_and_as_they_come() -> None:
    whole, streamed = await _in_every_way(giving(SCARF), Gift)
    assert whole == [SCARF, SCARF]
    for objects in streamed:
        assert objects[-1] == SCARF
        assert isinstance(objects[0], FlexibleModel) and objects[0].idea is None
        ideas = [each.idea for each in objects]
        assert {"a", "a sc", "a scarf"} <= set(ideas)
        tags = [each.tags for each in objects if each.tags]
        assert tags[0][0] in "red" and ["red", "w"] in tags
        assert all(isinstance(each, Gift) for each in objects if each.tags)  # valid from here on


class Share(RootModel[float]):
    pass


async def test_a_number_grows() -> None:
    whole, streamed = await _in_every_way(giving(Share(-1.5e-7)), Share)
    assert whole == [Share(-1.5e-7)] * 2
    for objects in streamed:
        assert objects[-1] == Share(-1.5e-7)


async def test_settings_and_the_schema_reach_the_decoder() -> None:
    seen: list[str] = []
    llm = BACoLLM(
        pair=told(lambda prompt: [seen.append(prompt), written(SCARF)][1]),
        system_prompt="Be kind.",
    )
    given = {"gamma": 0.2, "show_schema": False}
    assert llm.structured_predict(Gift, PROMPT, given, name="Ann") == SCARF
    assert given == {"gamma": 0.2, "show_schema": False}
    assert set(seen) == {"system: Be kind.\nuser: A gift for Ann."}
    llm.structured_predict(Gift, PROMPT, name="Ann")
    assert any('"maxLength": 24' in prompt for prompt in seen)  # only aligned is told
    for settings, says in (({"gama": 1}, "'gamma'"), ({"gamma": 2}, "gamma must be")):
        with pytest.raises(ParameterError, match=says):
            llm.structured_predict(Gift, PROMPT, settings, name="Ann")
        with pytest.raises(ParameterError, match=says):
            list(llm.stream_structured_predict(Gift, PROMPT, settings, name="Ann"))


async def test_a_random_pair_follows_the_schema() -> None:
    llm = BACoLLM(pair="tiny", gamma=0.9, temperature=1.5, max_tokens=400)
    whole, streamed = await _in_every_way(llm, Gift, seed=3)
    assert all(isinstance(each, Gift) for each in whole)
    assert whole[0] == whole[1] == streamed[0][-1] == streamed[1][-1]


async def test_an_answer_that_is_cut_off_says_what_to_raise() -> None:
    llm = giving(SCARF)
    says = "cut off after 9 tokens, before the Gift was whole. Raise max_tokens"
    with pytest.raises(CutOffError, match=says):
        llm.structured_predict(Gift, PROMPT, {"max_tokens": 9}, name="Ann")
    with pytest.raises(CutOffError, match=says):
        await llm.astructured_predict(Gift, PROMPT, {"max_tokens": 9}, name="Ann")
    seen = []
    with pytest.raises(CutOffError, match=says):
        for each in llm.stream_structured_predict(Gift, PROMPT, {"max_tokens": 9}, name="Ann"):
            seen.append(each)
    assert len(seen) == 9
    with pytest.raises(CutOffError, match=says):
        async for _ in await llm.astream_structured_predict(
            Gift, PROMPT, {"max_tokens": 9}, name="Ann"
        ):
            pass


async def test_the_class_alone_says_what_an_answer_looks_like() -> None:
    for other in ({"json_schema": {}}, {"regex": "a"}, {"choices": ["a"]}):
        with pytest.raises(ParameterError, match=f"{[*other][0]} must be left out of llm_kwargs"):
            await _in_every_way(giving(SCARF), Gift, **other)
    whole, _ = await _in_every_way(giving(SCARF), Gift, json_schema=None)
    assert whole == [SCARF, SCARF]


async def test_objects_come_as_ever_where_alternatives_are_asked_for() -> None:
    _, plain = await _in_every_way(giving(SCARF), Gift)
    _, streamed = await _in_every_way(giving(SCARF), Gift, alternatives=2)
    for objects, others in zip(plain, streamed, strict=True):
        assert [each.model_dump() for each in objects] == [each.model_dump() for each in others]


async def test_a_stream_that_is_left_frees_its_row() -> None:
    long = '{"idea": "a scarf", "size": "small", "tags": ["' + "x" * 3000
    llm = BACoLLM(pair=told(long, delay=0.002), max_tokens=4000)
    endless = create_model("Endless", idea=(str, ...), size=(str, ...), tags=(list[str], ...))
    stream = llm.stream_structured_predict(endless, PROMPT, name="Ann")
    next(stream)
    stream.close()
    assert await asyncio.to_thread(idle, llm.decoder)
    astream = await llm.astream_structured_predict(endless, PROMPT, name="Ann")
    await anext(astream)
    await astream.aclose()
    assert await asyncio.to_thread(idle, llm.decoder)
    assert not llm.decoder.running and llm.decoder.metrics.tokens < 1000


def test_what_only_the_class_asks_for_is_its_own_error() -> None:
    assert giving(Even(number=4)).structured_predict(Even, PROMPT, name="Ann").number == 4
    with pytest.raises(ValidationError, match="odd"):
        BACoLLM(pair=told('{"number": 3}')).structured_predict(Even, PROMPT, name="Ann")


async def test_lists_of_objects() -> None:
    gifts = RootModel[list[Gift]]
    whole, streamed = await _in_every_way(giving(gifts([SCARF, SCARF])), gifts)
    assert whole[0].root == [SCARF, SCARF]
    for objects in streamed:
        assert objects[-1] == whole[0]
        assert [{"idea": "a sca"}] in [each.root for each in objects]


async def test_contents_vary_with_gamma() -> None:
    llm = BACoLLM(pair="tiny", temperature=1, max_tokens=200)
    found = []
    for gamma in (0.0, 1.0):
        asked = (
            llm.astructured_predict(Gift, PROMPT, {"gamma": gamma, "seed": seed}, name="Ann")
            for seed in range(12)
        )
        found.append({gift.idea for gift in await asyncio.gather(*asked)})
    assert len(found[1]) > len(found[0])


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # core's own streams use it
async def test_a_structured_llm() -> None:
    llm = giving(SCARF).as_structured_llm(Gift)
    asked = [ChatMessage(role="user", content="A gift for {name}, like {'a': 1}?")]
    answers = [
        llm.chat(asked, gamma=0.2),
        await llm.achat(asked),
        list(llm.stream_chat(asked))[-1],
        [each async for each in await llm.astream_chat(asked)][-1],
    ]
    for answer in answers:
        assert answer.raw == SCARF
        assert answer.message.role == MessageRole.ASSISTANT
        assert json.loads(answer.message.content or "") == SCARF.model_dump()
    for completion in (llm.complete("A gift?"), await llm.acomplete("A gift?")):
        assert completion.raw == SCARF and Gift.model_validate_json(completion.text) == SCARF


@pytest.mark.parametrize("mode", [PydanticProgramMode.FUNCTION, PydanticProgramMode.LLM])
async def test_other_ways_to_objects_are_cores_own(mode: PydanticProgramMode) -> None:
    by_call = mode == PydanticProgramMode.FUNCTION
    text = call(("Gift", SCARF.model_dump())) if by_call else written(SCARF)
    llm = BACoLLM(pair=told(text), pydantic_program_mode=mode)
    whole, streamed = await _in_every_way(llm, Gift)
    assert whole == [SCARF, SCARF]
    assert [objects[-1] for objects in streamed] == [SCARF, SCARF]


def test_a_program_forces_the_call() -> None:
    messages = [ChatMessage(role="user", content="A gift?")]
    program = FunctionCallingProgram.from_defaults(
        Gift,
        llm=BACoLLM(pair="tiny", max_tokens=400, seed=5),
        prompt=ChatPromptTemplate(message_templates=messages),
    )
    assert isinstance(program(llm_kwargs={"gamma": 0.9}), Gift)


def test_an_object_that_repeats_a_name_loses_no_value() -> None:
    class Free(BaseModel):
        counts: dict[str, int]

    llm = BACoLLM(pair=told('{"counts": {"a": 1, "a": 2}}'))
    with pytest.raises(DecoderError, match="holds 'a' twice"):
        llm.structured_predict(Free, PROMPT, name="Ann")
