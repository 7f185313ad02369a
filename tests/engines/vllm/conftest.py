"""Tests inside vLLM; where it is not installed they are skipped. CONTRIBUTING has the command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engines.vllm.pairs import make_folders

HERE = Path(__file__).parent
# One GiB of caches is plenty for tiny models. On CPUs vLLM has workers in this process only so.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let vLLM warn: its warnings are not ours to mend."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a pair."""
    return make_folders(tmp_path_factory.mktemp("llama"), "llama")
