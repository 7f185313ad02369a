"""The reference that CONTRIBUTING says how to build has every public name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
[COMMAND] = re.findall(
    r"^\.venv/bin/python (tests/reference\.py) (\w+)",
    (ROOT / "CONTRIBUTING.md").read_text(),
    re.MULTILINE,
)


def parts() -> list[str]:
    """The modules below the package that users import from: those that say what they offer."""
    files = (ROOT / "baco_integrations").glob("*/__init__.py")
    offering = [file.parent.name for file in files if "\n__all__ = " in file.read_text()]
    return [f"baco_integrations.{name}" for name in offering if name != "decoder"]


@pytest.mark.slow
def test_it_has_every_public_name(tmp_path: Path) -> None:
    script, folder = COMMAND
    assert f"{folder}/" in (ROOT / ".gitignore").read_text().splitlines()
    assert shlex.join(COMMAND) in (ROOT / ".ci" / "run").read_text()
    subprocess.run([sys.executable, script, str(tmp_path)], cwd=ROOT, check=True)
    start = (tmp_path / "baco_integrations.html").read_text()
    for name in ("baco_integrations", *parts()):
        file = f"{name.replace('.', '/')}.html"
        page = (tmp_path / file).read_text()
        assert name == "baco_integrations" or f'href="{file}"' in start
        module = import_module(name)
        for public in module.__all__:
            section = page.partition(f'<section id="{public}">')[2].partition("</section>")[0]
            assert section, f"{name}.{public}"
            value = getattr(module, public)
            if getattr(value, "__name__", None) == public:  # no alias, and no constant
                assert 'class="docstring"' in section, f"{name}.{public}"
