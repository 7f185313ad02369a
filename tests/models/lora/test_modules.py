"""A switched adapter against PEFT: each row as the model that its switch says, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from baco_integrations import Decoder, ModelPair, SamplingParams
from tests.conformance.definition import check
from tests.families import FAMILIES, make_pair_folder, make_tokenizer
from tests.lora import LINEAR, merged_model, peft_logits, save_adapter

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True, "lora_dropout": 0.1},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7},
        "alpha_pattern": {"v_proj": 3},
    },
    "some layers": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
    "embeddings": {"target_modules": [*LINEAR, "embed_tokens", "lm_head"]},
    "saved": {"modules_to_save": ["norm", "embed_tokens", "lm_head"]},
}


def all_close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def check_rows(model: Path, adapter: Path) -> None:
    """Compare both sides, and rows of both in one batch."""
    pair = ModelPair.from_adapter(model, adapter)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 100, (5, 20), generator=generator)
    off, on = peft_logits(model, adapter, ids)
    assert (off - on).abs().max() > 0.01
    shared = pair.lora
    assert shared is not None
    with torch.inference_mode():
        all_close(pair.base(ids, use_cache=False).logits, off)
        all_close(pair.aligned(ids, use_cache=False).logits, on)
        with shared.switch.set(slice(1, None, 2), slice(0, None, 2)):
            both = shared.model(ids, use_cache=False).logits
        with shared.switch.set(slice(3), slice(3, None)):
            mixed = shared.model(ids, use_cache=False).logits
        all_close(shared.model(ids, use_cache=False).logits, off)
    all_close(both[0::2], off[0::2])
    all_close(both[1::2], on[1::2])
    all_close(mixed, torch.cat([on[:3], off[3:]]))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, tmp_path: Path) -> None:
    base, _ = make_pair_folder(tmp_path, family)
    adapter = save_adapter(base, tmp_path / "adapter", modules_to_save=["norm"])
    check_rows(base, adapter)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter(kind: str, tied: bool, tmp_path: Path) -> None:
    base, _ = make_pair_folder(tmp_path, "qwen2", tie_word_embeddings=tied)
    check_rows(base, save_adapter(base, tmp_path / "adapter", **KINDS[kind]))


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("settings", [{}, {"ensure_weight_tying": True}])
@pytest.mark.parametrize("place", ["target_modules", "modules_to_save"])
def test_tied_embeddings(family: str, settings: dict[str, Any], place: str, tmp_path: Path) -> None:
    base, _ = make_pair_folder(tmp_path, family, tie_word_embeddings=True)
    chosen = {"target_modules": ["q_proj"]}
    chosen[place] = [*chosen.get(place, []), "embed_tokens"]
    check_rows(base, save_adapter(base, tmp_path / "adapter", **chosen, **settings))


def test_biases_of_its_own(tmp_path: Path) -> None:
    """Switched by row, which PEFT's own switch does not do."""
    base, _ = make_pair_folder(tmp_path, "qwen2")
    adapter = save_adapter(base, tmp_path / "adapter", bias="all", target_modules=["q_proj"])
    check_rows(base, adapter)
    adapter = save_adapter(
        base, tmp_path / "other", lora_bias=True, target_modules=["q_proj", "v_proj"]
    )
    check_rows(base, adapter)


def test_the_adapted_side_is_the_merged_model(tmp_path: Path) -> None:
    base, _ = make_pair_folder(tmp_path, "olmo2")
    adapter = save_adapter(base, tmp_path / "adapter", target_modules=[*LINEAR, "lm_head"])
    ids = torch.arange(30)[None]
    with torch.inference_mode():
        aligned = ModelPair.from_adapter(base, adapter).aligned(ids).logits
        all_close(aligned, merged_model(base, adapter)(ids).logits)


@pytest.mark.parametrize("exact", ["base", "aligned"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_decoding_is_what_the_two_models_say(family: str, exact: Any, tmp_path: Path) -> None:
    model = make_pair_folder(tmp_path, family)[exact == "aligned"]
    adapter = save_adapter(model, tmp_path / "adapter", modules_to_save=["norm"])
    make_tokenizer("byte-level", chat_template=exact == "base").save_pretrained(adapter)
    pair = ModelPair.from_adapter(model, adapter, exact=exact)
    params = [
        SamplingParams(
            router=router, gamma=gamma, temperature=temperature, seed=1, n=2, max_tokens=20
        )
        for router in ("p-punc", "h-fc", "rand")
        for gamma, temperature in ((0.3, 0.0), (0.9, 1.0))
    ]
    with Decoder(pair, max_rows=8) as decoder:
        texts = ["Name a city.", "Hi", "Tell me why you'd like to visit the sea, and then more."]
        batch = decoder.generate_batch(texts * 2, params)
        for text, own, completions in zip(texts * 2, params, batch, strict=True):
            for completion in completions:
                check(pair, text, own, completion)
        metrics = decoder.metrics
    with Decoder(pair, max_rows=8, lookahead=3) as decoder:
        again = decoder.generate_batch(texts * 2, params)
    assert [[c.text for c in row] for row in again] == [[c.text for c in row] for row in batch]
    assert metrics.forwards < metrics.iterations  # first tokens come with their prompts
