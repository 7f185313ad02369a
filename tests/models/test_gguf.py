"""GGUF files as models of a pair: what transformers reads from them, and what is refused."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from baco_integrations.core.errors import (
    MissingExtraError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    PairError,
    ParameterError,
)
from baco_integrations.core.params import SamplingParams
from baco_integrations.decoder.decoder import Decoder
from baco_integrations.models import hub, sides
from baco_integrations.models.hub import configuration
from baco_integrations.models.options import LoadOptions
from baco_integrations.models.pair import ModelPair
from tests.families import edit_config, make_pair_folder, make_tokenizer
from tests.lora import save_adapter

pytest.importorskip("gguf")
from tests.gguf_files import write_gguf

QUESTION = "Name a city."
FILES = {
    "llama": ("llama", "byte-level", {}),
    "llama, sentencepiece": ("llama", "sentencepiece", {}),
    "qwen2": ("qwen2", "byte-level", {}),
    # transformers takes every sixth layer of such a file for a full one.
    "gemma3": (
        *("gemma3", "sentencepiece"),
        {"num_hidden_layers": 6, "layer_types": 5 * ["sliding_attention"] + ["full_attention"]},
    ),
}


def make_files(folder: Path, name: str = "llama", **more) -> tuple[Path, Path]:
    """Write a tiny pair of a family as two GGUF files, beside the folders that they come from."""
    family, kind, overrides = FILES[name]
    made = make_pair_folder(folder, family, kind, dtype=torch.float32, **overrides)
    base, aligned = (write_gguf(each, folder / f"{each.name}.gguf", **more) for each in made)
    return base, aligned


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return make_files(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_text_and_tokens_are_those_of_transformers(tmp_path, name):
    files = make_files(tmp_path, name, quantised=True)
    pair = ModelPair.from_pretrained(*files)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="aligned.gguf")
    assert pair.aligned_tokenizer.get_vocab() == tokenizer.get_vocab()
    text = "She said that it wasn't far, 12 miles."
    assert pair.aligned_tokenizer(text).input_ids == tokenizer(text).input_ids
    written = AutoTokenizer.from_pretrained(tmp_path / "aligned").chat_template
    assert pair.aligned_tokenizer.chat_template == tokenizer.chat_template == written
    assert pair.base_tokenizer.chat_template is None
    with Decoder(pair) as decoder:
        for side, router in (("aligned", "aligned"), ("base", "base")):
            model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=f"{side}.gguf")
            ids = torch.tensor([getattr(pair, f"render_{side}")(QUESTION, tokenize=True)])
            expected = model.generate(ids, do_sample=False, max_new_tokens=16)[0, ids.shape[1] :]
            params = SamplingParams(router=router, temperature=0, max_tokens=16)
            (answer,) = decoder.generate(QUESTION, params)
            said = [step.token_id for step in answer.steps]
            assert said and said == expected[: len(said)].tolist()


def test_weights_are_those_that_were_written(files, tmp_path):
    from_files = ModelPair.from_pretrained(*files)
    from_folders = ModelPair.from_pretrained(tmp_path / "base", tmp_path / "aligned")
    ids = torch.tensor([[5, 6, 7, 100, 200, 300]])
    for side in ("base", "aligned"):
        logits = (getattr(pair, side)(ids).logits for pair in (from_files, from_folders))
        torch.testing.assert_close(*logits)
    assert from_files.base.dtype == torch.float32
    assert ModelPair.from_pretrained(*files, dtype="bfloat16").base.dtype == torch.bfloat16


def test_one_side_may_be_a_folder(files, tmp_path):
    pair = ModelPair.from_pretrained(tmp_path / "base", files[1])
    assert pair.identity["base"] == "base" and pair.identity["aligned"] == "aligned.gguf"
    assert ModelPair.from_pretrained(str(tmp_path / "base"), str(files[1])) is pair
    assert not ModelPair.from_pretrained(*files).compatibility.notes


def test_one_file_twice_is_loaded_once(files):
    pair = ModelPair.from_pretrained(files[1], files[1])
    assert pair.base is pair.aligned
    assert sum("dequantised" in note for note in pair.notes) == 1


def test_a_file_with_an_adapter(files, tmp_path):
    adapter = save_adapter(tmp_path / "base", tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7, 100]])
    file, folder = (ModelPair.from_adapter(e, adapter) for e in (files[0], tmp_path / "base"))
    torch.testing.assert_close(file.aligned(ids).logits, folder.aligned(ids).logits)
    assert any("dequantised" in note for note in file.notes)


def test_a_changed_file_is_another_model(files, tmp_path):
    pair = ModelPair.from_pretrained(*files)
    shutil.copy(files[1], files[0])
    assert ModelPair.from_pretrained(*files).base is not pair.base


def test_all_ends_of_the_file_end_an_answer(files, tmp_path):
    ends = {"tokenizer.ggml.eot_token_id": 7, "tokenizer.ggml.eom_token_id": 9}
    file = write_gguf(tmp_path / "aligned", tmp_path / "more.gguf", **ends)
    pair = ModelPair.from_pretrained(file, file)
    own = pair.aligned_tokenizer.eos_token_id
    assert pair.aligned_eos == {own, 7, 9} == {*pair.aligned.generation_config.eos_token_id}
    assert len(ModelPair.check(file, file).aligned.end_tokens) == 3


def test_what_lies_beside_the_file_is_not_read(files, tmp_path):
    make_tokenizer("sentencepiece").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    (tmp_path / "config.json").write_text("{}")
    pair = ModelPair.from_pretrained(*files)
    assert len(pair.aligned_tokenizer) == 505 and pair.aligned_tokenizer.chat_template
    assert 7 not in pair.aligned_eos


def test_an_adapter_beside_the_file_is_refused(files, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(PairError, match="a whole model and an adapter"):
        ModelPair.from_pretrained(*files)


def test_memory_is_estimated_before_loading(files, monkeypatch):
    asked = []
    monkeypatch.setattr(sides, "require_memory", lambda needed, *_: asked.append(needed))
    pair = ModelPair.from_pretrained(*files, base_prompt="plain")
    assert sum(asked) == sum(p.nbytes for m in (pair.base, pair.aligned) for p in m.parameters())
    monkeypatch.undo()
    monkeypatch.setattr("baco_integrations.models.memory.free_bytes", lambda devices: 2**10)
    with pytest.raises(NotEnoughMemoryError, match="dtype='bfloat16'"):
        ModelPair.from_pretrained(*files, dtype="float64")


def test_dequantising_is_told(tmp_path, caplog, capfd):
    files = make_files(tmp_path, quantised=True)
    with caplog.at_level(logging.INFO, "baco_integrations"):
        pair = ModelPair.from_pretrained(*files)
    assert f"Dequantising {files[0]}" in caplog.text
    assert "".join(capfd.readouterr()) == ""  # nothing of transformers' own
    (note, _) = [note for note in pair.notes if "dequantised" in note]
    assert note.startswith("base.gguf is dequantised") and "baco dequantize" in note
    report = ModelPair.check(*files)
    assert report.compatible and {*pair.notes} <= {*report.notes}
    assert report.aligned.parameters == report.bytes["float32"] // 8


def test_progress_is_one_display(files, capfd):
    ModelPair.from_pretrained(*files, progress=True)
    shown = capfd.readouterr().err
    assert "Loading" in shown and "it/s" not in shown


def test_a_window_is_known_without_loading(files):
    assert configuration(str(files[0]), "base", LoadOptions(), False) == {
        "max_position_embeddings": 512
    }
    assert configuration("no/where.gguf", "base", LoadOptions(), False) == {}


class TestHub:
    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        """A cache that has one GGUF file of a repository, in the form of a link to a blob."""
        repo = tmp_path / "cache" / "models--org--model"
        snapshot = repo / "snapshots" / self.COMMIT
        for folder in (snapshot, repo / "refs", repo / "blobs"):
            folder.mkdir(parents=True)
        (repo / "refs" / "main").write_text(self.COMMIT)
        write_gguf(make_pair_folder(tmp_path, "llama")[1], repo / "blobs" / "0123")
        (snapshot / "model-q8.gguf").symlink_to("../../blobs/0123")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        return snapshot

    def test_a_file_of_a_repository(self, cache):
        name = "org/model:model-q8.gguf"
        pair = ModelPair.from_pretrained(name, cache / "model-q8.gguf")
        assert pair.identity["base"] == name
        assert pair.identity["base_revision"] == self.COMMIT
        assert pair.identity["aligned"] == "model-q8.gguf"
        assert configuration(name, "base", LoadOptions(), False) != {}

    def test_a_file_that_the_repository_lacks(self, cache):
        with pytest.raises(ModelNotFoundError, match="org/model:other.gguf has no other.gguf"):
            ModelPair.from_pretrained("org/model:other.gguf", cache / "model-q8.gguf")

    def test_a_repository_of_gguf_files_alone(self, cache):
        with pytest.raises(ModelNotFoundError, match="org/model:file.gguf"):
            ModelPair.from_pretrained("org/model", cache / "model-q8.gguf")


class TestRefusals:
    def refused(self, file: Path, message: str, kind: type[Exception] = PairError, **options):
        for load in (ModelPair.from_pretrained, ModelPair.check):
            with pytest.raises(kind, match=message) as raised:
                load(file, file, **options)
            assert file.name in str(raised.value)

    def test_no_such_file(self, tmp_path):
        self.refused(tmp_path / "none.gguf", "base: there is no file", ModelNotFoundError)

    @pytest.mark.parametrize("content", [b"", b"GGUF", b"GGML" * 20, b"\x80\x04}." * 100])
    def test_another_format(self, tmp_path, content):
        file = tmp_path / "odd.gguf"
        file.write_bytes(content)
        self.refused(file, "odd.gguf is not a GGUF file, or is damaged")

    @pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5, 0.9, 0.999])
    def test_cut_short(self, files, share):
        content = files[0].read_bytes()
        files[0].write_bytes(content[: int(len(content) * share)])
        self.refused(files[0], "is damaged|could not be read from .*base.gguf.*Is it whole")

    def test_an_architecture_that_transformers_does_not_know(self, files):
        files[0].write_bytes(files[0].read_bytes().replace(b"llama", b"lamma"))
        self.refused(files[0], "architecture 'lamma', which transformers does not read.*qwen2")

    def test_an_architecture_that_cannot_be_decoded(self, files):
        files[0].write_bytes(files[0].read_bytes().replace(b"llama", b"mamba"))
        with pytest.raises(PairError, match="recurrent state|could not be read"):
            ModelPair.from_pretrained(files[0], files[0])

    def test_one_part_of_several(self, files, tmp_path):
        parts = {"split.count": 3}
        file = write_gguf(tmp_path / "base", tmp_path / "a-00001-of-00003.gguf", **parts)
        self.refused(file, "one of 3 parts.*llama-gguf-split --merge")

    def test_weights_of_other_shapes(self, files, tmp_path):
        edit_config(tmp_path / "base", intermediate_size=32)
        file = write_gguf(tmp_path / "base", tmp_path / "other.gguf")
        with pytest.raises(PairError, match=r"weights of .*other.gguf are not what .*other.gguf"):
            ModelPair.from_pretrained(file, file)

    def test_sizes_that_no_model_has(self, files, tmp_path):
        edit_config(tmp_path / "base", max_position_embeddings=0)
        file = write_gguf(tmp_path / "base", tmp_path / "odd.gguf")
        self.refused(file, "odd.gguf says max_position_embeddings is 0")

    def test_no_package(self, files, monkeypatch):
        monkeypatch.setattr(hub, "find_spec", lambda name: None)
        self.refused(files[0], r"baco-integrations\[gguf\]", MissingExtraError)

    def test_quantising_anew(self, files):
        with pytest.raises(ParameterError, match="quantization must be left out.*baco dequantize"):
            ModelPair.from_pretrained(*files, quantization="8bit")

    def test_other_engines(self, files):
        with pytest.raises(ParameterError, match="engine must be 'local'.*baco dequantize"):
            ModelPair.from_pretrained(*files, engine="vllm")

    def test_extraction(self, files, tmp_path):
        from baco_integrations.models.lora.extract import extract

        with pytest.raises(PairError, match="safetensors are needed.*baco dequantize"):
            extract(*files, tmp_path / "adapter", rank=2)
