"""The walls of the house: imports point one way, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import baco_integrations
from tests.measure_code import circles, import_graph

PACKAGE = Path(baco_integrations.__file__).parent
# Each part may import itself and what stands before it; `tiny` stands beside the core.
LAYERS = (
    {"core", "tiny"},
    {"policy"},
    {"text"},
    {"models"},
    {"engines"},
    {"decoder"},
    {"api"},
    {"remote"},
    {"adapters", "server"},
    {"evaluation", "langchain", "llama_index"},
    {"cli"},
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
GRAPH = import_graph(PACKAGE)


def rank_of(part: str) -> int:
    return RANK.get(part, RANK["langchain"])  # another adapter


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_point_one_way(module: str) -> None:
    part = module.split(".")[1] if "." in module else ""
    for other in GRAPH[module] if part else ():  # the package itself only names homes
        imported = other.split(".")[1] if "." in other else part
        assert imported == part or rank_of(imported) < rank_of(part), f"{module} imports {other}"


def test_no_modules_import_one_another() -> None:
    assert circles(GRAPH) == []


def modules_after(code: str) -> set[str]:
    code += "; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


HEAVY = {"torch", "transformers", "tokenizers", "accelerate", "langchain_core", "llama_index"}


def test_importing_the_package_is_free() -> None:
    assert not modules_after("import baco_integrations") & (HEAVY | {"numpy", "pydantic"})
    assert not modules_after("from baco_integrations import SamplingParams, BacoError") & HEAVY
    assert "torch" not in modules_after("from baco_integrations import ModelPair")
    evaluation = "from baco_integrations.evaluation import"
    assert not modules_after(f"{evaluation} own_prompts, load_prompts") & (HEAVY | {"numpy"})
    assert not modules_after(f"{evaluation} METHODS, collect, read_records") & HEAVY


def test_importing_the_evaluation_is_free() -> None:
    assert not modules_after("import baco_integrations.evaluation") & (HEAVY | {"numpy"})
    used = "from baco_integrations.evaluation import compare, measure, write_report"
    assert not modules_after(used) & (HEAVY | {"sacrebleu"})


def test_public_names() -> None:
    assert baco_integrations.__all__ == [
        "BacoError",
        "Completion",
        "Decoder",
        "ModelPair",
        "SamplingParams",
        "ScriptedPair",
        "TokenStep",
    ]
    assert all(hasattr(baco_integrations, name) for name in baco_integrations.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Decodr'"):
        baco_integrations.Decodr  # noqa: B018
