"""Loading: what is refused, in which words, and what is never touched."""

from __future__ import annotations

import http.server
import json
import logging
import shutil
import threading
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from baco_integrations.core.errors import (
    ModelNotFoundError,
    NotEnoughMemoryError,
    PairError,
    ParameterError,
    UnsafeWeightsError,
    VocabularyMismatchError,
)
from baco_integrations.core.registry import Registry
from baco_integrations.models import memory
from baco_integrations.models.architecture import architecture_problems
from baco_integrations.models.memory import count_parameters
from baco_integrations.models.options import LoadOptions
from baco_integrations.models.pair import ModelPair
from baco_integrations.tiny import WEIGHTS as TINY
from tests.families import FAMILIES, make_config, make_model, make_pair_folder, make_tokenizer

SECRET = "hf_secret"
ROUND: dict = {}
ROUND["itself"] = ROUND
NESTED: dict = {}
for _ in range(100_000):
    NESTED = {"within": NESTED}


@pytest.fixture
def pair(tmp_path):
    return make_pair_folder(tmp_path, "llama", dtype=torch.float32)


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(folder, changes):
    """Add weights to a folder, or take those out that are None."""
    file = folder / "model.safetensors"
    weights = {n: w for n, w in (load_file(file) | changes).items() if w is not None}
    save_file(weights, file, metadata={"format": "pt"})


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
    def test_device_that_is_missing(self, pair):
        with pytest.raises(ParameterError, match=r"device_map must be of devices .*\(cpu\)"):
            ModelPair.from_pretrained(*pair, device_map="cuda:3")
        with pytest.raises(ParameterError, match=r"device_map must be of devices .*\(cpu\)"):
            ModelPair.from_pretrained(*pair, device_map={"base": "cpu", "aligned": "cuda:1"})


class TestFolders:
    @pytest.mark.parametrize("model", ["", "  ", 3, None])
    def test_neither_path_nor_id(self, model):
        with pytest.raises(ParameterError, match="base must be a folder or an id"):
            ModelPair.from_pretrained(model, "org/model")

    @pytest.mark.parametrize("model", ["./nowhere", "/no/where", "a/b/c", "model.gguf/", "~/nope"])
    def test_missing_folder(self, model):
        with pytest.raises(ModelNotFoundError, match="base: there is no folder") as raised:
            ModelPair.from_pretrained(model, "org/model")
        # Where it was looked for, as `.` and `~` depend on who asks.
        assert repr(str(Path(model).expanduser().absolute())) in str(raised.value)

    @pytest.mark.parametrize("model", ["~no-such-user/model", "a" * 5000])
    def test_paths_that_cannot_be_looked_at(self, model):
        with pytest.raises(ModelNotFoundError, match="aligned: .* cannot be looked at"):
            ModelPair.check(TINY / "base", model)

    @pytest.mark.parametrize("ending", ["", "\0", "/" + "a" * 5000])
    def test_passwords_in_addresses_are_not_told(self, ending):
        with pytest.raises(ModelNotFoundError, match="huggingface.co/org/model") as raised:
            ModelPair.check(f"https://me:{SECRET}@huggingface.co/org/model{ending}", "org/model")
        assert SECRET not in str(raised.value)

    def test_missing_config(self, pair):
        (pair[1] / "config.json").unlink()
        with pytest.raises(ModelNotFoundError, match="aligned has no config.json") as raised:
            ModelPair.from_pretrained(*pair)
        assert str(pair[1] / "config.json") in str(raised.value)

    def test_missing_tokenizer(self, pair, monkeypatch):
        for file in pair[0].glob("token*"):
            file.unlink()
        monkeypatch.chdir(pair[0].parent)
        with pytest.raises(PairError, match="tokenizer of ./base") as raised:
            ModelPair.from_pretrained("./base", pair[1])
        assert str(pair[0]) in str(raised.value)

    def test_missing_weights(self, pair):
        (pair[1] / "model.safetensors").unlink()
        with pytest.raises(ModelNotFoundError, match="aligned has no weights"):
            ModelPair.from_pretrained(*pair)

    def test_pickles_are_not_read(self, pair):
        (pair[1] / "model.safetensors").unlink()
        torch.save({}, pair[1] / "pytorch_model.bin")
        with pytest.raises(UnsafeWeightsError, match="save_pretrained"):
            ModelPair.from_pretrained(*pair)

    def test_damaged_weights(self, pair):
        file = pair[1] / "model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(PairError, match="weights of .*aligned could not be read"):
            ModelPair.from_pretrained(*pair)

    def test_lacking_weights_are_not_made_up(self, pair):
        edit_weights(pair[1], {"model.norm.weight": None})
        with pytest.raises(PairError, match=r"it lacks 1 \(model.norm.weight\)"):
            ModelPair.from_pretrained(*pair)

    def test_weights_that_nothing_reads_are_told(self, pair):
        edit_weights(pair[1], {"model.norm.bias": torch.zeros(32), "more": torch.zeros(1)})
        with pytest.raises(
            PairError, match=r"has 2 that would be left unused \(model.norm.bias, more\)"
        ):
            ModelPair.from_pretrained(*pair)

    def test_buffers_of_older_releases_are_no_weights(self, pair):
        edit_weights(pair[1], {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
        assert ModelPair.from_pretrained(*pair)

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
    def test_configurations_that_weights_belie(self, pair, changes, message):
        edit_config(pair[1], **changes)
        start = time.monotonic()
        for memory_is_checked in (True, False):
            with pytest.raises(PairError, match=message) as raised:
                ModelPair.from_pretrained(*pair, check_memory=memory_is_checked)
            assert str(pair[1] / "config.json") in str(raised.value)
        assert time.monotonic() - start < 20

    def test_an_adapter_beside_a_model_is_refused(self, pair, tmp_path):
        (pair[1] / "adapter_config.json").write_text("{}")
        for load in (ModelPair.from_pretrained, ModelPair.check):
            with pytest.raises(PairError, match="a whole model and an adapter.*from_adapter"):
                load(*pair)
        with pytest.raises(PairError, match="a whole model and an adapter"):
            ModelPair.from_adapter(pair[1], pair[1])

    def test_no_pickle_is_opened(self, pair, monkeypatch):
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
        weights = pair[1] / "model.safetensors"
        torch.save(load_file(weights), pair[1] / "weights.bin")
        edit_config(pair[1], transformers_weights="adapter_model.bin")
        with pytest.raises(UnsafeWeightsError, match="weights of its own"):
            ModelPair.from_pretrained(*pair)
        edit_config(pair[1], transformers_weights=None)
        (pair[1] / "weights.bin").replace(weights)  # a pickle by another name
        with pytest.raises(PairError, match="not in the format of safetensors"):
            ModelPair.from_pretrained(*pair)

    def test_damaged_config(self, pair):
        (pair[0] / "config.json").write_text("{")
        with pytest.raises(PairError, match="configuration of .*base could not be read"):
            ModelPair.from_pretrained(*pair)

    @pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"cache_implementation": "x"}'])
    def test_damaged_generation_settings(self, pair, content):
        (pair[0] / "generation_config.json").write_text(content)
        for load in (ModelPair.check, ModelPair.from_pretrained):
            with pytest.raises(PairError, match="generation settings of .*base could not be read"):
                load(*pair)

    @pytest.mark.parametrize("content", ["", "[]", '{"model_max_length": "many"}'])
    def test_damaged_tokenizer_settings(self, pair, content):
        (pair[1] / "tokenizer_config.json").write_text(content)
        for load in (ModelPair.check, ModelPair.from_pretrained):
            with pytest.raises(PairError, match="tokenizer of .*aligned could not be read"):
                load(*pair)

    def test_code_of_its_own(self, pair):
        edit_config(pair[0], model_type="own", auto_map={"AutoConfig": "own.OwnConfig"})
        with pytest.raises(UnsafeWeightsError, match="trust_remote_code=True"):
            ModelPair.from_pretrained(*pair)

    def test_tokenizers_are_compared_before_weights_are_read(self, pair):
        make_tokenizer("sentencepiece").save_pretrained(pair[0])
        (pair[0] / "model.safetensors").unlink()
        with pytest.raises(VocabularyMismatchError, match="id 6"):
            ModelPair.from_pretrained(*pair)

    def test_sharded_weights(self, pair, tmp_path):
        whole = ModelPair.from_pretrained(*pair)
        whole.aligned.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
        whole.aligned_tokenizer.save_pretrained(tmp_path / "shards")
        assert not (tmp_path / "shards" / "model.safetensors").exists()
        sharded = ModelPair.from_pretrained(pair[0], tmp_path / "shards").aligned.state_dict()
        for name, weight in whole.aligned.state_dict().items():
            assert torch.equal(weight, sharded[name])


class TestArchitectures:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_of_the_presets(self, family):
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
    def test_refused_before_weights(self, pair, changes, message):
        edit_config(pair[0], **changes)
        with pytest.raises(PairError, match=message):
            ModelPair.from_pretrained(*pair)


class TestMemory:
    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("tied", [False, True])
    def test_estimate_is_exact(self, family, tied):
        model = make_model(family, 300, dtype=torch.float32, tie_word_embeddings=tied)
        real = sum(p.numel() * p.element_size() for p in model.parameters())
        assert count_parameters(model.config).bytes("float32") == real

    def test_refusal_has_numbers_and_comes_before_weights(self, pair):
        for folder in pair:
            edit_config(folder, hidden_size=2**16, intermediate_size=2**18, head_dim=2**14)
            (folder / "model.safetensors").unlink()
        with pytest.raises(
            NotEnoughMemoryError, match=r"needs about \d{3,}\.\d GiB .*cpu has .*Gi"
        ):
            ModelPair.from_pretrained(*pair, device_map="cpu")
        with pytest.raises(ModelNotFoundError):
            ModelPair.from_pretrained(*pair, device_map="cpu", check_memory=False)

    def test_models_in_memory_are_not_counted_again(self, pair, monkeypatch):
        first = ModelPair.from_pretrained(*pair)
        monkeypatch.setattr(memory, "_free_on_machine", lambda: 1)
        assert ModelPair.from_pretrained(*pair, base_prompt="plain").base is first.base
        with pytest.raises(NotEnoughMemoryError):
            ModelPair.from_pretrained(*pair, dtype="float64")

    def test_each_device_has_room_for_its_own(self, pair, monkeypatch):
        free = {"cpu": 10**9, "meta": 1000}
        monkeypatch.setattr(memory, "free_bytes", lambda devices: sum(map(free.get, devices)))
        with pytest.raises(NotEnoughMemoryError, match="meta has"):
            ModelPair.from_pretrained(*pair, device_map={"base": "cpu", "aligned": "meta"})
        ModelPair.from_pretrained(*pair, device_map={"base": "cpu"})

    def test_container_limits(self, tmp_path):
        assert memory._container_limits(tmp_path) == []
        for name, text in {
            "memory.max": "1000\n",
            "memory.current": "700\n",
            "memory.stat": "anon 1\ninactive_file 50\n",
        }.items():
            (tmp_path / name).write_text(text)
        assert memory._container_limits(tmp_path) == [350]
        (tmp_path / "memory.max").write_text("max\n")
        assert memory._container_limits(tmp_path) == []


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine that refuses everything, in the words it is told."""
    told = {"status": 404, "X-Error-Code": "RepoNotFound"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(told["status"])
            self.send_header("X-Error-Code", told["X-Error-Code"])
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield told
    server.shutdown()
    server.server_close()


class TestHub:
    @pytest.mark.parametrize(
        ("status", "code", "message"),
        [
            (403, "GatedRepo", "org/base is gated. Accept its licence .*hf auth login"),
            (404, "RepoNotFound", "org/base does not exist on the hub, or is private"),
            (404, "RevisionNotFound", "org/base has no revision 'v9'"),
        ],
    )
    def test_refusals(self, hub, status, code, message):
        hub |= {"status": status, "X-Error-Code": code}
        with pytest.raises(ModelNotFoundError, match=message) as raised:
            ModelPair.from_pretrained("org/base", "org/aligned", revision="v9", token=SECRET)
        assert raised.value.__cause__ is not None
        assert SECRET not in f"{raised.value}{raised.value.__cause__}"

    def test_offline(self, hub, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE.*local folder"):
            ModelPair.from_preset("qwen2.5-0.5b")

    def test_not_to_be_asked(self, hub):
        with pytest.raises(ModelNotFoundError, match="local_files_only"):
            ModelPair.from_preset("smollm2-135m", local_files_only=True)

    def test_from_the_cache(self, hub, pair, tmp_path, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        commit = "0123456789abcdef0123456789abcdef01234567"
        for side, folder in zip(("base", "aligned"), pair, strict=True):
            repo = tmp_path / "cache" / f"models--org--{side}"
            shutil.copytree(folder, repo / "snapshots" / commit)
            (repo / "refs").mkdir()
            (repo / "refs" / "main").write_text(commit)
        loaded = ModelPair.from_pretrained("org/base", "org/aligned")
        assert loaded.name == "org/base|org/aligned"
        assert loaded.identity["base_revision"] == commit
        (repo / "snapshots" / commit / "model.safetensors").unlink()
        with pytest.raises(ModelNotFoundError, match="org/aligned has no weights"):
            ModelPair.from_pretrained("org/base", "org/aligned", base_prompt="plain", dtype="bf16")

    def test_folders_need_no_hub(self, pair, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://nowhere.invalid")
        assert ModelPair.from_pretrained(*map(str, pair)).name.endswith("/aligned")


class TestShared:
    def test_other_keys_do_not_wait(self):
        shared, release, made = Registry(), threading.Event(), threading.Event()

        class Thing:
            pass

        def slow():
            made.set()
            assert release.wait(10)
            return Thing()

        thread = threading.Thread(target=lambda: shared.get("slow", slow))
        thread.start()
        assert made.wait(10)
        thing = shared.get("quick", Thing)
        assert shared.get("quick", Thing) is thing
        release.set()
        thread.join()

    def test_failure_is_not_remembered(self):
        shared = Registry()
        with pytest.raises(ZeroDivisionError):
            shared.get("key", lambda: 1 / 0)
        assert "key" not in shared
        thing = shared.get("key", TestShared)
        assert shared.get("key", TestShared) is thing


def test_settings_of_transformers_are_put_back(pair):
    transformers_logging.set_verbosity(logging.INFO)
    try:
        ModelPair.from_pretrained(*pair)
        assert transformers_logging.get_verbosity() == logging.INFO
    finally:
        transformers_logging.set_verbosity_warning()
    assert transformers_logging.set_tqdm_hook(None) is None
    assert torch.get_default_dtype() == torch.float32


def test_progress_is_one_display(pair, capfd):
    ModelPair.from_pretrained(*pair, progress=True)
    shown = capfd.readouterr().err
    assert "Loading" in shown
    assert "it/s" not in shown


def test_tokenizing_from_many_threads(pair):
    loaded = ModelPair.from_pretrained(*pair)
    expected = loaded.render_aligned("Name a <|im_end|> city.", tokenize=True)
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                loaded.render_aligned("Name a <|im_end|> city.", tokenize=True)
            )
        )
        for _ in range(8)
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8
    assert time.monotonic() - start < 10
