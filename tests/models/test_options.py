"""Options of loading: what is refused, and in which words."""

from __future__ import annotations

import pytest
import torch

from baco_integrations.core.errors import ParameterError
from baco_integrations.models.options import LoadOptions
from baco_integrations.models.pair import ModelPair

SECRET = "hf_secret"
ROUND: dict = {}
ROUND["itself"] = ROUND
NESTED: dict = {}
for _ in range(100_000):
    NESTED = {"within": NESTED}


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"dtype": "float23"}, "dtype must be one of auto.*Did you mean 'float32'"),
            ({"dtype": torch.int8}, "dtype must be one of"),
            ({"device_map": "cudda"}, "device_map must be a device"),
            ({"device_map": {"": 1.5}}, "device_map must be a device"),
            ({"device_map": {"base": "cpu", "lm_head": "cpu"}}, "from base and aligned to one"),
            ({"device_map": {"aligned": "cudda"}}, "device_map must be a device"),
            ({"attn_implementation": "flash_attention_2"}, "'sdpa' or 'eager'.*masks"),
            ({"base_prompt": "q&a"}, "base_prompt must be one of.*Did you mean 'qa'"),
            ({"template_kwargs": ["x"]}, "template_kwargs must be a dict"),
            ({"template_kwargs": {1: 2}}, "template_kwargs must be a dict"),
            ({"template_kwargs": NESTED}, "template_kwargs must be a dict"),
            ({"quantization": ROUND}, "quantization must be '4bit'"),
            ({"quantization": torch.zeros(2)}, "quantization must be '4bit'"),
            ({"device_map": torch.zeros(2)}, "device_map must be a device"),
            ({"device_map": 10**30}, "device_map must be a device"),
            ({"dtype": NESTED}, "dtype must be one of"),
            ({"local_files_only": "yes"}, "local_files_only must be True or False"),
            ({"revision": 3}, "revision must be the name of a branch"),
            ({"dtpye": "auto"}, "Did you mean 'dtype'"),
        ],
    )
    def test_refused(self, options, message):
        with pytest.raises(ParameterError, match=message):
            LoadOptions(**options)

    @pytest.mark.parametrize("dtype", ["bfloat16", "bf16", torch.bfloat16])
    def test_names_of_one_dtype(self, dtype):
        assert LoadOptions(dtype=dtype).dtype == "bfloat16"

    @pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), None])
    def test_names_of_one_device(self, device, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert LoadOptions(device_map=device).weights_key() == LoadOptions().weights_key()

    def test_each_side_has_a_place_of_its_own(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        split = {"model": "cuda:1", "lm_head": "cuda:2"}
        options = LoadOptions(device_map={"aligned": split, "base": torch.device("cuda", 1)})
        assert options.of("base").placement == "cuda:1"
        assert options.of("aligned").placement == {"model": "cuda:1", "lm_head": "cuda:2"}
        assert LoadOptions(device_map={"aligned": "auto"}).of("base").placement == "cpu"
        together, each = (
            LoadOptions(device_map=where) for where in ("cpu", {"base": "cpu", "aligned": None})
        )
        assert together.pair_key() == each.pair_key() != options.pair_key()

    def test_token_is_never_shown(self):
        assert SECRET not in repr(LoadOptions(token=SECRET))
        # The second could not stand in a header, and http libraries say so by showing it.
        for token in ([SECRET], f"{SECRET}\n"):
            with pytest.raises(ParameterError, match="token must be visible ASCII text") as raised:
                LoadOptions(token=token)
            assert SECRET not in f"{raised.value}{vars(raised.value)}"
        with pytest.raises(ParameterError, match="template_kwargs must be a dict") as raised:
            LoadOptions(template_kwargs=[{"api_key": SECRET}])
        assert SECRET not in f"{raised.value}{vars(raised.value)}"

    @pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
    def test_device_that_is_missing(self, folders):
        with pytest.raises(ParameterError, match=r"device_map must be of devices .*\(cpu\)"):
            ModelPair.from_pretrained(*folders, device_map="cuda:3")
        with pytest.raises(ParameterError, match=r"device_map must be of devices .*\(cpu\)"):
            ModelPair.from_pretrained(*folders, device_map={"base": "cpu", "aligned": "cuda:1"})


def test_engines_take_their_own_settings() -> None:
    given = LoadOptions(engine="vllm", engine_options='{"block_size": 32}')
    assert given.engine_options == {"block_size": 32}
    assert given.pair_key() != LoadOptions(engine="vllm").pair_key() != LoadOptions().pair_key()
    for wrong in ("[1]", "{", {1: 2}, {"a": object()}, None):
        with pytest.raises(ParameterError, match="^engine_options must be a dict of arguments"):
            LoadOptions(engine="vllm", engine_options=wrong)
    with pytest.raises(ParameterError, match="'vllm'"):
        LoadOptions(engine="vlm")
    local = {"device_map": "cpu", "quantization": "8bit", "base_quantization": "8bit"}
    for name, value in local.items():
        with pytest.raises(ParameterError, match=f"^{name} must be left out where engine is 'vl"):
            LoadOptions(engine="vllm", **{name: value})
    with pytest.raises(ParameterError, match="^engine_options must be left out where engine is"):
        LoadOptions(engine_options={"block_size": 32})
