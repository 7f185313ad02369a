"""`baco dequantize`, and GGUF files on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.commands import baco
from tests.families import make_pair_folder

pytest.importorskip("gguf")
from tests.gguf_files import write_gguf


def test_a_file_becomes_a_folder_that_makes_a_pair_with_it(tmp_path: Path) -> None:
    _, aligned = make_pair_folder(tmp_path, "llama", dtype=torch.float32)
    file, folder = str(write_gguf(aligned, tmp_path / "model.gguf")), str(tmp_path / "saved")
    assert folder in baco("dequantize", file, folder, "--dtype", "bfloat16").stdout
    shown = " ".join(baco("check", file, folder).stdout.split())
    assert "model.gguf is dequantised" in shown and "The two make a pair" in shown
    assert "FOLDER must be a new folder" in baco("dequantize", file, folder, code=2).output
