"""Quantised pairs: what the words mean, what is refused, what it takes, and that it decodes."""

from __future__ import annotations

import copy
import importlib.machinery
import importlib.util
import io
import json
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torchao.quantization import Int8Tensor, Int8WeightOnlyConfig
from transformers import BitsAndBytesConfig, TorchAoConfig

from baco_integrations import Decoder, SamplingParams
from baco_integrations.core.errors import MissingExtraError, ParameterError
from baco_integrations.models.checkpoint import Checkpoint
from baco_integrations.models.hub import locate
from baco_integrations.models.memory import build_empty, count_parameters, measure_bytes
from baco_integrations.models.options import LoadOptions
from baco_integrations.models.pair import ModelPair
from tests.conformance.definition import check, full_logits, softmax
from tests.families import FAMILIES, make_config, make_pair_folder

ASKED = ("Name a place to visit.", "Suggest a hobby.", "Suggest a gift for a friend.")
SIDES = ("base", "aligned")
DOUBLE = 0.5 + 1 / 64 + 1 / 4096


@pytest.fixture(scope="module")
def plain():
    return ModelPair.tiny()


@pytest.fixture(scope="module")
def tiny():
    return ModelPair.tiny(quantization="8bit")


def quantised(model):
    """Names of the weights that are stored in int8."""
    return {name for name, weight in model.named_parameters() if isinstance(weight, Int8Tensor)}


class Opaque:
    """What some configs hold: an object that prints its address."""

    def __init__(self, bits):
        self.bits = bits


@dataclass
class Kernel:
    inner: object


class Config:
    quant_method = "own"

    def __init__(self, bits):
        self.bits = bits

    def to_dict(self):
        kernel = [Opaque(self.bits), Kernel(Opaque(torch.int8)), check]
        return {"quant_method": self.quant_method, "kernel": kernel}


class TestOptions:
    @pytest.mark.parametrize("name", ["quantization", "base_quantization", "aligned_quantization"])
    @pytest.mark.parametrize("value", ["8 bit", "int8", 8, ["8bit"], torch.int8])
    def test_refused(self, name, value):
        with pytest.raises(ParameterError, match=f"^{name} must be '4bit', '8bit', a quant"):
            LoadOptions(**{name: value})

    def test_hints(self):
        with pytest.raises(ParameterError, match="Did you mean '8bit'"):
            LoadOptions(quantization="8bits")
        with pytest.raises(ParameterError, match="Did you mean 'quantization'"):
            LoadOptions(quantization_config="8bit")

    def test_sides(self):
        options = LoadOptions(quantization="8bit", aligned_quantization="4bit", base_revision="v1")
        found = [options.of(side) for side in SIDES]
        assert [(each.quantization, each.revision) for each in found] == [
            ("8bit", "v1"),
            ("4bit", None),
        ]

    def test_equal_settings_have_equal_keys(self):
        def key(quantization):
            return LoadOptions(quantization=quantization).weights_key()

        for make in (
            lambda: TorchAoConfig(Int8WeightOnlyConfig()),
            lambda: BitsAndBytesConfig(load_in_4bit=True),
            lambda: Config(4),
        ):
            assert key(make()) == key(make())
        four = BitsAndBytesConfig(load_in_4bit=True)
        assert key(four) == key(four.to_dict())
        others = [None, "4bit", "8bit", four, BitsAndBytesConfig(load_in_8bit=True)]
        others += [Config(4), Config(8), TorchAoConfig(Int8WeightOnlyConfig())]
        assert len({key(each) for each in others}) == len(others)


class TestBeforeWeights:
    """Nothing here may read or fetch weights, so there are none."""

    @pytest.fixture
    def weightless(self, folders):
        for folder in folders:
            (folder / "model.safetensors").unlink()
        return folders

    @pytest.fixture
    def absent(self, monkeypatch):
        return lambda name: monkeypatch.setitem(sys.modules, name, None)

    @pytest.fixture
    def bitsandbytes(self, monkeypatch):
        """Its place among the installed packages: the config is made without importing it."""
        spec = importlib.machinery.ModuleSpec("bitsandbytes", None)
        monkeypatch.setitem(sys.modules, "bitsandbytes", importlib.util.module_from_spec(spec))

    @pytest.mark.parametrize(
        ("quantization", "library"),
        [
            ("8bit", "torchao"),
            (TorchAoConfig(Int8WeightOnlyConfig()), "torchao"),
            (BitsAndBytesConfig(load_in_8bit=True), "bitsandbytes"),
            ({"load_in_4bit": True}, "bitsandbytes"),
        ],
    )
    @pytest.mark.parametrize("name", ["quantization", "base_quantization", "aligned_quantization"])
    def test_missing_library(self, weightless, absent, name, quantization, library):
        absent(library)
        with pytest.raises(MissingExtraError, match=rf"{library}, needs .*integrations\[quant\]"):
            ModelPair.from_pretrained(*weightless, **{name: quantization})

    def test_missing_library_of_four_bits(self, weightless, absent):
        absent("bitsandbytes")
        with pytest.raises(MissingExtraError, match=r"base, quantised with bitsandbytes, needs"):
            made(weightless[0], quantization="4bit", device_map="cuda:0")

    def test_missing_library_of_a_quantised_checkpoint(self, weightless, absent):
        absent("bitsandbytes")
        config = weightless[1] / "config.json"
        stored = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True).to_dict()}
        config.write_text(json.dumps(json.loads(config.read_text()) | stored))
        with pytest.raises(MissingExtraError, match="aligned, quantised with bitsandbytes"):
            ModelPair.from_pretrained(*weightless)

    def test_quantised_already(self, weightless):
        config = weightless[1] / "config.json"
        stored = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
        config.write_text(json.dumps(json.loads(config.read_text()) | stored))
        with pytest.raises(ParameterError, match="left out for .*aligned, whose weights are quan"):
            ModelPair.from_pretrained(*weightless, quantization="8bit")

    @pytest.mark.parametrize("quantization", ["4bit", "8bit"])
    def test_double_precision(self, weightless, quantization):
        with pytest.raises(ParameterError, match="dtype must be another .*'bfloat16'"):
            ModelPair.from_pretrained(*weightless, quantization=quantization, dtype="float64")

    @pytest.mark.parametrize("placement", ["cpu", {"": "cpu"}, None, "auto"])
    @pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
    def test_four_bits_need_cuda(self, weightless, placement):
        with pytest.raises(ParameterError, match="must be '8bit' where there is no CUDA"):
            ModelPair.from_pretrained(*weightless, quantization="4bit", device_map=placement)

    @pytest.mark.parametrize(
        "placement", ["cuda:0", torch.device("cuda"), {"model": "cuda:1", "lm_head": "cpu"}]
    )
    @pytest.mark.parametrize("dtype", ["bfloat16", "auto"])
    def test_four_bits_on_cuda(self, weightless, bitsandbytes, placement, dtype):
        config = made(weightless[0], quantization="4bit", device_map=placement, dtype=dtype)
        assert config.quantization_method() == "nf4"
        assert config.bnb_4bit_use_double_quant
        assert config.bnb_4bit_compute_dtype == (
            torch.float32 if dtype == "auto" else torch.bfloat16
        )

    def test_users_config_is_passed_on(self, folders):
        config = TorchAoConfig(Int8WeightOnlyConfig())
        assert made(folders[0], quantization=config) is config


def made(folder, **options):
    checked = LoadOptions(**options)
    return Checkpoint(locate(folder, "base", checked), checked).quantizer()


class TestMemory:
    @pytest.mark.parametrize(("place", "family"), [*enumerate(FAMILIES)])
    def test_estimate_of_eight_bits(self, tmp_path, place, family):
        kind = "sentencepiece" if family in ("gemma2", "gemma3", "mistral") else "byte-level"
        folders = make_pair_folder(
            tmp_path, family, kind, dtype=torch.bfloat16, tie_word_embeddings=place % 2 == 0
        )
        pair = ModelPair.from_pretrained(*folders, quantization="8bit")
        model = pair.aligned
        linear = {
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()
        }
        assert quantised(model) == linear
        for estimated in ("8bit", TorchAoConfig(Int8WeightOnlyConfig()).to_dict()):
            estimate = count_parameters(build_empty(model.config)).bytes("bfloat16", estimated)
            assert estimate == pytest.approx(measure_bytes(model), rel=0.05)
        assert pair.memory_bytes() == measure_bytes(pair.base) + measure_bytes(model)

    def test_measured_is_what_is_saved(self, plain, tiny):
        def saved(model):
            file = io.BytesIO()
            torch.save(model.state_dict(), file)
            return file.tell()

        for model in (plain.aligned, tiny.aligned):
            assert measure_bytes(model) == pytest.approx(saved(model), rel=0.03)
        assert tiny.memory_bytes() < 0.5 * plain.memory_bytes()
        assert f"{tiny.memory_bytes() / 2**20:.1f} MiB" in repr(tiny)

    @pytest.mark.parametrize(
        ("quantization", "weight", "row"),
        [
            ("4bit", DOUBLE, 0),
            ({"load_in_4bit": True}, 0.5625, 0),
            ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, DOUBLE, 0),
            ({"load_in_8bit": True}, 1, 4),
            ({"quant_type": "Int4WeightOnlyConfig"}, 0.5, 0),
            ({"quant_method": "gptq", "bits": 4, "sym": True}, 0.5, 0),
            ({"quant_method": "??"}, 2, 0),
        ],
    )
    def test_other_estimates(self, quantization, weight, row):
        size = count_parameters(build_empty(make_config("llama", 300)))
        expected = round(size.linear * weight + size.rows * row + 2 * size.other)
        assert size.bytes("bfloat16", quantization) == expected


class TestSides:
    @pytest.mark.parametrize("side", SIDES)
    def test_one_alone(self, side, plain, tiny):
        pair = ModelPair.tiny(**{f"{side}_quantization": "8bit"})
        for each in SIDES:
            whole = tiny if each == side else plain
            assert getattr(pair, each) is getattr(whole, each)
        assert pair.identity[f"{side}_quantization"] == "8bit"
        assert [pair.identity[f"{each}_quantization"] for each in SIDES].count(None) == 1

    def test_equal_settings_share(self, plain, tiny):
        assert ModelPair.tiny(base_quantization="8bit", aligned_quantization="8bit").base is (
            tiny.base
        )
        own = [ModelPair.tiny(aligned_quantization=TorchAoConfig(Int8WeightOnlyConfig()))]
        own.append(ModelPair.tiny(aligned_quantization=TorchAoConfig(Int8WeightOnlyConfig())))
        assert own[0].aligned is own[1].aligned
        assert own[0].base is plain.base
        assert json.loads(json.dumps(own[0].identity)) == own[0].identity
        stored = ModelPair.tiny(quantization=own[0].identity["aligned_quantization"])
        assert stored.aligned is own[0].aligned
        assert len({id(each.base) for each in (plain, tiny, stored)}) == 3

    def test_a_quantised_checkpoint_is_both_sides(self, tiny, tmp_path):
        tiny.aligned.save_pretrained(tmp_path)
        tiny.aligned_tokenizer.save_pretrained(tmp_path)
        pair = ModelPair.from_model(tmp_path)
        assert pair.kind == "one-model" and quantised(pair.base) == quantised(tiny.aligned) != set()
        assert pair.memory_bytes() == measure_bytes(tiny.aligned)
        said = []
        for each in (pair, tiny):
            with Decoder(each) as decoder:
                said.append(decoder.generate(ASKED[0], router="aligned", temperature=0)[0].text)
                if each is pair:
                    assert decoder.generate(ASKED[0], router="rand", gamma=1)[0].base_share > 0
        assert said[0] == said[1]

    def test_happy_path_is_silent(self, folders, capfd, caplog):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ModelPair.from_pretrained(*folders, quantization="8bit")
        assert capfd.readouterr() == ("", "")
        assert not caplog.records


class TestDecoding:
    @pytest.mark.parametrize(
        ("family", "side"),
        [
            *((name, "both") for name in ("llama", "qwen2", "gemma3")),
            ("olmo2", "base"),
            ("llama", "aligned"),
        ],
    )
    def test_conformance(self, tmp_path, family, side):
        """Every step is recomputed with plain full forwards of the same models."""
        name = "quantization" if side == "both" else f"{side}_quantization"
        kind = "sentencepiece" if family == "gemma3" else "byte-level"
        folders = make_pair_folder(tmp_path, family, kind, dtype=torch.float32)
        pair = in_float64(ModelPair.from_pretrained(*folders, **{name: "8bit"}))
        assert [bool(quantised(model)) for model in (pair.base, pair.aligned)] == [
            side != "aligned",
            side != "base",
        ]
        confirm(pair, ["Name a city.", "Hi", "A story, please."])

    def test_conformance_of_the_tiny_pair(self, tiny):
        confirm(in_float64(tiny), ASKED)

    def test_lower_precision(self, tiny):
        """Rounding may move a token; what is told of it is near what plain forwards say."""
        params = SamplingParams(gamma=0.6, temperature=0, max_tokens=30, seed=1)
        near, same = [], []
        with Decoder(tiny) as decoder:
            for prompt in ASKED:
                (completion,) = decoder.generate(prompt, params)
                tokens = [step.token_id for step in completion.steps]
                told = {side: logits_of(tiny, side, prompt, tokens) for side in ("base", "aligned")}
                for place, step in enumerate(completion.steps):
                    wanted = [softmax(told[side][place])[step.token_id] for side in SIDES]
                    near.append(np.allclose([step.p_base, step.p_aligned], wanted, rtol=1e-3))
                    if step.source == "aligned" and not step.switched:
                        same.append(told["aligned"][place].argmax() == step.token_id)
        assert np.mean(near) > 0.98
        assert np.mean(same) > 0.98

    @pytest.mark.parametrize("prompt", ASKED)
    def test_gamma_zero_is_the_quantised_aligned_model(self, tiny, prompt):
        ids = torch.tensor([tiny.render_aligned(prompt, tokenize=True)])
        settings = {"do_sample": False, "max_new_tokens": 30}
        settings |= {"attention_mask": torch.ones_like(ids)}
        expected = tiny.aligned.generate(ids, **settings)[0, ids.shape[1] :].tolist()
        with Decoder(tiny) as decoder:
            (completion,) = decoder.generate(prompt, gamma=0, temperature=0, max_tokens=30)
        assert [step.token_id for step in completion.steps] == expected

    def test_agreement_with_the_whole_models(self, plain, tiny):
        agree = []
        with Decoder(plain) as decoder:
            for prompt in ASKED:
                for text in decoder.generate(prompt, gamma=0.6, n=2, seed=1):
                    tokens = [step.token_id for step in text.steps]
                    for side in SIDES:
                        tops = [
                            logits_of(pair, side, prompt, tokens).argmax(1)
                            for pair in (plain, tiny)
                        ]
                        agree += (tops[0] == tops[1]).tolist()
        assert np.mean(agree) > 0.96  # 0.98 was found


def in_float64(pair):
    """The same quantised weights, calculated with in float64, where a batch rounds like a row."""
    models = []
    for model in (pair.base, pair.aligned):
        models.append(copy.deepcopy(model))
        for tensor in (*models[-1].parameters(), *models[-1].buffers()):
            if not isinstance(tensor, Int8Tensor):
                tensor.data = tensor.data.double()
    return ModelPair(*models, pair.base_tokenizer, pair.aligned_tokenizer)


def confirm(pair, prompts):
    params = [
        SamplingParams(gamma=gamma, temperature=temperature, seed=seed, max_tokens=20)
        for seed, prompt in enumerate(prompts)
        for gamma, temperature in ((0.4, 0.0), (0.8, 1.0))
    ]
    asked = [prompt for prompt in prompts for _ in range(2)]
    with Decoder(pair) as decoder:
        results = decoder.generate_batch(asked, params)
        (alone,) = decoder.generate(asked[-1], params[-1])
    sources = set()
    for prompt, own, (completion,) in zip(asked, params, results, strict=True):
        check(pair, prompt, own, completion)
        sources |= {step.source for step in completion.steps}
    assert sources == {"base", "aligned"}
    assert alone.text == results[-1][0].text


def logits_of(pair, side, prompt, tokens):
    fed = getattr(pair, f"render_{side}")(prompt, tokenize=True)
    real = getattr(pair, f"{side}_size")
    return full_logits(getattr(pair, side), fed, tokens, pair.size, real)
