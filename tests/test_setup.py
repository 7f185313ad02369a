"""What an installation brings, and what the tests' own installation is held to."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.pages import blocks

ROOT = Path(__file__).parents[1]


def brought(name: str, *extras: str, deep: bool = False) -> set[str]:
    """Return what a package requires with some extras; what that requires in turn if `deep`."""
    found: set[tuple[str, str]] = set()
    left = [(canonicalize_name(name), extra) for extra in ("", *extras)]
    while left:
        package, extra = left.pop()
        if (package, extra) in found:
            continue
        found.add((package, extra))
        if not (deep or package == canonicalize_name(name)):
            continue
        try:
            wanted = [Requirement(line) for line in requires(package) or ()]
        except PackageNotFoundError:  # for another Python or machine
            continue
        for each in wanted:
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                left += [(canonicalize_name(each.name), more) for more in ("", *each.extras)]
    return {package for package, _ in found} - {canonicalize_name(name)}


def test_all_that_the_tests_run_on_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert brought("baco-integrations", "test", deep=True) <= pinned


def test_extras_bring_what_readme_and_cookbook_import() -> None:
    pages = "README.md", "cookbook/good_to_know.md", "cookbook/real_numbers.md"
    sources = [code for page in pages for code in blocks(page, "python")]
    sources += [file.read_text() for file in (ROOT / "cookbook").glob("*.py")]
    modules = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).partition(".")[0])
    known = brought("baco-integrations", "notebooks", "adapters") | {
        "baco-integrations",
        "llama-index-core",
    }
    homes = packages_distributions()
    for module in modules - {*sys.stdlib_module_names, "baco_integrations"}:
        assert {canonicalize_name(home) for home in homes[module]} & known, module
