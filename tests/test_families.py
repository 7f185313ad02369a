"""The tiny pairs are what other tests take them for."""

from __future__ import annotations

import warnings

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.families import FAMILIES, KINDS, TEXT, make_model, make_pair_folder, make_tokenizer

WINDOWED = ("olmo3", "gemma2", "gemma3")


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_cover_many_scripts(kind):
    tokenizer = make_tokenizer(kind)
    assert 400 <= len(tokenizer) <= 650
    ids = tokenizer(TEXT)["input_ids"]
    assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids
    assert len(set(ids)) > 200


def test_templates_mark_turns():
    tokenizer = make_tokenizer("byte-level", chat_template=True)
    messages = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|begin_of_text|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_is_silent_seeded_and_causal(family, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, twin = (make_model(family, 60, seed=3, padded=4) for _ in range(2))
        ids = list(range(5, 35))
        out = logits(model, ids)
    assert capfd.readouterr() == ("", "")
    assert out.shape == (30, 64)
    assert out.dtype == torch.float64
    assert torch.equal(out, logits(twin, ids))
    assert not torch.equal(out, logits(make_model(family, 60, seed=4, padded=4), ids))
    torch.testing.assert_close(out[:20], logits(model, ids[:20]))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_token_reaches_the_last_position(family):
    model = make_model(family, 60)
    changed = logits(model, [5, *range(6, 35)]) - logits(model, [50, *range(6, 35)])
    assert changed[-1].abs().max() > 1e-3


@pytest.mark.parametrize("family", WINDOWED)
def test_windows_are_honoured(family):
    """With sliding layers only, a token reaches 7 positions further per layer and no more."""
    model = make_model(family, 60, layer_types=["sliding_attention"] * 2)
    difference = logits(model, [5, *range(6, 35)]) - logits(model, [50, *range(6, 35)])
    reached = difference.abs().amax(-1) > 1e-9
    assert reached.tolist() == [True] * 15 + [False] * 15


PAIRS = [(family, kind) for family in FAMILIES for kind in KINDS]


@pytest.mark.parametrize(("family", "kind"), [pair for pair in PAIRS if pair[0] != "qwen2"])
def test_folders_are_read_back(family, kind, tmp_path):
    check_folders(family, kind, tmp_path)


def test_qwen2_folders_are_byte_level(tmp_path):
    check_folders("qwen2", "byte-level", tmp_path)
    with pytest.raises(ValueError, match="byte-level"):
        make_pair_folder(tmp_path, "qwen2", "wordpiece")


def check_folders(family, kind, folder):
    paths = make_pair_folder(folder, family, kind, padded=3, extra_specials=("<|x|>",))
    base, aligned = (AutoModelForCausalLM.from_pretrained(path) for path in paths)
    base_tokenizer, aligned_tokenizer = (AutoTokenizer.from_pretrained(path) for path in paths)
    assert base_tokenizer.get_vocab() == make_tokenizer(kind).get_vocab()
    assert len(aligned_tokenizer) == len(base_tokenizer) + 1 == base.config.vocab_size - 3
    assert not base_tokenizer.chat_template
    assert aligned_tokenizer.chat_template
    ends = [aligned_tokenizer.eos_token_id, base_tokenizer.eos_token_id]
    assert base.generation_config.eos_token_id == ends[1]
    assert aligned.generation_config.eos_token_id == ends
    assert load_file(paths[0] / "model.safetensors").keys() == dict(base.state_dict()).keys()

    ids = aligned_tokenizer(TEXT)["input_ids"][:250]
    ours, theirs = (logits(model, ids).softmax(-1) for model in (base, aligned))
    agreement = (ours.argmax(-1) == theirs.argmax(-1)).double().mean()
    assert 0.3 < agreement < 0.97
    p_max = ours.amax(-1)
    assert p_max.quantile(0.05) < 0.25
    assert p_max.quantile(0.95) > 0.6
