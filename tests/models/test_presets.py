"""The presets are data: complete, unique, found by name."""

from __future__ import annotations

import dataclasses

import pytest

from baco_integrations.core.errors import ParameterError
from baco_integrations.models.presets import PRESETS, preset
from baco_integrations.text.prompts import check_base_prompt

NAMES = [
    "smollm2-135m",
    "smollm2-360m",
    "smollm2-1.7b",
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "qwen2.5-3b",
    "qwen2.5-7b",
    "qwen2.5-14b",
    "qwen2.5-32b",
    "qwen2.5-72b",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-8b",
    "qwen3-14b",
    "llama3.2-1b",
    "llama3.2-3b",
    "llama3.1-8b",
    "llama3-8b",
    "olmo2-1b",
    "olmo2-7b",
    "olmo2-13b",
    "olmo2-1b-sft",
    "olmo2-7b-sft",
    "olmo2-13b-sft",
    "olmo2-1b-dpo",
    "olmo2-7b-dpo",
    "olmo2-13b-dpo",
    "olmo3-7b",
    "smollm3-3b",
    "gemma2-2b",
    "gemma3-270m",
    "gemma3-1b",
    "mistral-7b",
]


def test_every_pair_is_there():
    assert sorted(PRESETS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_preset_is_complete(name):
    found = preset(name)
    assert found.name == name
    assert found.base != found.aligned
    assert found.base.count("/") == found.aligned.count("/") == 1
    assert "{}" not in found.base + found.aligned
    assert name.startswith(found.family)
    assert check_base_prompt(found.base_prompt) == "qa"
    assert ("enable_thinking" in found.template_kwargs) == (found.family in {"qwen3", "smollm3"})
    assert found.gated == (found.family.startswith(("llama", "gemma")))


@pytest.mark.parametrize(
    ("name", "base", "aligned"),
    [
        ("qwen2.5-7b", "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct"),
        ("qwen3-0.6b", "Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-0.6B"),
        ("llama3-8b", "meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("olmo2-1b-sft", "allenai/OLMo-2-0425-1B", "allenai/OLMo-2-0425-1B-SFT"),
        ("olmo2-13b", "allenai/OLMo-2-1124-13B", "allenai/OLMo-2-1124-13B-Instruct"),
        ("gemma3-270m", "google/gemma-3-270m", "google/gemma-3-270m-it"),
        ("gemma3-1b", "google/gemma-3-1b-pt", "google/gemma-3-1b-it"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.3", "mistralai/Mistral-7B-Instruct-v0.3"),
    ],
)
def test_ids_as_the_hub_spells_them(name, base, aligned):
    assert (preset(name).base, preset(name).aligned) == (base, aligned)


def test_name_in_capitals():
    assert preset("Qwen2.5-7B") is PRESETS["qwen2.5-7b"]


@pytest.mark.parametrize("name", ["qwen2.5-7", "gpt-2", 7, None])
def test_unknown_name(name):
    with pytest.raises(ParameterError, match="from_pretrained"):
        preset(name)


def test_nearest_name():
    with pytest.raises(ParameterError, match="Did you mean 'smollm2-135m'"):
        preset("smollm2-135")


def test_presets_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("olmo3-7b").base = "other/model"
    assert dataclasses.asdict(preset("qwen3-4b"))["template_kwargs"] == {"enable_thinking": False}
