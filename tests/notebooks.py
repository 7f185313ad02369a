"""Runs the cookbook's notebooks, ``.py`` files in the percent format, and saves what comes out.

python -m tests.notebooks [NAME ...]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

COOKBOOK = Path(__file__).parents[1] / "cookbook"
SOURCES = sorted(COOKBOOK.glob("*.py"))
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm, where there are no widgets
    "TQDM_DISABLE": "1",
}


def execute(source: Path) -> NotebookNode:
    """Run a notebook, and return it with its output and without anything that changes by itself.

    Raises:
        CellExecutionError: A cell fails.
    """
    notebook = jupytext.read(source)
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"}
    )
    with tempfile.TemporaryDirectory() as scratch:
        kernel = Config(KernelManager={"transport": "ipc", "ip": f"{scratch}/kernel"})
        patience = {"timeout": 280, "startup_timeout": 280}  # below pytest's own
        client = NotebookClient(notebook, config=kernel, coalesce_streams=True, **patience)
        client.execute(cwd=str(COOKBOOK), env={**os.environ, **QUIET, "IPYTHONDIR": scratch})
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    return notebook


def main() -> None:
    """Write the notebooks that are named, or all."""
    names = sys.argv[1:] or [source.stem for source in SOURCES]
    for name in names:
        notebook = execute(COOKBOOK / f"{name}.py")
        nbformat.write(notebook, COOKBOOK / f"{name}.ipynb")
        print(name)


if __name__ == "__main__":
    main()
