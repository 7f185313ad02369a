"""Adapters: what is refused and in which words, what is shared, what each side gets."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from baco_integrations import ModelPair
from baco_integrations.core.errors import (
    MissingExtraError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    PairError,
    ParameterError,
    UnsafeWeightsError,
    VocabularyMismatchError,
)
from baco_integrations.models import memory
from baco_integrations.models.hub import ADAPTER_CONFIG
from baco_integrations.models.lora.read import CARD
from tests.families import make_pair_folder, make_tokenizer
from tests.lora import save_adapter

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_pair_folder(tmp_path, "llama", dtype=torch.float32)[0]


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return save_adapter(base, tmp_path / "adapter", modules_to_save=["norm"])


def configure(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite(folder: Path, change: Any) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"use_dora": True}, "use_dora=True.*Only plain LoRA.*Merge it"),
            ({"trainable_token_indices": [1]}, "trainable_token_indices"),
            ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
            ({"target_parameters": ["mlp.weight"]}, "target_parameters"),
            ({"fan_in_fan_out": True}, "fan_in_fan_out=True"),
            ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
            ({"r": 5}, "has rank 4 at .*, which its configuration does not say"),
            ({"target_modules": ["q_proj", "lm_head"]}, "names lm_head as a target, but lacks"),
        ],
    )
    def test_by_its_configuration(
        self, changes: dict[str, Any], message: str, base: Path, adapter: Path
    ) -> None:
        configure(adapter, **changes)
        with pytest.raises(PairError, match=message):
            ModelPair.from_adapter(base, adapter)

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            *((ADAPTER_CONFIG, text) for text in ("", "[]", "3", "null", "{}", "[" * 100_000)),
            *((ADAPTER_CONFIG, text) for text in ('{"peft_type": "X"}', '{"peft_type": ["LORA"]}')),
            *((CARD, text) for text in ("", "[]", "3", '{"exact": 3}', '{"exact": ["base"]}')),
            *((CARD, text) for text in ('{"error": "x"}', '{"error": [1]}', '{"error": NaN}')),
        ],
        ids=lambda value: value[:30],
    )
    def test_by_files_that_hold_something_else(
        self, file: str, text: str, base: Path, adapter: Path
    ) -> None:
        (adapter / file).write_text(text)
        with pytest.raises(PairError, match=str(adapter)):
            ModelPair.from_adapter(base, adapter)

    @pytest.mark.parametrize("value", ["x", {"q": "x"}, [1], -1])
    @pytest.mark.parametrize(
        "name", ["r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules"]
    )
    def test_by_settings_of_another_type(
        self, name: str, value: object, base: Path, adapter: Path
    ) -> None:
        configure(adapter, **{name: value})
        with suppress(PairError):  # and nothing else; of some, PEFT makes sense
            ModelPair.from_adapter(base, adapter)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda found: found.pop(next(k for k in found if "lora_B" in k)), "lacks weights"),
            (lambda found: found.update({"x.lora_A.weight": torch.ones(4, 2)}), "changes x, which"),
            (
                lambda found: found.update(
                    {k: v[:, 1:].clone() for k, v in found.items() if "lora_A" in k}
                ),
                r"has factors of shapes \(\d+, 4\) and \(4, \d+\) for",
            ),
            (
                lambda found: found.update({k: v[1:] for k, v in found.items() if "norm" in k}),
                r"weight of shape \(31,\), unlike the model",
            ),
            (
                lambda found: found.update({"model.layers.0.mlp.lora_A.weight": torch.ones(4, 2)}),
                "targets model.layers.0.mlp, which is neither",
            ),
        ],
    )
    def test_by_its_weights(self, change: Any, message: str, base: Path, adapter: Path) -> None:
        rewrite(adapter, change)
        with pytest.raises(PairError, match=message):
            ModelPair.from_adapter(base, adapter)

    def test_one_that_was_trained_on_other_embeddings(self, base: Path, tmp_path: Path) -> None:
        adapter = save_adapter(base, tmp_path / "adapter", target_modules=["embed_tokens"])
        other, _ = make_pair_folder(tmp_path / "other", "llama", dtype=torch.float32, seed=5)
        ModelPair.from_adapter(base, adapter)
        with pytest.raises(PairError, match="was trained on another model.embed_tokens"):
            ModelPair.from_adapter(other, adapter)

    def test_damaged_and_incomplete_folders(
        self, base: Path, adapter: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelNotFoundError, match="no adapter_config.json.*from_pretrained"):
            ModelPair.from_adapter(base, base)
        with pytest.raises(ModelNotFoundError, match="no config.json.*from_adapter"):
            ModelPair.from_pretrained(base, adapter)
        with pytest.raises(
            ModelNotFoundError, match="aligned: there is no folder.*adapter_config.json"
        ):
            ModelPair.from_adapter(base, tmp_path / "nowhere")
        content = (adapter / WEIGHTS).read_bytes()
        (adapter / WEIGHTS).write_bytes(content[:-9])
        with pytest.raises(PairError, match="adapter of .* could not be read"):
            ModelPair.from_adapter(base, adapter)
        (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
        with pytest.raises(UnsafeWeightsError, match="no safetensors weights"):
            ModelPair.from_adapter(base, adapter)
        (adapter / "adapter_config.json").write_text("{")
        with pytest.raises(PairError, match="adapter configuration of .* could not be read"):
            ModelPair.from_adapter(base, adapter)

    def test_another_kind_of_adapter(self, base: Path, adapter: Path) -> None:
        config = {"peft_type": "IA3", "target_modules": ["k_proj"], "feedforward_modules": []}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(PairError, match="type IA3. Only plain LoRA"):
            ModelPair.from_adapter(base, adapter)

    def test_another_vocabulary(self, base: Path, adapter: Path) -> None:
        make_tokenizer("sentencepiece").save_pretrained(adapter)
        with pytest.raises(VocabularyMismatchError):
            ModelPair.from_adapter(base, adapter)

    def test_settings(self, base: Path, adapter: Path) -> None:
        with pytest.raises(ParameterError, match="exact must be 'base' or 'aligned', got 'both'"):
            ModelPair.from_adapter(base, adapter, exact="both")  # type: ignore[arg-type]
        with pytest.raises(ParameterError, match="Did you mean 'dtype'"):
            ModelPair.from_adapter(base, adapter, dtpye="auto")

    def test_without_peft(self, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'baco-integrations\[adapters\]'"):
            ModelPair.from_adapter(base, adapter)

    def test_too_little_memory_for_one_copy(
        self, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        size = ModelPair.from_adapter(base, adapter).memory_bytes()
        monkeypatch.setattr(memory, "free_bytes", lambda devices: round(1.05 * size))
        with pytest.raises(NotEnoughMemoryError, match="base with .*adapter needs about"):
            ModelPair.from_adapter(base, adapter)
        monkeypatch.setattr(memory, "free_bytes", lambda devices: round(1.15 * size))
        ModelPair.from_adapter(base, adapter)


class TestSides:
    def test_tokenizer_and_settings_come_from_the_adapter(self, base: Path, adapter: Path) -> None:
        pair = ModelPair.from_adapter(base, adapter)
        assert "The adapter has no tokenizer" in " ".join(pair.notes)
        assert not pair.approximate and not pair.aligned_tokenizer.chat_template
        tuned = make_tokenizer("byte-level", chat_template=True)
        tuned.save_pretrained(adapter)
        end = tuned.convert_tokens_to_ids("<|im_end|>")
        pair.aligned.generation_config.__class__(eos_token_id=end).save_pretrained(adapter)
        pair = ModelPair.from_adapter(base, adapter)
        assert pair.aligned_eos == {end} and end not in pair.base_eos
        assert "<|im_start|>" in str(pair.render_aligned("Hi")) and not pair.approximate
        swapped = ModelPair.from_adapter(base, adapter, exact="aligned")
        assert swapped.base_eos == {end} and swapped.approximate
        assert "The base model is approximate" in " ".join(swapped.notes)
        assert swapped.lora is pair.lora  # the weights are the same

    def test_equal_pairs_are_one_object_and_count_once(
        self, base: Path, adapter: Path, tmp_path: Path
    ) -> None:
        pair = ModelPair.from_adapter(base, adapter)
        assert ModelPair.from_adapter(str(base), str(adapter), exact="base") is pair
        other = ModelPair.from_adapter(base, adapter, base_prompt="plain")
        assert other is not pair and other.lora is pair.lora
        plain = ModelPair.from_pretrained(base, base)
        assert plain.memory_bytes() < pair.memory_bytes() < 1.3 * plain.memory_bytes()
        assert plain.lora is None and pair.lora and plain.base is not pair.lora.model
        copied = shutil.copytree(adapter, tmp_path / "copied")
        assert ModelPair.from_adapter(base, copied).identity != pair.identity
        assert pair.identity["base"] == base.name and adapter.name in pair.identity["aligned"]

    def test_each_side_generates_by_itself(self, base: Path, adapter: Path) -> None:
        pair = ModelPair.from_adapter(base, adapter)
        ids = torch.tensor([[5, 6, 7]])
        texts = {}
        for side in (pair.base, pair.aligned):
            texts[side.adapted] = side.generate(ids, do_sample=False, max_new_tokens=8)
            full = side(texts[side.adapted]).logits[0, 2:-1]
            assert torch.equal(full.argmax(-1), texts[side.adapted][0, 3:])
        assert not torch.equal(*texts.values())
