"""Memory: what a model takes, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from baco_integrations.core.errors import ModelNotFoundError, NotEnoughMemoryError
from baco_integrations.models import memory
from baco_integrations.models.memory import build_empty, count_parameters
from baco_integrations.models.pair import ModelPair
from tests.families import FAMILIES, edit_config, make_model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_estimate_is_exact(family, tied):
    model = make_model(family, 300, dtype=torch.float32, tie_word_embeddings=tied)
    real = sum(p.numel() * p.element_size() for p in model.parameters())
    assert count_parameters(build_empty(model.config)).bytes("float32") == real


def test_refusal_has_numbers_and_comes_before_weights(folders):
    for folder in folders:
        edit_config(folder, hidden_size=2**16, intermediate_size=2**18, head_dim=2**14)
        (folder / "model.safetensors").unlink()
    with pytest.raises(NotEnoughMemoryError, match=r"needs about \d{3,}\.\d GiB .*cpu has .*Gi"):
        ModelPair.from_pretrained(*folders, device_map="cpu")
    with pytest.raises(ModelNotFoundError):
        ModelPair.from_pretrained(*folders, device_map="cpu", check_memory=False)


def test_models_in_memory_are_not_counted_again(folders, monkeypatch):
    first = ModelPair.from_pretrained(*folders)
    monkeypatch.setattr(memory, "free_bytes", lambda devices: 1)
    assert ModelPair.from_pretrained(*folders, base_prompt="plain").base is first.base
    with pytest.raises(NotEnoughMemoryError):
        ModelPair.from_pretrained(*folders, dtype="float64")


def test_each_device_has_room_for_its_own(folders, monkeypatch):
    free = {"cpu": 10**9, "meta": 1000}
    monkeypatch.setattr(memory, "free_bytes", lambda devices: sum(map(free.get, devices)))
    with pytest.raises(NotEnoughMemoryError, match="meta has"):
        ModelPair.from_pretrained(*folders, device_map={"base": "cpu", "aligned": "meta"})
    ModelPair.from_pretrained(*folders, device_map={"base": "cpu"})


def test_container_limits(tmp_path):
    assert memory.container_limits(tmp_path) == []
    for name, text in {
        "memory.max": "1000\n",
        "memory.current": "700\n",
        "memory.stat": "anon 1\ninactive_file 50\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert memory.container_limits(tmp_path) == [350]
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.container_limits(tmp_path) == []
