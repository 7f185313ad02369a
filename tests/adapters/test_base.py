"""What adapters are told: which pair, how to load it, how to decode."""

from __future__ import annotations

import pickle
import shutil
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from pydantic import SecretStr
from transformers import BitsAndBytesConfig

from baco_integrations import BacoError, ModelPair, SamplingParams
from baco_integrations.adapters.base import (
    SAMPLING,
    Adapter,
    cache_key,
    sampling_params,
)
from baco_integrations.api.data import provenance, summary
from baco_integrations.core.errors import ModelNotFoundError, ParameterError
from baco_integrations.core.params import SideSampling
from baco_integrations.core.settings import stated
from baco_integrations.decoder.pairs import open_decoder
from baco_integrations.models.options import LoadOptions
from baco_integrations.remote.settings import RemoteOptions
from baco_integrations.tiny import WEIGHTS as TINY
from tests.families import make_pair_folder
from tests.scripted import cities

SECRET = "sk-secret"

# -- which pair ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "pair must be given: pair, or model, or both base and aligned"),
        ({"base": "a/b"}, "aligned must be given"),
        ({"aligned": "a/b"}, "base must be given"),
        ({"pair": "tiny", "base": "a/b"}, "Give one or the other"),
        ({"pair": "tiny", "base": "a/b", "aligned": "a/c"}, "Give one or the other"),
        ({"pair": "tiny", "model": "a/b"}, "model must be left out where pair is given"),
        ({"model": "a/b", "base": "a/b"}, "model must be left out where base is given"),
        ({"model": "a/b", "aligned": "a/c"}, "model must be left out where aligned is given"),
        ({"model": cities()}, "model must be a folder or an id"),
        ({"model": ""}, "model must be a folder or an id"),
        ({"pair": "tinny"}, "Did you mean 'tiny'?"),
        ({"pair": "qwen2.5-05b"}, "Did you mean 'qwen2.5-0.5b'?"),
        ({"pair": 3}, "a name, a ModelPair or a ScriptedPair, got 3"),
        ({"pair": cities(), "dtype": "float32"}, "pair must be a name where dtype is given"),
        ({"pair": "tiny", "dtype": "floot32"}, "Did you mean 'float32'?"),
        ({"pair": "tiny", "base_prompt": "qaa"}, "Did you mean 'qa'?"),
    ],
)
def test_an_unclear_pair_is_refused_before_anything_is_loaded(
    given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ParameterError, match=says.replace("?", r"\?")):
        open_decoder(**given)
    with pytest.raises(ParameterError, match=says.replace("?", r"\?")):
        Adapter(**given)


def test_nothing_is_loaded_until_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelPair, "tiny", lambda **_: pytest.fail("loaded"))
    adapter = Adapter(pair="tiny", dtype="float16", gamma=0.2)
    assert adapter.model_name == "tiny"
    assert adapter.identity(adapter.request_params({}))["dtype"] == "float16"


def test_many_threads_load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, load = [], ModelPair.from_pretrained
    monkeypatch.setattr(
        ModelPair, "from_pretrained", lambda *a, **k: (loads.append(a), load(*a, **k))[1]
    )
    adapters = [
        Adapter(base=TINY / "base", aligned=TINY / "aligned", dtype="float32") for _ in range(8)
    ]
    start = threading.Barrier(8)

    def decoder(adapter: Adapter) -> int:
        start.wait()
        return id(adapter.decoder)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(decoder, adapters))) == 1
    assert len(loads) == 1


def test_equal_pairs_said_differently_share_a_decoder() -> None:
    by_name = Adapter(pair="tiny")
    assert by_name.decoder is Adapter(pair="TINY", token="hf_x").decoder
    assert by_name.decoder is Adapter(pair=ModelPair.tiny()).decoder
    assert by_name.decoder is not Adapter(pair="tiny", base_prompt="plain").decoder


def test_one_model_is_both_sides() -> None:
    adapter = Adapter(model=TINY / "aligned", dtype="float32")
    assert adapter.model_name == str(TINY / "aligned")
    assert adapter.identity(adapter.request_params({}))["model"] == str(TINY / "aligned")
    assert adapter.context_window() == 1024
    assert adapter.decoder.pair.kind == "one-model"
    twice = Adapter(base=TINY / "aligned", aligned=TINY / "aligned", dtype="float32")
    assert twice.decoder is adapter.decoder is pickle.loads(pickle.dumps(adapter)).decoder
    with pytest.raises(ParameterError, match="said when the object is made: pair='qwen2.5-7b'"):
        adapter.request_params({"model": "org/other"})


def test_users_are_counted_by_identity() -> None:
    pair = cities()
    one, other = Adapter(pair=pair), Adapter(pair=pair)
    assert one == other
    decoder = one.decoder
    assert other.decoder is decoder
    decoder.close(one)
    assert not decoder.closed
    decoder.close(other)
    assert decoder.closed
    assert not one.decoder.closed


def test_the_token_is_a_secret_until_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    tiny = ModelPair.tiny
    monkeypatch.setattr(ModelPair, "tiny", lambda **options: seen.update(options) or tiny())
    for token in ("hf_secret", SecretStr("hf_secret")):
        adapter = Adapter(pair="tiny", token=token, device_map="cpu", base_prompt="urial")
        told = [repr(adapter), str(adapter.model_dump()), str(adapter.identity(SamplingParams()))]
        assert not any("secret" in text for text in told)
        assert adapter.decoder
        assert seen["token"] == "hf_secret"


def test_revisions_of_one_pair_are_not_mistaken_for_one_another(
    cache: Path, tmp_path: Path
) -> None:
    for commit, seed in (("a" * 40, 1), ("b" * 40, 2)):
        folders = make_pair_folder(tmp_path / commit, "llama", dtype=torch.float32, seed=seed)
        for side, folder in zip(("base", "aligned"), folders, strict=True):
            repo = cache / f"models--org--{side}"
            shutil.copytree(folder, repo / "snapshots" / commit)
            (repo / "refs").mkdir(exist_ok=True)
            (repo / "refs" / "main").write_text(commit)
    asked: list[dict[str, Any]] = [
        *({"revision": commit * 40} for commit in "ab"),
        *(
            {"base_revision": base * 40, "aligned_revision": other * 40}
            for base, other in ("ab", "ba")
        ),
    ]
    adapters = [Adapter(base="org/base", aligned="org/aligned", **each) for each in asked]
    pairs = [adapter.decoder.pair for adapter in adapters]
    told = [(pair.identity["base_revision"], pair.identity["aligned_revision"]) for pair in pairs]
    assert told == [
        ("a" * 40, "a" * 40),
        ("b" * 40,) * 2,
        ("a" * 40, "b" * 40),
        ("b" * 40, "a" * 40),
    ]
    assert len({id(adapter.decoder) for adapter in adapters}) == 4
    assert pairs[2].base is pairs[0].base and pairs[2].aligned is pairs[1].aligned
    assert Adapter(base="org/base", aligned="org/aligned").decoder.pair is pairs[1]


# -- copies ----------------------------------------------------------------------------------------


def test_a_pickled_adapter_finds_its_decoder_again() -> None:
    adapter = Adapter(pair="tiny", gamma=0.3)
    data = pickle.dumps(adapter)
    assert len(data) < 5000
    assert pickle.loads(data).decoder is adapter.decoder


def test_a_loaded_pair_is_not_pickled() -> None:
    with pytest.raises(ParameterError, match="weights, and those are not pickled"):
        pickle.dumps(Adapter(pair=cities()))


def test_a_copy_is_checked_and_shares_the_decoder() -> None:
    adapter = Adapter(pair=cities(), threshold=0.5)
    copy = adapter.with_settings({"gamma": 0.9})
    assert (copy.gamma, copy.threshold, adapter.threshold) == (0.9, None, 0.5)
    assert copy.decoder is adapter.decoder
    with pytest.raises(ParameterError, match="gamma must be a number from 0"):
        adapter.with_settings({"gamma": 1.5})


# -- settings --------------------------------------------------------------------------------------


def test_an_adapter_has_every_setting() -> None:
    fields = Adapter.model_fields.keys()
    assert set(LoadOptions.model_fields) <= fields
    # What belongs to a call, or not to every adapter.
    assert set(SAMPLING) - fields == {"n", "tools", "tool_choice", "parallel_tool_calls"}
    settings = {*SAMPLING, *LoadOptions.model_fields, *RemoteOptions.model_fields}
    assert fields - settings == {"pair", "model", "base", "aligned"}
    assert all(field.default is None for field in Adapter.model_fields.values())


def test_each_field_says_what_its_setting_says() -> None:
    """The class's docstring, which `help` shows, has the same words."""

    class Mine(Adapter):
        """An adapter."""

    shown = " ".join(str(Mine.__doc__).split())
    for name, field in Mine.model_fields.items():
        own = {**LoadOptions.model_fields, **RemoteOptions.model_fields}
        setting = own.get(name) or SamplingParams.model_fields.get(SAMPLING.get(name, ""))
        if setting is not None:
            assert field.description == stated(setting, "help")
        if field.description:
            assert " ".join(f"{name}: {field.description}".split()) in shown
    assert {"pair", "gamma", "seed", "revision"} <= {
        name for name, field in Mine.model_fields.items() if field.description
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"gama": 0.5}, "Did you mean 'gamma'?"),
        ({"model_name": "org/model"}, "pair='qwen2.5-7b'"),
        ({"gamma": 1.5}, "gamma must be a number from 0"),
        ({"gamma": "high"}, "gamma must be a number from 0"),
        ({"router": "p-pnc"}, "Did you mean 'p-punc'?"),
        ({"gamma": 0.5, "threshold": 0.5}, "threshold must be unset where gamma is given"),
        ({"temperature": -1}, "temperature must be a number from 0"),
        ({"base_sampling": {"temprature": 1}}, "Did you mean 'temperature'?"),
        ({"stop": [""]}, "stop must be a non-empty string"),
        ({"max_tokens": 0}, "max_tokens must be a whole number"),
    ],
)
def test_a_bad_setting_is_refused_per_object_and_per_call(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BacoError, match=says.replace("?", r"\?")):
        Adapter(pair="tiny", **given)
    with pytest.raises(BacoError, match=says.replace("?", r"\?")):
        Adapter(pair="tiny").request_params(given)


@pytest.mark.parametrize(
    "give",
    [
        lambda given: Adapter(pair="tiny", **given),
        lambda given: Adapter(pair="tiny", base_sampling=given),
        lambda given: Adapter(pair="tiny").request_params(given),
        lambda given: Adapter(pair="tiny").with_settings(given),
        lambda given: Adapter(pair="tiny").with_settings({"aligned_sampling": given}),
        lambda given: open_decoder("tiny", **given),
    ],
)
@pytest.mark.parametrize("name", ["apikey", "hf_token", "tokn"])
def test_a_mistyped_secret_is_not_told(name: str, give: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        give({name: SECRET})
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in f"{told}{vars(caught.value)}{pickle.dumps(caught.value)!r}"


def test_a_call_comes_before_the_object() -> None:
    own = {"gamma": 0.2, "temperature": 0.5, "stop": ["a"], "base_sampling": {"top_k": 3}}
    params = sampling_params(own, {"gamma": 0.9, "temperature": None, "stop": ["b"]})
    assert (params.gamma, params.temperature, params.stop) == (0.9, 0.5, ("b",))
    assert params.base is not None
    assert params.base.top_k == 3
    assert sampling_params(own, {"threshold": 0.4}).effective_gamma == 0.4


def test_settings_objects_are_kept_as_data() -> None:
    four = BitsAndBytesConfig(load_in_4bit=True)
    adapter = Adapter(
        pair="tiny",
        base_sampling=SideSampling(top_k=3),
        dtype=torch.float16,
        quantization="8bit",
        aligned_quantization=four,
    )
    assert adapter.base_sampling == {"top_k": 3}
    assert (adapter.quantization, adapter.aligned_quantization) == ("8bit", four.to_dict())
    assert adapter.dtype == "float16"
    assert Adapter(**adapter.model_dump()) == adapter


def test_identity_tells_apart_what_changes_the_output() -> None:
    def identity(**settings: Any) -> str:
        adapter = Adapter(pair="tiny", **settings)
        return str(adapter.identity(adapter.request_params({})))

    alike = [identity(), identity(gamma=0.6), identity(threshold=0.6), identity(progress=False)]
    other = [
        identity(gamma=0.5),
        identity(router="h"),
        identity(seed=1),
        identity(stop="x"),
        identity(dtype="float64"),
        identity(revision="v1"),
        identity(quantization="8bit"),
        identity(base_quantization="8bit"),
        identity(base_sampling={"top_k": 3}),
        identity(aligned_sampling={"top_k": 3}),
    ]
    assert len(set(alike)) == 1
    assert len({*alike, *other}) == 1 + len(other)


# -- results ---------------------------------------------------------------------------------------


def test_results_are_plain_data() -> None:
    decoder = open_decoder(cities())
    (completion,) = decoder.generate("City?", gamma=0.9, seed=1, alternatives=2)
    assert completion.text in ("Oslo.", "Bergen.")
    assert summary(completion) == {
        "finish_reason": "stop",
        "gamma": 0.9,
        "router": "p-punc",
        "base_share": completion.base_share,
        "switches": completion.switches,
        "seed": 1,
    }
    told = provenance(completion.steps[0])
    assert told["source"] == "base"
    assert "sample" not in told
    assert told["alternatives"]["aligned"][0] == {
        "token_id": decoder.pair.tokens.index(" Rome"),
        "text": " Rome",
        "probability": 1.0,
    }
    assert "alternatives" not in provenance(completion.steps[0]._replace(alternatives=None))


# -- what tells things apart -----------------------------------------------------------------------


class Coin:
    def __init__(self, *faces: Any) -> None:
        self.faces = faces

    def route(self, inputs: Any) -> Any:
        return inputs.uniform < 0


def _prompt(before: str) -> Any:
    return lambda messages: before + messages[-1]["content"]


def _shout(messages: Any) -> str:
    return str(messages[-1]["content"]).upper()


_WEIGHTS = torch.zeros(3000)
_COIN = Coin(_WEIGHTS)
_CLOSURE = _prompt("a")


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Coin(1, [0.5]), Coin(1, [0.5]), Coin(1, [0.25])),
        (ModelPair.tiny(), ModelPair.tiny(), ModelPair.tiny(base_prompt="plain")),
        # What is not plain data is itself alone.
        (_shout, _shout, str.upper),
        (_CLOSURE, _CLOSURE, _prompt("a")),
        (_COIN, _COIN, Coin(_WEIGHTS)),
        (
            ModelPair.tiny(base_prompt=_shout),
            ModelPair.tiny(base_prompt=_shout),
            ModelPair.tiny(base_prompt=_CLOSURE),
        ),
    ],
)
def test_what_is_alike_is_told_alike(one: Any, same: Any, other: Any) -> None:
    assert cache_key(one) == cache_key(same) != cache_key(other)


def test_what_only_looks_alike_is_told_apart() -> None:
    assert cache_key(cities()) != cache_key(cities())
    assert cache_key(lambda m: m.lower()) != cache_key(lambda m: m.lower())

    class Mine(Coin):
        pass

    assert cache_key(Mine(1)) != cache_key(Mine(1))  # there may be another class of that name


def test_loaded_pairs_tell_their_models() -> None:
    pair = ModelPair.tiny()
    adapter = Adapter(pair=pair)
    told = adapter.identity(adapter.request_params({}))["pair"]
    assert told.items() >= pair.identity.items() and told["key"] == cache_key(pair)


def test_options_that_are_equal_and_of_other_types_are_not_the_same() -> None:
    open_decoder("tiny", check_memory=True)
    with pytest.raises(ParameterError, match="check_memory"):
        open_decoder("tiny", check_memory=1)


def test_presets_tell_their_models() -> None:
    adapter = Adapter(pair="Qwen3-0.6B")
    told = adapter.identity(adapter.request_params({}))
    assert (told["base"], told["aligned"]) == ("Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-0.6B")
    assert (told["base_prompt"], told["template_kwargs"]) == ("qa", {"enable_thinking": False})


# -- windows ---------------------------------------------------------------------------------------


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub's cache that is empty, and a folder to be in that has a file of the wrong kind."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 77}')
    return tmp_path / "cache"


def _cached(cache: Path, model: str, config: str, commit: str = "c0ffee") -> None:
    repo = cache / f"models--{model.replace('/', '--')}"
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit / "config.json").write_text(config)


def test_windows_of_models_that_are_not_at_hand(cache: Path) -> None:
    adapter = Adapter(pair="qwen2.5-0.5b")
    assert adapter.context_window() is None
    with pytest.raises(ModelNotFoundError, match="Qwen2.5-0.5B"):
        adapter.context_window(fetch=True)


def test_windows_are_read_from_the_hubs_cache(cache: Path) -> None:
    _cached(cache, "Qwen/Qwen2.5-0.5B", '{"max_position_embeddings": 32768}')
    _cached(
        cache, "Qwen/Qwen2.5-0.5B-Instruct", '{"text_config": {"max_position_embeddings": 4096}}'
    )
    assert Adapter(pair="Qwen2.5-0.5b").context_window() == 4096
    assert Adapter(pair="qwen2.5-0.5b", revision="c0ffee").context_window(fetch=True) == 4096
    assert Adapter(pair="qwen2.5-0.5b", revision="v9").context_window() is None


@pytest.mark.parametrize(
    "config",
    ["not json", "[]", "{}", '{"text_config": null}', '{"max_position_embeddings": "many"}']
    + ['{"max_position_embeddings": -1}'],
)
def test_configurations_that_tell_nothing(cache: Path, config: str) -> None:
    _cached(cache, "a/b", config)
    assert Adapter(base="a/b", aligned="a/b").context_window() is None


def test_windows_of_what_is_no_model(cache: Path) -> None:
    adapter = Adapter(base="a..b", aligned="a/b")
    assert adapter.context_window() is None
    with pytest.raises(ModelNotFoundError, match=r"a\.\.b"):
        adapter.context_window(fetch=True)


def test_windows_of_folders_and_of_the_embedded_pair(cache: Path) -> None:
    sides = {"base": TINY / "base", "aligned": TINY / "aligned"}
    assert Adapter(**sides).context_window() == Adapter(pair="Tiny").context_window() == 1024
