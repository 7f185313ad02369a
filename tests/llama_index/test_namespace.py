"""The conventional import, from the wheel as users install it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]

USE = """
import llama_index.core
import llama_index.llms.baco as conventional
from baco_integrations.llama_index import BACoLLM
assert conventional.__file__.startswith({folder!r}), conventional.__file__
assert conventional.BACoLLM is BACoLLM and BACoLLM.__module__.startswith("baco_integrations")
assert BACoLLM(pair="tiny", gamma=0.6).complete("Name a city.", max_tokens=8).text
print(llama_index.core.__file__)
"""


@pytest.mark.slow
def test_conventional_import_from_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(installed)
    # Nothing that other distributions bring may be shadowed.
    assert [n for n in names if n.startswith("llama_index")] == [
        "llama_index/llms/baco/__init__.py"
    ]
    code = USE.format(folder=str(installed))
    environment = {"PYTHONPATH": str(installed), "PATH": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert not run.stdout.startswith(str(installed))
