"""Tools, structured output, and what many calls share: one load, one batch, freed rows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, Literal, TypedDict

import pytest
from jsonschema import Draft202012Validator
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel, Field

from baco_integrations import ModelPair, ScriptedPair
from baco_integrations.core.errors import DeadlineError, DecoderError, ParameterError
from baco_integrations.core.tool_calls import FORMATS
from baco_integrations.langchain import ChatBACo
from baco_integrations.models.scripted import END, Context
from baco_integrations.text.prompts import call_format
from tests.families import make_model, make_tokenizer
from tests.scripted import endless, eventually


class Gift(BaseModel):
    """A gift."""

    idea: str = Field(max_length=24)
    size: Literal["small", "large"]


class Note(TypedDict):
    """A note."""

    text: Literal["yes", "no"]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def saying(text: str, *others: str) -> ScriptedPair:
    """A pair whose aligned side says just this text, one character at a time."""
    characters = sorted(set("".join([text, *others])))

    def script(context: Context) -> dict[str, float]:
        said = context.text
        rest = dict.fromkeys(characters, 1e-9)
        following = text[len(said) : len(said) + 1] if text.startswith(said) else ""
        return {**rest, (following or END): 1.0}

    return ScriptedPair(script, script, vocabulary=characters)


@pytest.fixture
def tiny() -> ChatBACo:
    return ChatBACo(pair="tiny", gamma=0.9, max_tokens=120)


CALL = '{"name": "add", "arguments": {"a": 1, "b": 23}}'


def test_calls_are_streamed_piece_by_piece() -> None:
    pair = saying(f"Sure.\n<tool_call>\n{CALL}\n</tool_call>")
    llm = ChatBACo(pair=pair, temperature=0, seed=1).bind_tools([add])
    chunks = list(llm.stream("1 + 23?"))
    assert "".join(chunk.text for chunk in chunks) == "Sure."
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert len(pieces) > 5 and pieces[0]["name"] == "add" and pieces[1]["name"] is None
    whole: Any = sum(chunks[1:], chunks[0])
    assert isinstance(whole, AIMessageChunk)
    message = llm.invoke("1 + 23?")
    for told in (whole, message):
        (call,) = told.tool_calls
        assert (call["name"], call["args"]) == ("add", {"a": 1, "b": 23})
        assert told.response_metadata["finish_reason"] == "tool_calls"
        assert told.text == "Sure."
    assert whole.tool_calls == message.tool_calls  # ids too: the request is the same
    assert len(message.tool_calls[0]["id"] or "") == 9


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_of_the_presets(form: str) -> None:
    text = FORMATS[form].write([("add", {"a": 1, "b": 2})])
    pair = saying(text)
    pair.call_format = FORMATS[form]
    for choice in ("auto", "any", "add"):
        llm = ChatBACo(pair=pair, temperature=0).bind_tools([add], tool_choice=choice)
        (call,) = llm.invoke("1 + 2?").tool_calls
        assert (call["name"], call["args"]) == ("add", {"a": 1, "b": 2})


TEMPLATES = {
    "hermes": "{% if tools %}In <tool_call></tool_call> tags.{% endif %}",
    "llama3": "{% if tools %}name and parameters{% endif %}{# ipython #}",
    "mistral": "{% if tools %}{% endif %}{# [TOOL_CALLS][{name, arguments}] #}",
    "mistral-args": "{% if tools %}{% endif %}{# [TOOL_CALLS]name[ARGS]arguments #}",
    "json": "{% if tools %}{% endif %}",
}


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
@pytest.mark.parametrize("form", sorted(FORMATS))
def test_marks_of_calls_that_are_control_tokens(form: str, kind: str) -> None:
    marks = tuple(re.findall(r"\[[A-Z_]+\]|</?\w+>", TEMPLATES[form]))
    aligned = make_tokenizer(kind, chat_template=True, extra_specials=marks)
    aligned.chat_template += TEMPLATES[form]
    base, other = (make_model("llama", len(aligned), seed=seed) for seed in (1, 2))
    pair = ModelPair(base, other, make_tokenizer(kind), aligned, name=f"{form}-{kind}")
    assert pair.call_format is FORMATS[form]
    llm = ChatBACo(pair=pair, max_tokens=500).bind_tools([add], tool_choice="any")
    message = llm.invoke("1 + 2?", seed=3, logprobs=True, parallel_tool_calls=False)
    (call,) = message.tool_calls
    assert call["name"] == "add" and call["args"].keys() == {"a", "b"}
    written = {token["token_id"] for token in message.response_metadata["logprobs"]}
    assert set(aligned.convert_tokens_to_ids(marks)) <= written


def test_the_newer_form_is_told_by_its_divider() -> None:
    template = "{{ tools }}[TOOL_CALLS] [ or [TOOL_CALLS]name[ARGS]{}"
    assert call_format(template) is FORMATS["mistral-args"]


@pytest.mark.parametrize("space", ["", " "])
def test_a_list_of_calls_stands_where_the_template_has_it(space: str) -> None:
    aligned = make_tokenizer("sentencepiece", chat_template=True, extra_specials=("[TOOL_CALLS]",))
    aligned.chat_template += f"{{% if tools %}}{{% endif %}}{{# [TOOL_CALLS]{space}[ #}}"
    base, other = (make_model("mistral", len(aligned), seed=seed) for seed in (1, 2))
    pair = ModelPair(base, other, make_tokenizer("sentencepiece"), aligned, name="list")
    assert pair.call_format.opener == "[TOOL_CALLS]"
    llm = ChatBACo(pair=pair, max_tokens=500).bind_tools([add], tool_choice="any")
    message = llm.invoke("1 + 2?", seed=3, logprobs=True)
    assert message.tool_calls and not message.invalid_tool_calls
    first, second = (token["token_id"] for token in message.response_metadata["logprobs"][:2])
    assert aligned.convert_ids_to_tokens(first) == "[TOOL_CALLS]"
    assert aligned.convert_ids_to_tokens(second).startswith("▁") == bool(space)


def test_a_call_that_is_cut_off_is_invalid() -> None:
    pair = saying(f"<tool_call>\n{CALL}\n</tool_call>")
    message = ChatBACo(pair=pair, max_tokens=45).bind_tools([add]).invoke("1 + 23?")
    (wrong,) = message.invalid_tool_calls
    assert wrong["name"] == "add" and "ends" in (wrong["error"] or "")
    assert not message.tool_calls
    assert message.response_metadata["finish_reason"] == "length"


def test_a_forced_call_follows_its_schema_whatever_the_model_wants(tiny: ChatBACo) -> None:
    class Pick(BaseModel):
        """Pick a thing."""

        thing: Literal["scarf", "mug"]
        count: int = Field(ge=1, le=9)

    for choice in (
        "any",
        "required",
        True,
        "Pick",
        {"type": "function", "function": {"name": "Pick"}},
    ):
        llm = tiny.bind_tools([add, Pick], tool_choice=choice, parallel_tool_calls=False)
        (call,) = llm.invoke("Hello!", temperature=1.5, seed=4, max_tokens=400).tool_calls
        if choice not in ("any", "required", True):
            assert Pick(**call["args"]) and call["name"] == "Pick"
    plain = tiny.bind_tools([add], tool_choice="none").invoke("Name a hobby.")
    assert plain.text and not plain.tool_calls


def test_histories_with_calls_and_results(tiny: ChatBACo) -> None:
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "x", "type": "tool_call"}
    history = [
        HumanMessage("1 + 2?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("3", tool_call_id="x"),
    ]
    llm = tiny.bind_tools([add])
    assert llm.invoke(history).usage_metadata
    rendered = str(tiny.decoder.pair.render_aligned("Hi", tools=[]))
    assert "add" not in rendered
    assert tiny.get_num_tokens_from_messages(
        history, tools=[add]
    ) > tiny.get_num_tokens_from_messages(history)


@pytest.mark.parametrize(
    ("bad", "parameter"),
    [
        ({"tool_choice": "ad"}, "tool_choice"),
        ({"gamma": 3}, "gamma"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        ({"regex": "a+"}, "regex"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"tempratur": 1}, "tempratur"),
    ],
)
def test_bad_bindings_are_refused_at_once(tiny: ChatBACo, bad: dict, parameter: str) -> None:
    with pytest.raises(ParameterError) as caught:
        tiny.bind_tools([add], **bad)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(tiny: ChatBACo, method: str) -> None:
    gift = tiny.with_structured_output(Gift, method=method).invoke("Suggest a gift.")
    assert isinstance(gift, Gift)
    note = tiny.with_structured_output(Note, method=method).invoke("Yes or no?")
    assert note["text"] in ("yes", "no")
    schema = {"title": "Box", "description": "A box.", **Gift.model_json_schema()}
    assert Gift(**tiny.with_structured_output(schema, method=method).invoke("Suggest a gift."))
    cut = tiny.with_structured_output(Gift, method=method, include_raw=True, max_tokens=6)
    both = cut.invoke("Suggest a gift.")
    assert isinstance(both["raw"], AIMessage) and both["parsed"] is None
    assert method == "function_calling" or both["parsing_error"]


def test_contents_of_structured_output_vary_with_gamma_and_structure_does_not() -> None:
    cities = ["Rome", "Oslo", "Bergen", "Lima"]
    frame = {"": '{"', '{"': "city", '{"city': '": "'}
    ends = {f'{{"city": "{city}': '"}' for city in cities}
    in_value = '{"city": "'

    def aligned(context: Context) -> dict[str, float]:
        following = {**frame, **ends, in_value: "Rome"}.get(context.text, END)
        return {token: 1e-9 for token in cities} | {following: 1.0}

    def base(context: Context) -> dict[str, float]:
        if context.text == in_value:
            return dict.fromkeys(cities, 0.25)
        return {ends.get(context.text, END): 1.0}

    pair = ScriptedPair(base, aligned, vocabulary=[*frame.values(), *cities, '"}'])
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    found = {}
    for gamma in (0.0, 0.9):
        llm = ChatBACo(pair=pair, gamma=gamma, json_schema=schema, logprobs=True, temperature=1)
        answers = [llm.invoke("Name a city.", seed=seed) for seed in range(24)]
        values = [json.loads(answer.text) for answer in answers]
        assert all(Draft202012Validator(schema).is_valid(value) for value in values)
        found[gamma] = {value["city"] for value in values}
        for answer in answers:
            told = answer.response_metadata["logprobs"]
            by_base = {step["text"] for step in told if step["source"] == "base"}
            assert by_base <= set(cities)
    assert found == {0.0: {"Rome"}, 0.9: set(cities)}


def test_regex_choices_and_any_json(tiny: ChatBACo) -> None:
    assert tiny.invoke("When?", regex=r"\d{4}-\d{2}").text[4] == "-"
    assert tiny.invoke("Sure?", choices=["yes", "no"]).text in ("yes", "no")
    text = tiny.invoke("Box?", response_format=Gift).text
    assert Gift.model_validate_json(text)
    with pytest.raises(ParameterError, match="json_schema must be a JSON schema that can be"):
        tiny.invoke("x", json_schema={"type": "strin"})


def test_a_grammar_that_cannot_be_followed_harms_nobody_else() -> None:
    llm = ChatBACo(pair=saying("Rome"), temperature=0)
    with pytest.raises(DecoderError, match="no token that the grammar allows"):
        llm.invoke("City?", regex="[0-9]+")
    assert llm.invoke("City?").text == "Rome"


def test_timeout() -> None:
    llm = ChatBACo(pair=endless(0.01), timeout=0.2, max_tokens=4000)
    with pytest.raises(DeadlineError, match="timeout of 0.2 s"):
        llm.invoke("Go on.")
    assert llm.invoke("Go on.", max_tokens=2, timeout=60).text


@pytest.mark.slow
def test_24_inputs_with_6_gammas_meet_in_one_batch() -> None:
    pair = ModelPair.tiny(dtype="float64")  # where a batch changes no bit that matters
    llm = ChatBACo(pair=pair, max_tokens=60, temperature=0.7).configurable_fields(
        gamma=ConfigurableField(id="gamma"), seed=ConfigurableField(id="seed")
    )
    gammas = (0.0, 0.15, 0.3, 0.5, 0.7, 1.0)
    configs: list[Any] = [
        {"configurable": {"gamma": gammas[row % 6], "seed": row}, "max_concurrency": 24}
        for row in range(24)
    ]
    questions = [f"Name three gifts for {row} friends." for row in range(24)]  # of one length
    decoder = ChatBACo(pair=pair).decoder
    before = (decoder.metrics.iterations, decoder.metrics.rows)
    answers = llm.batch(questions, configs)
    iterations = decoder.metrics.iterations - before[0]
    rows = (decoder.metrics.rows - before[1]) / iterations
    assert rows >= 16, f"{rows:.1f} rows per iteration"
    assert {answer.response_metadata["gamma"] for answer in answers} == set(gammas)
    alone = [llm.invoke(*each).text for each in zip(questions, configs, strict=True)]
    assert [answer.text for answer in answers] == alone


def test_100_reconstructions_load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from baco_integrations.models.checkpoint import Checkpoint

    loads = []
    load = Checkpoint.load
    monkeypatch.setattr(Checkpoint, "load", lambda *given: loads.append(given) or load(*given))
    first = ChatBACo(pair="tiny", dtype="bfloat16", max_tokens=1)
    assert not loads  # nothing is loaded by an object alone
    llm = first.configurable_fields(gamma=ConfigurableField(id="gamma"))
    for number in range(100):
        llm.invoke("Hi", {"configurable": {"gamma": number / 100}})
    assert len(loads) == 2  # base and aligned


class Raising(BaseCallbackHandler):
    raise_error = True

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        raise KeyError(token)


def _closed(llm: ChatBACo) -> None:
    stream: Iterator[Any] = llm.stream("Go on.")
    next(stream)
    stream.close()  # type: ignore[attr-defined]


def _raising(llm: ChatBACo) -> None:
    with pytest.raises(KeyError):
        list(llm.stream("Go on.", config={"callbacks": [Raising()]}))


def _cancelled(llm: ChatBACo) -> None:
    async def run() -> None:
        task = asyncio.ensure_future(llm.ainvoke("Go on."))
        started = llm.decoder.metrics.iterations
        while llm.decoder.metrics.iterations < started + 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


@pytest.mark.parametrize("leave", [_closed, _raising, _cancelled])
def test_a_row_that_nobody_wants_is_freed_within_two_iterations(leave: Any) -> None:
    llm = ChatBACo(pair=endless(0.002), max_tokens=4000)
    metrics = llm.decoder.metrics
    keeper = llm.stream("A neighbour that keeps the loop turning.")
    next(keeper)
    leave(llm)
    # The neighbour is one row of each iteration; the numbers may be read in the middle of one.
    left = metrics.iterations
    further = metrics.rows - left
    assert eventually(lambda: metrics.iterations >= left + 30)
    assert metrics.rows - metrics.iterations - further <= 2 + 2
    keeper.close()  # type: ignore[attr-defined]
