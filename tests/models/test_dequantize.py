"""A GGUF file saved as a folder: the same model, and nothing half-made."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from baco_integrations.core.errors import ParameterError
from baco_integrations.models.dequantize import dequantize
from baco_integrations.models.pair import ModelPair
from tests.families import make_pair_folder

pytest.importorskip("gguf")
from tests.gguf_files import write_gguf


@pytest.fixture
def file(tmp_path):
    _, folder = make_pair_folder(tmp_path, "llama", dtype=torch.float32)
    ends = {"tokenizer.ggml.eot_token_id": 7}
    return write_gguf(folder, tmp_path / "model.gguf", quantised=True, **ends)


def test_the_folder_is_the_file(file, tmp_path):
    folder = dequantize(file, str(tmp_path / "saved"))
    of_file, of_folder = (ModelPair.from_pretrained(each, each) for each in (file, folder))
    for name, weight in of_file.base.state_dict().items():
        assert torch.equal(weight, of_folder.base.state_dict()[name])
    assert of_file.aligned_eos == of_folder.aligned_eos
    assert of_file.aligned_tokenizer.get_vocab() == of_folder.aligned_tokenizer.get_vocab()
    message = "It wasn't 12 <|im_end|> miles."
    assert of_file.render_aligned(message) == of_folder.render_aligned(message)
    assert of_file.encode(message) == of_folder.encode(message)
    assert not [note for note in of_folder.notes if "dequantised" in note]


def test_in_another_format(file, tmp_path):
    folder = dequantize(file, tmp_path / "saved", dtype="bfloat16")
    assert ModelPair.from_pretrained(folder, folder).base.dtype == torch.bfloat16


def test_a_folder_that_exists_is_left_alone(file, tmp_path):
    with pytest.raises(ParameterError, match="folder must be a new folder"):
        dequantize(file, tmp_path / "base")


def test_what_is_no_gguf_file(tmp_path, file):
    with pytest.raises(ParameterError, match="file must be a GGUF file"):
        dequantize(tmp_path / "base", tmp_path / "saved")


def test_an_interrupted_run_leaves_no_folder(file, tmp_path, monkeypatch):
    save = PreTrainedModel.save_pretrained

    def stop(model, folder):
        save(model, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PreTrainedModel, "save_pretrained", stop)
        dequantize(file, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    assert dequantize(file, tmp_path / "saved").is_dir()
    assert not (tmp_path / "saved.partial").exists()
