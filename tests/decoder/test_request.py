"""A conversation becomes requests: checked once, rendered once for each side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from baco_integrations import Completion, Decoder, ModelPair, ScriptedPair
from baco_integrations.core import messages
from baco_integrations.core.errors import PromptError
from baco_integrations.models.scripted import Context


class Counted(ScriptedPair):
    """A pair that notes for which side it is asked to render."""

    def __init__(self) -> None:
        super().__init__({"": {" a": 1}}, {"": {" a": 1}})
        self.sides: list[str] = []

    def render_base(self, *given: Any, **how: Any) -> Any:
        self.sides.append("base")
        return super().render_base(*given, **how)

    def render_aligned(self, *given: Any, **how: Any) -> Any:
        self.sides.append("aligned")
        return ScriptedPair.render_base(self, *given, **how)


@pytest.mark.parametrize("n", [1, 3])
async def test_checked_once_and_rendered_once_for_each_side(
    monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    checked: list[str] = []
    read = messages.read_message

    def noting(where: str, message: Any) -> Any:
        checked.append(where)
        return read(where, message)

    monkeypatch.setattr(messages, "read_message", noting)
    pair = Counted()
    asked = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    with Decoder(pair) as decoder:
        decoder.generate(asked, n=n)
        await decoder.agenerate(asked, n=n)
    assert checked == ["messages[0]", "messages[1]"] * 2
    assert pair.sides == ["base", "aligned"] * 2


# -- going on with a text --------------------------------------------------------------------------

STORY = "Tell me a short story."
GREEDY: dict[str, Any] = {"temperature": 0, "gamma": 0, "max_tokens": 60}
IDEA = {"type": "object", "properties": {"idea": {"type": "string"}}, "required": ["idea"]}
TOOL = {"type": "function", "function": {"name": "find"}}


@pytest.fixture(scope="module")
def tiny() -> Iterator[Decoder]:
    with Decoder(ModelPair.tiny(dtype="float64")) as decoder:
        yield decoder


def begun(text: str, asked: str = STORY) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": text}]


def go_on(decoder: Decoder, text: str, **settings: Any) -> Completion:
    (completion,) = decoder.generate(begun(text), continue_final_message=True, **settings)
    return completion


def test_the_rest_of_an_answer_follows_wherever_it_is_cut(tiny: Decoder) -> None:
    (whole,) = tiny.generate(STORY, **GREEDY)
    assert len(whole.steps) > 40
    for cut in range(1, len(whole.steps) - 1):
        said = "".join(step.text for step in whole.steps[:cut])
        rest = go_on(tiny, said, **GREEDY | {"max_tokens": 60 - cut})
        assert said + rest.text == whole.text
        ids = [step.token_id for step in whole.steps[cut:]]
        assert [step.token_id for step in rest.steps] == ids
        assert rest.usage.prompt_tokens == whole.usage.prompt_tokens + cut


def test_both_sides_read_the_beginning(tiny: Decoder) -> None:
    pair: Any = tiny.pair
    said = "Once upon a time"
    completion = go_on(tiny, said, seed=1, max_tokens=3)
    base = pair.render_base(STORY, tokenize=True) + pair.answer_ids(said)[0]
    aligned = pair.render_aligned(STORY, tokenize=True) + pair.answer_ids(said)[1]
    assert completion.usage[:2] == (len(aligned), len(base))
    # The same ids as a raw prompt, which both sides read: each side alone then says the same.
    for router, ids in (("base", base), ("aligned", aligned)):
        settings = {"router": router, "seed": 1, "max_tokens": 9, "stop": pair.base_stop}
        (raw,) = tiny.generate(ids, raw=True, **settings)
        (text,) = tiny.generate(pair.base_tokenizer.decode(ids), raw=True, **settings)
        assert raw.text == text.text == go_on(tiny, said, **settings).text


def test_seeds_and_streams(tiny: Decoder) -> None:
    asked, settings = begun("Once upon"), {"seed": 3, "gamma": 0.8, "n": 3}
    many = tiny.generate(asked, continue_final_message=True, **settings)
    with tiny.stream(asked, continue_final_message=True, **settings) as stream:
        list(stream)
    assert [c.text for c in stream.completions] == [c.text for c in many]
    assert len({completion.text for completion in many}) > 1


async def test_a_raw_prompt_is_read_as_it_stands(tiny: Decoder) -> None:
    pair: Any = tiny.pair
    (whole,) = tiny.generate(STORY, **GREEDY)
    text, ids = pair.render_aligned(STORY), pair.render_aligned(STORY, tokenize=True)
    for asked in (text, [{"role": "user", "content": text}], ids):
        (completion,) = await tiny.agenerate(asked, raw=True, **GREEDY)
        assert completion.text == f" {whole.text}"  # with the first token's own space
        assert completion.usage.base_prompt_tokens == whole.usage.prompt_tokens


def test_without_the_setting_an_answer_is_an_earlier_turn(tiny: Decoder) -> None:
    (completion,) = tiny.generate(begun("Once upon"), seed=1, max_tokens=5)
    assert not completion.text.startswith(" ")
    earlier: Any = tiny.pair.render_aligned(begun("Once upon"), tokenize=True)
    assert completion.usage.prompt_tokens == len(earlier)


def test_a_scripted_answer_goes_on_where_it_ends() -> None:
    seen: list[Context] = []

    def script(context: Context) -> dict[str, float]:
        seen.append(context)
        return {"": {" a": 1.0}, " a": {" b": 1.0}, " a b": {"c": 1.0}}.get(context.text, {".": 1})

    with Decoder(ScriptedPair(script, script, vocabulary=[" a", " b", "c", "."])) as decoder:
        assert go_on(decoder, "a", max_tokens=2).text == " bc"
        (raw,) = decoder.generate("x: <end>", raw=True, max_tokens=1)
    assert [context.tokens for context in seen[:4:2]] == [(" a",), (" a", " b")]
    assert {context.prompt for context in seen[:4]} == {f"user: {STORY}"}
    assert {context.prompt for context in seen[4:]} == {"x: <end>"}
    assert raw.text == " a"


@pytest.mark.parametrize("lookahead", ["off", 3])
def test_a_form_counts_from_the_beginning_of_the_answer(lookahead: Any) -> None:
    with Decoder(ModelPair.tiny(), lookahead=lookahead) as decoder:
        for completion in decoder.generate(
            begun('{"idea": "a qu'), continue_final_message=True, json_schema=IDEA, seed=1, n=3
        ):
            assert completion.finish_reason == "stop"
            assert json.loads('{"idea": "a qu' + completion.text)["idea"].startswith("a qu")
        assert go_on(decoder, "che", choices=["chess", "cheese"], seed=1).text in ("ss", "ese")
        with pytest.raises(PromptError, match="^messages must be a last message that its form all"):
            go_on(decoder, "Once", json_schema=IDEA)
        (raw,) = decoder.generate("I like", raw=True, choices=["chess"], seed=1)
        assert raw.text.strip() == "chess"
        (raw,) = decoder.generate("Here:", raw=True, json_schema=IDEA, seed=1)
        assert set(json.loads(raw.text)) == {"idea"}


def test_tools_beside_a_begun_answer(tiny: Decoder) -> None:
    assert not go_on(tiny, "Once upon", tools=[TOOL], seed=1, max_tokens=9).tool_calls
    opener = tiny.pair.call_format.opener
    for said in (opener, f"Well. {opener}{{", opener[:3]):
        with pytest.raises(PromptError, match="^messages must be an answer that begins with text"):
            go_on(tiny, said, tools=[TOOL])
        assert go_on(tiny, said, seed=1, max_tokens=2).steps


@pytest.mark.parametrize("asked", [STORY, begun("x") * 2 + [{"role": "user", "content": "y"}]])
async def test_what_cannot_be_gone_on_with_is_refused_at_once(tiny: Decoder, asked: Any) -> None:
    for call in (tiny.generate, tiny.stream, tiny.agenerate, tiny.astream):
        with pytest.raises(PromptError, match="^messages"):
            found: Any = call(asked, continue_final_message=True)
            await found
    with pytest.raises(PromptError, match="^messages must be one text"):
        tiny.astream(begun("x"), raw=True)


@pytest.mark.parametrize("asked", ["far too long " * 5000, [5] * 5000])
def test_a_raw_prompt_must_fit(tiny: Decoder, asked: Any) -> None:
    with pytest.raises(PromptError, match="^messages must be shorter than"):
        tiny.generate(asked, raw=True)
