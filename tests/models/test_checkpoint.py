"""Damaged and unsafe models: what is refused, in which words, and what is never opened."""

from __future__ import annotations

import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from baco_integrations.core.errors import (
    ModelNotFoundError,
    PairError,
    UnsafeWeightsError,
    VocabularyMismatchError,
)
from baco_integrations.models.pair import ModelPair
from tests.families import edit_config, make_tokenizer


def edit_weights(folder, changes):
    """Add weights to a folder, or take those out that are None."""
    file = folder / "model.safetensors"
    weights = {n: w for n, w in (load_file(file) | changes).items() if w is not None}
    save_file(weights, file, metadata={"format": "pt"})


class TestFolders:
    def test_missing_tokenizer(self, folders, monkeypatch):
        for file in folders[0].glob("token*"):
            file.unlink()
        monkeypatch.chdir(folders[0].parent)
        with pytest.raises(PairError, match="tokenizer of ./base") as raised:
            ModelPair.from_pretrained("./base", folders[1])
        assert str(folders[0]) in str(raised.value)

    def test_missing_weights(self, folders):
        (folders[1] / "model.safetensors").unlink()
        with pytest.raises(ModelNotFoundError, match="aligned has no weights"):
            ModelPair.from_pretrained(*folders)

    def test_pickles_are_not_read(self, folders):
        (folders[1] / "model.safetensors").unlink()
        torch.save({}, folders[1] / "pytorch_model.bin")
        with pytest.raises(UnsafeWeightsError, match="save_pretrained"):
            ModelPair.from_pretrained(*folders)

    def test_damaged_weights(self, folders):
        file = folders[1] / "model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(PairError, match="weights of .*aligned could not be read"):
            ModelPair.from_pretrained(*folders)

    def test_lacking_weights_are_not_made_up(self, folders):
        edit_weights(folders[1], {"model.norm.weight": None})
        with pytest.raises(PairError, match=r"it lacks 1 \(model.norm.weight\)"):
            ModelPair.from_pretrained(*folders)

    def test_weights_that_nothing_reads_are_told(self, folders):
        edit_weights(folders[1], {"model.norm.bias": torch.zeros(32), "more": torch.zeros(1)})
        with pytest.raises(
            PairError, match=r"has 2 that would be left unused \(model.norm.bias, more\)"
        ):
            ModelPair.from_pretrained(*folders)

    def test_buffers_of_older_releases_are_no_weights(self, folders):
        edit_weights(folders[1], {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
        assert ModelPair.from_pretrained(*folders)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_hidden_layers": 3}, "config.json says num_hidden_layers is 3, but .* have 2"),
            ({"num_hidden_layers": 1}, r"has 9 that would be left unused \(model.layers.1.*6 more"),
            ({"vocab_size": 2**24}, r"embed_tokens.weight: \(505, 32\) .*16777216.*by vocab_size"),
            ({"vocab_size": 508}, r"has 2 of other shapes \(lm_head.weight.*by vocab_size"),
            ({"intermediate_size": 2**24}, "down_proj.weight.*by intermediate_size"),
            ({"num_attention_heads": 8}, "q_proj.weight: "),
        ],
    )
    def test_configurations_that_weights_belie(self, folders, changes, message):
        edit_config(folders[1], **changes)
        start = time.monotonic()
        for memory_is_checked in (True, False):
            with pytest.raises(PairError, match=message) as raised:
                ModelPair.from_pretrained(*folders, check_memory=memory_is_checked)
            assert str(folders[1] / "config.json") in str(raised.value)
        assert time.monotonic() - start < 20

    def test_no_pickle_is_opened(self, folders, monkeypatch):
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
        weights = folders[1] / "model.safetensors"
        torch.save(load_file(weights), folders[1] / "weights.bin")
        edit_config(folders[1], transformers_weights="adapter_model.bin")
        with pytest.raises(UnsafeWeightsError, match="weights of its own"):
            ModelPair.from_pretrained(*folders)
        edit_config(folders[1], transformers_weights=None)
        (folders[1] / "weights.bin").replace(weights)  # a pickle by another name
        with pytest.raises(PairError, match="not in the format of safetensors"):
            ModelPair.from_pretrained(*folders)

    def test_damaged_config(self, folders):
        (folders[0] / "config.json").write_text("{")
        with pytest.raises(PairError, match="configuration of .*base could not be read"):
            ModelPair.from_pretrained(*folders)

    @pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"cache_implementation": "x"}'])
    def test_damaged_generation_settings(self, folders, content):
        (folders[0] / "generation_config.json").write_text(content)
        for load in (ModelPair.check, ModelPair.from_pretrained):
            with pytest.raises(PairError, match="generation settings of .*base could not be read"):
                load(*folders)

    @pytest.mark.parametrize("content", ["", "[]", '{"model_max_length": "many"}'])
    def test_damaged_tokenizer_settings(self, folders, content):
        (folders[1] / "tokenizer_config.json").write_text(content)
        for load in (ModelPair.check, ModelPair.from_pretrained):
            with pytest.raises(PairError, match="tokenizer of .*aligned could not be read"):
                load(*folders)

    def test_code_of_its_own(self, folders):
        edit_config(folders[0], model_type="own", auto_map={"AutoConfig": "own.OwnConfig"})
        with pytest.raises(UnsafeWeightsError, match="trust_remote_code=True"):
            ModelPair.from_pretrained(*folders)

    def test_tokenizers_are_compared_before_weights_are_read(self, folders):
        make_tokenizer("sentencepiece").save_pretrained(folders[0])
        (folders[0] / "model.safetensors").unlink()
        with pytest.raises(VocabularyMismatchError, match="id 6"):
            ModelPair.from_pretrained(*folders)

    def test_sharded_weights(self, folders, tmp_path):
        whole = ModelPair.from_pretrained(*folders)
        whole.aligned.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
        whole.aligned_tokenizer.save_pretrained(tmp_path / "shards")
        assert not (tmp_path / "shards" / "model.safetensors").exists()
        sharded = ModelPair.from_pretrained(folders[0], tmp_path / "shards").aligned.state_dict()
        for name, weight in whole.aligned.state_dict().items():
            assert torch.equal(weight, sharded[name])
