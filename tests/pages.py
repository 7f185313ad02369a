"""Pages that users read, and how the tests run what stands there."""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

from baco_integrations.tiny import WEIGHTS

ROOT = Path(__file__).parents[1]
MODELS = {
    "org/any-instruct": WEIGHTS / "aligned",
    "org/model-instruct": WEIGHTS / "aligned",
    "org/model": WEIGHTS / "base",
}
"""Models that no hub has, and what the tests take for them."""


def text(page: str) -> str:
    """Return a page as it stands."""
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> list[str]:
    """Return a page's blocks of code."""
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)


def commands(page: str, program: str) -> list[list[str]]:
    """Return the words of a page's console lines that start with a program's name."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [
        shlex.split(with_models(line), comments=True)
        for line in lines
        if line.startswith(f"{program} ")
    ]


def with_models(code: str) -> str:
    """Put models that are there in the place of made-up names."""
    for name, folder in MODELS.items():
        code = re.sub(rf"{name}(?![\w/:-])", str(folder), code)
    return code


@cache
def said(code: str) -> str:
    """Run a block, and return what it prints."""
    with redirect_stdout(StringIO()) as out:
        exec(
            compile(with_models(code), "page", "exec", dont_inherit=True), {"__name__": "__page__"}
        )
    return out.getvalue()
