"""Measures the package's own code: sizes, shares, import order, and the way to the first forward.

Run from the repository's root, or with the root of another checkout:

    python tests/measure_code.py [ROOT]

Lines are all lines of ``.py`` files, blank ones and docstrings included. A function's body is its
lines without signature and docstring. The way in is each function of the package that stands on the
call stack when a prompt is tokenised, when the engine gets the request, or when the first forward
begins, in any thread, from a `ChatBACo.invoke` on the embedded pair (which is open already).
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef

WAY_IN = """
import json, sys, threading
from baco_integrations.langchain import ChatBACo

llm = ChatBACo(pair="tiny", gamma=0.6, seed=1, max_tokens=4)
llm.invoke("Suggest a gift.")
ran, way, done = {}, {}, []

def place(code):
    if "/baco_integrations/" in code.co_filename and code.co_name[0] != "<":
        file = code.co_filename.split("/baco_integrations/")[-1]
        return f"{file}:{getattr(code, 'co_qualname', code.co_name)}"

def note_stack(frame):
    stack = []
    while frame:
        stack.append(place(frame.f_code))
        frame = frame.f_back
    way.update(dict.fromkeys(filter(None, reversed(stack))))

def watch(frame, event, argument):
    if done:
        return
    code, name = frame.f_code, place(frame.f_code)
    if event == "call" and name:
        ran[name] = True
        if name.endswith((":Engine.submit", ":Worker.submit")):
            note_stack(frame)
    elif event == "call" and code.co_name == "forward" and "modeling_" in code.co_filename:
        note_stack(frame)
        done.append(True)
    elif event == "c_call" and argument.__name__ in ("encode", "encode_batch"):
        if type(argument.__self__).__module__ == "tokenizers":
            note_stack(frame)

if hasattr(threading, "setprofile_all_threads"):
    threading.setprofile_all_threads(watch)
else:
    llm.decoder.close(llm)
    threading.setprofile(watch)
    llm.decoder
    ran.clear()
    way.clear()
sys.setprofile(watch)
llm.invoke("Suggest a hobby.")
sys.setprofile(None)
print(json.dumps({"ran": list(ran), "way": list(way)}))
"""


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield all functions and methods of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Return the number of lines of a function's body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def is_private(function: Function) -> bool:
    """Tell whether a name is for its own file or class; special methods are not."""
    return function.name.startswith("_") and not function.name.endswith("__")


def imported_modules(file: Path, package: Path, known: set[str]) -> Iterator[str]:
    """Yield the package's modules that a file imports, wherever in it, annotations aside."""
    parts = ("baco_integrations", *file.relative_to(package).parts[:-1])
    tree = ast.parse(file.read_text())
    aside = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.unparse(test.test)
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if id(node) in aside:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = parts[: len(parts) - node.level + 1] if node.level else ()
            module = ".".join((*start, *([node.module] if node.module else [])))
            found = [f"{module}.{alias.name}" for alias in node.names]
            names = [name if name in known else module for name in found]
        yield from (name for name in names if name in known)


def import_graph(package: Path) -> dict[str, set[str]]:
    """Return, for each module of the package, the modules that it imports."""
    files = {
        ".".join(("baco_integrations", *file.relative_to(package).with_suffix("").parts)): file
        for file in sorted(package.rglob("*.py"))
    }
    files = {name.removesuffix(".__init__"): file for name, file in files.items()}
    return {
        name: set(imported_modules(file, package, set(files))) - {name}
        for name, file in files.items()
    }


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import one another (strongly connected components)."""

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        todo = [start]
        while todo:
            for name in graph[todo.pop()] - found:
                found.add(name)
                todo.append(name)
        return found

    reach = {name: reachable(name) for name in graph}
    groups = {frozenset(o for o in reach[name] if name in reach[o]) for name in graph}
    return [sorted(group) for group in groups if len(group) > 1]


def wheel_lines(root: Path) -> int:
    """Build the wheel, and count the lines of Python in it."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        subprocess.run(build, cwd=root, check=True, capture_output=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".py")]
            return sum(len(archive.read(name).splitlines()) for name in names)


def way_in(root: Path) -> dict[str, list[str]]:
    """Return the functions on the way in, and all that ran meanwhile."""
    run = [sys.executable, "-c", WAY_IN]
    environment = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    told = subprocess.run(run, env=environment, check=True, capture_output=True, text=True)
    names: dict[str, list[str]] = json.loads(told.stdout.splitlines()[-1])
    return names


def measure(root: Path) -> dict[str, Any]:
    """Return every figure by its name."""
    package = root / "baco_integrations"
    files = {file: file.read_text() for file in sorted(package.rglob("*.py"))}
    trees = {file: ast.parse(text) for file, text in files.items()}
    bodies = [body_lines(each) for tree in trees.values() for each in functions(tree)]
    private = [is_private(each) for tree in trees.values() for each in functions(tree)]
    lines = {file: len(text.splitlines()) for file, text in files.items()}
    entered = way_in(root)
    longest = max(lines, key=lambda file: lines[file])
    return {
        "files": len(files),
        "lines": sum(lines.values()),
        "lines of Python in the wheel": wheel_lines(root),
        "median function body": median(bodies),
        "p90 function body": quantiles(bodies, n=10)[-1],
        "longest function body": max(bodies),
        "functions": len(bodies),
        "share of private functions": round(sum(private) / len(private), 3),
        "longest file": f"{lines[longest]} ({longest.relative_to(package)})",
        "import circles": len(circles(import_graph(package))),
        "functions on the way in": len(entered["way"]),
        "functions that ran meanwhile": len(entered["ran"]),
    }


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    for name, value in measure(where).items():
        print(f"{name:32} {value}")
