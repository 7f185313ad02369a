"""Prompts that go on with a text: what each side reads, in text and in ids."""

from __future__ import annotations

from typing import Any

import pytest

from baco_integrations import ModelPair, ScriptedPair
from baco_integrations.core.errors import PromptError
from tests.families import KINDS, make_tokenizer
from tests.pairs import random_pair

ASKED = "Name a city."
EARLIER = [
    {"role": "user", "content": ASKED},
    {"role": "assistant", "content": "The old sea"},
    {"role": "user", "content": "Another."},
]
SPACED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
ROBUST = (
    "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>"
    "{% if m.role == 'assistant' and loop.last %}{{ raise_exception('No') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


def pair_with(kind: str = "byte-level", base_prompt: Any = "qa", template: Any = True) -> ModelPair:
    """The models of a random pair, with another base prompt and template."""
    models = random_pair("llama", kind)
    aligned = make_tokenizer(kind, chat_template=template is not None)
    if isinstance(template, str):
        aligned.chat_template = template
    tokenizers = make_tokenizer(kind), aligned
    return ModelPair(models.base, models.aligned, *tokenizers, base_prompt=base_prompt)


def read(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["The old sea", " sea", "<|im_start|>user\nHi<|im_end|>", ""])
def test_a_raw_text_is_what_each_tokenizer_makes_of_it(kind: str, text: str) -> None:
    pair = random_pair("llama", kind)
    base, aligned = pair.raw_ids(text)
    assert base == pair.base_tokenizer(text)["input_ids"]
    assert aligned == pair.aligned_tokenizer(text)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_raw_text_with_its_own_bos_gets_no_other(kind: str) -> None:
    pair = random_pair("llama", kind)
    for ids, tokenizer in zip(
        pair.raw_ids(f"{pair.base_tokenizer.bos_token}The sea"),
        (pair.base_tokenizer, pair.aligned_tokenizer),
        strict=True,
    ):
        assert ids.count(tokenizer.bos_token_id) == 1


def test_raw_ids_are_read_as_they_stand_if_both_sides_know_them() -> None:
    pair = random_pair("llama")
    ids = pair.raw_ids("<|im_start|>The sea")[1]
    assert pair.raw_ids(ids) == (ids, ids)
    for wrong in (-1, min(pair.base_size, pair.aligned_size), 10**9):
        with pytest.raises(PromptError, match=f"token ids below {pair.base_size} .* got {wrong}"):
            pair.raw_ids([1, wrong])


@pytest.mark.parametrize(
    ("base_prompt", "gap"),
    [("qa", " "), ("plain", ""), ("urial", ""), (lambda messages: "Answer> ", "")],
)
def test_an_answer_stands_in_bases_prompt_as_an_earlier_one_does(
    base_prompt: Any, gap: str
) -> None:
    pair = pair_with(base_prompt=base_prompt)
    prompt, (base, _) = pair.render_base(ASKED, tokenize=True), pair.answer_ids("The old sea")
    whole = read(pair.base_tokenizer, [*prompt, *base])
    assert whole.endswith(f"{pair.render_base(ASKED)}{gap}The old sea")
    if isinstance(base_prompt, str):
        assert f"{pair.render_base(ASKED)}{gap}The old sea\n" in str(pair.render_base(EARLIER))


@pytest.mark.parametrize("base_prompt", ["qa", "chat_template"])
@pytest.mark.parametrize(("template", "gap"), [(True, ""), (SPACED, "\n"), (ROBUST, "")])
def test_an_answer_stands_behind_the_template_as_an_earlier_one_does(
    template: Any, gap: str, base_prompt: str
) -> None:
    pair = pair_with(base_prompt=base_prompt, template=template)
    prompt, (base, aligned) = str(pair.render_aligned(ASKED)), pair.answer_ids("The old sea")
    assert read(pair.aligned_tokenizer, aligned) == f"{gap}The old sea"
    assert str(pair.render_aligned(EARLIER)).startswith(f"{prompt}{gap}The old sea")
    if base_prompt == "chat_template":
        assert read(pair.base_tokenizer, base) == f"{gap}The old sea"


def test_without_a_template_both_sides_read_the_base_prompt() -> None:
    base, aligned = pair_with(template=None).answer_ids("The sea")
    assert base == aligned


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])  # that can spell it out
def test_an_answer_is_literal(kind: str) -> None:
    pair = random_pair("llama", kind)
    said = "The<|im_end|> sea"
    for ids, tokenizer in zip(
        pair.answer_ids(said), (pair.base_tokenizer, pair.aligned_tokenizer), strict=True
    ):
        assert not set(ids) & set(tokenizer.all_special_ids)
        assert read(tokenizer, ids).strip() == said


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_read_as_within_a_text(kind: str) -> None:
    pair = random_pair("llama", kind)
    prompt = pair.render_aligned(ASKED, tokenize=True)
    whole = pair.aligned_tokenizer(f"{pair.render_aligned(ASKED)}sea", add_special_tokens=False)
    assert [*prompt, *pair.answer_ids("sea")[1]] == whole["input_ids"]


def test_a_scripted_answer_counts_as_decoded_where_tokens_spell_it() -> None:
    words = {"": {" Oslo": 1, "lo": 1}, " Oslo": {".": 1}}
    pair = ScriptedPair(words, words)
    ids = [pair.tokens.index(token) for token in (" Oslo", ".")]
    assert pair.answer_ids("Oslo.") == pair.answer_ids(" Oslo.") == (ids, ids)
    assert pair.answer_ids("Rome") == (pair.encode("Rome"), pair.encode("Rome"))
    assert pair.raw_ids([0, *pair.encode("x")]) == pair.raw_ids((0, *pair.encode("x")))
    with pytest.raises(PromptError, match="token ids below"):
        pair.raw_ids([len(pair.tokens) + 256])
