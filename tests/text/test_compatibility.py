"""Which differences between two tokenizers are allowed, and which end a completion."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import GenerationConfig, PreTrainedTokenizerFast

from baco_integrations.core.errors import PairError, VocabularyMismatchError
from baco_integrations.text import compatibility
from baco_integrations.text.compatibility import compare, end_notes, end_tokens
from tests.families import KINDS, make_config, make_tokenizer


def tokenizer_of(pieces, added=(), **names):
    vocab = {piece: token_id for token_id, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token=pieces[0]))
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(text, special=special) for text, special in added])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


@pytest.mark.parametrize("kind", KINDS)
def test_specials_and_template_may_differ(kind):
    base = make_tokenizer(kind)
    aligned = make_tokenizer(kind, chat_template=True, extra_specials=("<|tool|>",))
    found = compare(base, aligned)
    found.require()
    assert found.same_text_vocabulary
    assert found.size == len(aligned) == len(base) + 1
    assert found.extra_control == ("<|tool|>",)
    assert found.notes == ("Only the aligned tokenizer has the control tokens <|tool|>.",)
    control = set(aligned.all_special_ids)
    assert found.shared.tolist() == [token_id not in control for token_id in range(found.size)]


def test_equal_tokenizers_have_nothing_to_note():
    found = compare(make_tokenizer("byte-level"), make_tokenizer("byte-level"))
    assert found.same_text_vocabulary
    assert not (found.differing or found.extra_control or found.notes)


def test_a_reserved_id_may_become_another_control_token_or_text():
    base = tokenizer_of(["a"], [("<|reserved_0|>", True), ("<|reserved_1|>", True)])
    aligned = tokenizer_of(["a"], [("<|call|>", True), ("hello", False)])
    found = compare(base, aligned)
    assert found.same_text_vocabulary
    assert found.shared.tolist() == [True, False, False]
    assert found.extra_control == ("<|call|>", "<|reserved_0|>", "<|reserved_1|>")


def test_markers_that_one_side_adds_are_no_text():
    found = compare(tokenizer_of(["a"]), tokenizer_of(["a"], [("<tool_call>", False)]))
    assert found.same_text_vocabulary


def test_tags_of_prose_are_shared_and_may_be_one_sides_alone():
    tags = [("<table>", False), ("<b>", False)]
    assert compare(tokenizer_of(["a"], tags), tokenizer_of(["a"], tags)).shared.all()
    found = compare(tokenizer_of(["a"], tags[:1]), tokenizer_of(["a"], tags))
    assert found.same_text_vocabulary
    assert found.shared.tolist() == [True, True, False]


def test_what_is_control_to_one_side_is_not_shared():
    tags = [("<think>", False), ("<b>", False)]
    aligned = tokenizer_of(["a"], tags)
    aligned.chat_template = "{{ '<think>' }}"
    found = compare(tokenizer_of(["a"], tags), aligned)
    assert found.same_text_vocabulary
    assert found.shared.tolist() == [True, False, True]


@pytest.mark.parametrize("swap", [False, True])
def test_text_that_one_side_adds_is_a_difference(swap):
    pair = [tokenizer_of(["a", "b"]), tokenizer_of(["a", "b"], [("hello", False)])]
    found = compare(*reversed(pair)) if swap else compare(*pair)
    assert not found.same_text_vocabulary
    assert found.shared.tolist() == [True, True, False]
    assert found.differing == ((2, "hello", None) if swap else (2, None, "hello"),)


def test_text_at_a_hole_of_the_other_side_is_a_difference():
    holed = Tokenizer(models.WordLevel({"a": 0, "c": 2}, unk_token="a"))
    holed.decoder = decoders.ByteLevel()
    base = PreTrainedTokenizerFast(tokenizer_object=holed)
    found = compare(base, tokenizer_of(["a", "b", "c"]))
    assert found.differing == ((1, None, "b"),)
    assert found.shared.tolist() == [True, False, True]


def test_the_error_names_tokens_sizes_and_remedy():
    base = tokenizer_of([*"abcdefgh"])
    found = compare(base, tokenizer_of([*"aBCDEFG"]))
    assert len(found.differing) == 5
    with pytest.raises(VocabularyMismatchError) as error:
        found.require()
    message = str(error.value)
    assert "id 1 is 'b' in base and 'B' in aligned" in message
    assert "base 8 tokens, aligned 7" in message
    assert "Choose as base" in message


def test_kinds_do_not_mix():
    found = compare(make_tokenizer("byte-level"), make_tokenizer("sentencepiece"))
    assert not found.same_text_vocabulary


@pytest.mark.parametrize("kind", KINDS)
def test_end_tokens_merge_all_sources(kind):
    tokenizer = make_tokenizer(kind, chat_template=True)
    config = make_config("llama", len(tokenizer), eos_token_id=[7, 8])
    found = end_tokens(tokenizer, GenerationConfig(eos_token_id=[8, 9]), config)
    assert found == {tokenizer.eos_token_id, 7, 8, 9}


@pytest.mark.parametrize("end", [10**6, -1, "2", 2.5, True, [1], {"a": 1}])
def test_what_is_no_id_ends_nothing_and_is_told(end):
    tokenizer = make_tokenizer("byte-level")
    settings, config = GenerationConfig(), make_config("llama", len(tokenizer), eos_token_id=7)
    settings.eos_token_id = [8, end]
    assert end_tokens(tokenizer, settings, config) == {tokenizer.eos_token_id, 7, 8}
    assert end_notes("base", tokenizer, settings, config) == [
        f"The base model's generation config calls {end!r} an end, which is no id of its tokenizer."
    ]
    settings.eos_token_id, config.eos_token_id = 8, len(tokenizer)
    (note,) = end_notes("aligned", tokenizer, settings, config)
    assert note.startswith("The aligned model's model config calls 505 an end")


def test_end_tokens_of_a_base():
    tokenizer = make_tokenizer("byte-level")
    assert end_tokens(tokenizer, None, None) == {tokenizer.eos_token_id}
    assert end_tokens(tokenizer, GenerationConfig(), None) == {tokenizer.eos_token_id}


def closing_with(end):
    tokenizer = make_tokenizer("byte-level")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}" + end
    ) + "{% endfor %}"
    return end_tokens(tokenizer, None, None) - {tokenizer.eos_token_id}


def test_the_template_tells_its_turn_end():
    turn_end = make_tokenizer("byte-level").convert_tokens_to_ids("<|im_end|>")
    assert closing_with("<|im_end|>\n") == {turn_end}
    assert closing_with("\n <|im_end|>") == {turn_end}


@pytest.mark.parametrize("end", ["\n\n", "", "### End", "{{ raise_exception('no') }}"])
def test_a_template_without_a_turn_end_adds_nothing(end):
    assert closing_with(end) == frozenset()


def test_a_template_without_end_is_named(monkeypatch):
    monkeypatch.setattr(compatibility, "_PATIENCE", 0.05)
    tokenizer = make_tokenizer("byte-level", chat_template=True)
    tokenizer.name_or_path = "some/model"
    loop = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    tokenizer.chat_template = loop + tokenizer.chat_template
    with pytest.raises(PairError, match="The chat template of some/model takes too long"):
        end_tokens(tokenizer, None, None)


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{% for %}", "{{ x.y.z }}"])
def test_a_template_that_fails_tells_nothing(template):
    tokenizer = make_tokenizer("byte-level", chat_template=True)
    tokenizer.chat_template = template
    assert end_tokens(tokenizer, None, None) == {tokenizer.eos_token_id}
