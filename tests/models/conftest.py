"""A pair of folders whose files a test may damage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.families import make_pair_folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return make_pair_folder(tmp_path, "llama", dtype=torch.float32)
