"""A pair for vLLM has no weights here; all that needs none is there without vLLM too."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from baco_integrations import Decoder, ModelPair
from baco_integrations.core.errors import MissingExtraError, ParameterError
from tests.engines.vllm.pairs import load


def test_pair_without_weights(llama: tuple[Path, Path]) -> None:
    pair, local = load(llama, max_model_len=128), load(llama)
    assert (pair.engine, local.engine) == ("vllm", "local")
    assert pair.context == (128, 128)
    assert repr(pair).endswith("MiB on elsewhere)")
    assert not hasattr(pair.base, "parameters")
    assert pair.render_aligned("Hi", tokenize=True) == local.render_aligned("Hi", tokenize=True)
    assert (pair.base_eos, pair.aligned_eos) == (local.base_eos, local.aligned_eos)
    assert (pair.token_space.text == local.token_space.text).all()
    assert load(llama, max_model_len=128) is pair is not load(llama, max_model_len=96)


def test_one_model_is_there_twice(llama: tuple[Path, Path]) -> None:
    pair, alone = (ModelPair.from_model(llama[1], engine=name) for name in ("vllm", "local"))
    assert pair.kind == alone.kind == "one-model"
    assert pair.memory_bytes() > 1.9 * alone.memory_bytes()


def test_settings_of_the_other_engine_are_refused(llama: tuple[Path, Path]) -> None:
    with pytest.raises(ParameterError, match="quantization must be left out where engine is"):
        ModelPair.from_pretrained(*llama, engine="vllm", quantization="8bit")
    with pytest.raises(ParameterError, match="engine must be 'local' for an adapter"):
        ModelPair.from_adapter(llama[0], llama[1], engine="vllm")


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'baco-integrations\[vllm\]'"):
        Decoder(ModelPair.tiny(engine="vllm"))
