"""A run's files as others may have left them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from baco_integrations.core.errors import ParameterError
from baco_integrations.evaluation.records import (
    ERRORS,
    GENERATIONS,
    TIMING,
    Journal,
    read_errors,
    read_manifest,
    read_records,
)
from tests.evaluation.synthetic import records

ROW: dict[str, Any] = json.loads(json.dumps(next(iter(records(["aligned"])))))
MANIFEST: dict[str, Any] = {
    "settings": {"methods": {"aligned": [[None, 1.0]]}, "seeds": [0], "n": 5},
    "prompts": [{"id": "q0", "text": "Which city?"}],
    "command": None,
}


def test_what_a_run_wrote_is_read_whole(tmp_path: Path) -> None:
    more = {**ROW, "id": "q1", "note": ["mine"]}
    (tmp_path / GENERATIONS).write_text("".join(json.dumps(row) + "\n" for row in (ROW, more)))
    assert read_records(tmp_path) == [{**row, "seconds": None} for row in (ROW, more)]
    assert read_errors(tmp_path) == []
    (tmp_path / "run.json").write_text(json.dumps(MANIFEST))
    assert read_manifest(tmp_path) == MANIFEST


@pytest.mark.parametrize(
    "line",
    [
        "[]", "null", '"text"', "{", "\ufeff{}", "[" * 100_000, "\x00",
        json.dumps({key: value for key, value in ROW.items() if key != "id"}),
        json.dumps({key: value for key, value in ROW.items() if key != "generations"}),
        json.dumps({**ROW, "generations": "one text"}),
        json.dumps({**ROW, "generations": []}),
        json.dumps({**ROW, "generations": ["a", None]}),
        json.dumps({**ROW, "seed": "0"}),
        json.dumps({**ROW, "temperature": "warm"}),
        json.dumps({**ROW, "base_share": "half"}),
        json.dumps({**ROW, "sources": [[["base"]]]}),
    ],
)  # fmt: skip
def test_a_line_that_no_run_wrote_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / GENERATIONS).write_text(f"{json.dumps(ROW)}\n{line}\n")
    with pytest.raises(ParameterError, match=rf"{GENERATIONS}, line 2, must be JSON as a run"):
        read_records(tmp_path)


def test_the_other_files_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / GENERATIONS).write_text(json.dumps(ROW) + "\n")
    (tmp_path / TIMING).write_text("{}\n")
    with pytest.raises(ParameterError, match=rf"{TIMING}, line 1, .*id: Field required"):
        read_records(tmp_path)
    (tmp_path / ERRORS).write_bytes(b"\xff\n")
    for reading in (lambda: read_errors(tmp_path), lambda: Journal(tmp_path / ERRORS)):
        with pytest.raises(ParameterError, match=rf"{ERRORS}, line 1, must be"):
            reading()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"settings": {}',
        json.dumps({**MANIFEST, "settings": 3}),
        json.dumps({**MANIFEST, "settings": {**MANIFEST["settings"], "methods": ["aligned"]}}),
        json.dumps({**MANIFEST, "prompts": ["Which city?"]}),
        json.dumps({"prompts": []}),
    ],
)
def test_settings_that_no_run_wrote_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ParameterError, match=r"run.json must be JSON as a run writes it"):
        read_manifest(tmp_path)
