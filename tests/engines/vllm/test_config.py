"""What cannot be served is refused before anything is loaded, and only of fused models."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from baco_integrations import ModelPair
from baco_integrations.core.errors import PairError, VocabularyMismatchError
from baco_integrations.engines.vllm import ARCHITECTURE
from baco_integrations.engines.vllm.plugin import register
from tests.families import make_pair_folder

pytest.importorskip("vllm", reason="vLLM is not installed; CONTRIBUTING says how to run these")


def configuration(**changes: Any) -> Any:
    """The fields of vLLM's configuration that are read."""
    from vllm.config.compilation import CUDAGraphMode

    parallel = {"pipeline_parallel_size": 1, "decode_context_parallel_size": 1}
    parallel |= {"use_ubatching": False} | changes.pop("parallel", {})
    fields = {
        "parallel_config": SimpleNamespace(**parallel),
        "speculative_config": None,
        "lora_config": None,
        "kv_transfer_config": None,
        "use_v2_model_runner": False,
        "scheduler_config": SimpleNamespace(disable_hybrid_kv_cache_manager=None),
        "compilation_config": SimpleNamespace(cudagraph_mode=CUDAGraphMode.FULL_AND_PIECEWISE),
    }
    return SimpleNamespace(**fields | changes)


def test_what_goes_wrong_is_left_out() -> None:
    from vllm.config.compilation import CUDAGraphMode

    from baco_integrations.engines.vllm.config import FusedModelConfig

    config = configuration()
    FusedModelConfig.verify_and_update_config(config)
    assert config.scheduler_config.disable_hybrid_kv_cache_manager is True
    assert config.compilation_config.cudagraph_mode is CUDAGraphMode.PIECEWISE


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"parallel": {"pipeline_parallel_size": 2}}, "pipeline parallelism"),
        ({"parallel": {"decode_context_parallel_size": 2}}, "context parallelism"),
        ({"parallel": {"use_ubatching": True}}, "micro-batches"),
        ({"speculative_config": object()}, "speculative decoding"),
        ({"lora_config": object()}, "LoRA adapters"),
        ({"kv_transfer_config": object()}, "transfers of keys between engines"),
        ({"use_v2_model_runner": True}, "the second model runner"),
    ],
)
def test_what_a_fused_model_cannot_do_is_refused(changes: dict[str, Any], named: str) -> None:
    from baco_integrations.engines.vllm.config import FusedModelConfig

    with pytest.raises(PairError, match=f"A fused model cannot do {named}"):
        FusedModelConfig.verify_and_update_config(configuration(**changes))


def test_the_runner_is_chosen_and_rows_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    from baco_integrations.engines.vllm.config import ROWS, RUNNER, FusedModelConfig

    monkeypatch.setenv(RUNNER, "1")
    model = SimpleNamespace(hf_config=SimpleNamespace(baco_base="x"), logits_processors=["a:B"])
    for _ in range(2):  # vLLM makes several configurations of one
        FusedModelConfig.verify_and_update_model_config(model)
        assert model.logits_processors == ["a:B", ROWS]
    assert os.environ[RUNNER] == "0"
    with pytest.raises(PairError, match="Name its folder or id as baco_base in hf_overrides"):
        FusedModelConfig.verify_and_update_model_config(SimpleNamespace(hf_config=object()))


def test_another_version_of_vllm_gets_no_fused_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import vllm
    from vllm.model_executor.models import config

    monkeypatch.setattr(config, "MODELS_CONFIG_MAP", {})
    monkeypatch.setattr(vllm, "__version__", "0.33.0")
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    register()
    assert "BACo runs inside vLLM 0.32 only, and this is 0.33.0" in caplog.text
    assert config.MODELS_CONFIG_MAP == {}
    monkeypatch.setattr(vllm, "__version__", "0.32.1")
    register()
    assert set(config.MODELS_CONFIG_MAP) == {ARCHITECTURE}


def test_other_vocabularies_are_refused(tmp_path: Path) -> None:
    base, _ = make_pair_folder(tmp_path / "a", "llama", "byte-level")
    _, aligned = make_pair_folder(tmp_path / "b", "llama", "sentencepiece")
    with pytest.raises(VocabularyMismatchError, match="do not share one text vocabulary"):
        ModelPair.from_pretrained(base, aligned, engine="vllm")
