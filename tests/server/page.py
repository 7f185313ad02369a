"""The blocks of cookbook/serve.md."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "cookbook" / "serve.md"
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    """Return the page's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def block(words: str) -> str:
    """Return the one block to run that holds some words."""
    [found] = [code for code in [*blocks("bash"), *blocks("python")] if words in code]
    return found
