"""Render the docstrings of the public API, a page for each import path, and a search over them.

Usage: python tests/reference.py FOLDER
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pdoc

ROOT = "baco_integrations"
PARTS = ("langchain", "llama_index", "remote", "server", "evaluation")
MODULES = (ROOT, *(f"{ROOT}.{part}" for part in PARTS))


class Page(pdoc.doc.Module):
    """A module's public names; of its inner modules none but those that have a page."""

    submodules: Sequence[Page] = ()  # type: ignore[assignment]


def page(name: str) -> Page:
    """Load what a module offers, which pdoc would not do, and make its page."""
    module = importlib.import_module(name)
    for public in module.__all__:
        setattr(module, public, getattr(module, public))
    return Page(module)


def render(folder: Path) -> None:
    """Write the pages into a folder."""
    pages = {name: page(name) for name in MODULES}
    pages[ROOT].submodules = [pages[name] for name in MODULES[1:]]
    pdoc.render.configure(docformat="google", show_source=False)
    files = {
        "index.html": pdoc.render.html_index(pages),
        "search.js": pdoc.render.search_index(pages),
    }
    for name, module in pages.items():
        files[f"{name.replace('.', '/')}.html"] = pdoc.render.html_module(module, pages)
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="pdoc")  # of fields that have no line of source
    render(Path(sys.argv[1]))
