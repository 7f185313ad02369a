"""Configurations: what no model has is refused by name, before anything is built of it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BloomConfig, GPT2Config

from baco_integrations import ModelPair
from baco_integrations.core.errors import PairError
from baco_integrations.models.architecture import (
    architecture_problems,
    context_window,
    require_plausible,
    require_sizes,
)
from baco_integrations.models.lora.extract import extract
from tests.families import FAMILIES, edit_config, make_config, make_pair_folder, make_tokenizer

NAN = float("nan")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Base, aligned and, as far as it is looked at, an adapter."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    return *make_pair_folder(folder, "gemma3", dtype=torch.float32), folder / "adapter"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("num_hidden_layers", value) for value in (10**9, 10**15, 0, -1, "2", 2.5, NAN, None)),
        *(("vocab_size", value) for value in (10**15, 0, -5, "many", True)),
        *(("max_position_embeddings", value) for value in (0, -1, "many", NAN)),
        *(("hidden_size", 10**9), ("intermediate_size", 10**15), ("intermediate_size", -1)),
        *(("num_attention_heads", 10**15), ("num_attention_heads", 0)),
        *(("num_key_value_heads", 0), ("num_key_value_heads", -2), ("head_dim", -8)),
        *(("layer_types", ["full_attention"] * 5), ("layer_types", ["such"]), ("layer_types", 3)),
        *(("num_nextn_predict_layers", 10**9), ("num_experts", 10**9)),
        *(("eos_token_id", {"a": 1}), ("eos_token_id", [[1]]), ("text_config", {"a": 1})),
    ],
)
def test_what_no_model_has(
    pair: tuple[Path, Path, Path], tmp_path: Path, field: str, value: object
) -> None:
    base, aligned, adapter = pair
    config = aligned / "config.json"
    before, start = config.read_text(), time.monotonic()
    config.write_text(json.dumps(json.loads(before) | {field: value}))
    try:
        for use in (
            lambda: ModelPair.check(base, aligned),
            lambda: ModelPair.from_pretrained(base, aligned, check_memory=False),
            lambda: ModelPair.from_adapter(aligned, adapter),
            lambda: extract(base, aligned, tmp_path / "out", rank=1),
        ):
            with pytest.raises(PairError, match=field) as raised:
                use()
            assert str(aligned) in str(raised.value)
    finally:
        config.write_text(before)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("family", FAMILIES)
def test_what_models_have(family: str, tmp_path: Path) -> None:
    most = {"num_hidden_layers": 126, "max_position_embeddings": 10**7, "layer_types": None}
    config = make_config(family, 262_208, **most)
    require_plausible(tmp_path, config.to_dict())
    require_sizes(tmp_path, config)


def test_fields_of_parts_are_looked_at_and_others_are_not(tmp_path: Path) -> None:
    require_plausible(tmp_path, {"rope_theta": 10**12, "seed": 10**12, "model_max_length": 1e30})
    require_plausible(tmp_path, {"audio_config": {"vocab_size": 0}})
    with pytest.raises(PairError, match="config.json says n_layer is 1000000, which must be"):
        require_plausible(tmp_path / "config.json", {"text_config": {"n_layer": 10**6}})


def test_fields_that_a_kind_calls_otherwise(tmp_path: Path) -> None:
    with pytest.raises(PairError, match="num_hidden_layers is 0"):
        require_sizes(tmp_path, GPT2Config(n_layer=0))


@pytest.mark.parametrize(("length", "window"), [(77, 77), (1e30, 2**30), (5.0, 5)])
def test_windows_have_an_end(length: float, window: int) -> None:
    tokenizer = make_tokenizer("byte-level")
    tokenizer.model_max_length = length
    assert context_window(make_config("llama", 500), tokenizer) == 512
    endless = make_config("llama", 500, max_position_embeddings=10**15)
    assert context_window(endless, tokenizer) == 2**30
    config = BloomConfig()  # has no such field
    assert context_window(config, tokenizer) == window
    for nonsense in (0, -1, NAN):
        tokenizer.model_max_length = nonsense
        with pytest.raises(PairError, match=f"model_max_length={nonsense}"):
            context_window(config, tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_the_presets_can_be_decoded(family: str) -> None:
    assert architecture_problems(make_config(family, 100)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, "encoder-decoder"),
        ({"model_type": "mamba"}, "recurrent state"),
        ({"model_type": "qwen3_next"}, "linear_attention layers"),
        ({"model_type": "bloom"}, "takes no position ids"),
        ({"model_type": "vit"}, "no causal language model"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "dynamic rotary positions",
        ),
    ],
)
def test_what_cannot_be_decoded_is_refused_before_weights(
    folders: tuple[Path, Path], changes: dict[str, Any], message: str
) -> None:
    edit_config(folders[0], **changes)
    with pytest.raises(PairError, match=message):
        ModelPair.from_pretrained(*folders)
