"""What all tests stand on: one thread per process, no network, no dependence on the machine."""

import os
from pathlib import Path

import pytest

# Before torch is imported, here and in what tests start: threads of two workers on two cores would
# only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

SMOKE = {
    "conformance/test_grammar.py",
    "conformance/test_invariants.py",
    "engines/local/test_cuda_graphs.py",
    "engines/local/test_runner.py",
    "langchain/test_chat_model.py",
    "langchain/test_standard.py",
    "langchain/test_structured.py",
    "llama_index/test_conformance.py",
    "llama_index/test_structured.py",
    "models/lora/test_read.py",
    "models/test_checkpoint.py",
    "models/test_hub.py",
    "models/test_loading.py",
    "models/test_quantization.py",
    "test_cookbook.py",
    "test_families.py",
    "test_quiet.py",
    "test_readme.py",
}
"""Where newer versions of other packages would show first."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the smoke set."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix() in SMOKE:
            item.add_marker("smoke")
