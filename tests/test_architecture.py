"""The walls of the house: imports point one way, and importing the package costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import baco_integrations

ROOT = Path(baco_integrations.__file__).parent
# Each part may import itself and what stands before it.
LAYERS = (
    {"core"},
    {"decoding"},
    {"pair"},
    {"streams"},
    {"rendering"},
    {"decoder"},
    {"opening", "breadth", "bench", "fidelity"},
    {"evaluation"},
    {"langchain", "llama_index"},
    {"cli"},
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}


def imported_parts(file: Path) -> Iterator[str]:
    package = ("baco_integrations", *file.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*start, *([node.module] if node.module else [])))
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "baco_integrations" and len(parts) > 1 and parts[1] in RANK:
                yield parts[1]


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    part = file.relative_to(ROOT).parts[0].removesuffix(".py")
    if part == "__init__":
        return  # names homes; nothing is imported before it is used
    for other in imported_parts(file):
        assert other == part or RANK[other] < RANK[part], f"{part} imports {other}"


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
