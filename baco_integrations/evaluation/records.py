"""A run's files: one record per prompt, method, point and seed, as lines of JSON.

Invariant: what has been appended is on the disk; a line that was torn by a crash is dropped, and
nothing before it is ever touched. ``generations.jsonl`` holds nothing that changes from run to run;
the times are in ``timing.jsonl``, what failed in ``errors.jsonl``. What failed is not tried again
until that file is deleted.

A record has the keys ``id``, ``prompt``, ``model``, ``generations`` (NoveltyBench's, whose scorers
take the records of one point at a time); ``method``, ``knob``, ``temperature``, ``seed``;
``base_share`` and ``switches`` (per 100 tokens), over all generations; ``tokens``, of all of them
together; ``forwards``, per token; ``seconds``; and, if asked for, ``sources``: per generation its
text in runs of ``[source, text]``.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from ..core.errors import ParameterError

MANIFEST = "run.json"
GENERATIONS, TIMING, ERRORS = "generations.jsonl", "timing.jsonl", "errors.jsonl"

Record = dict[str, Any]
Key = tuple[str, str, float | None, float, int]


class Point(NamedTuple):
    """Where on a method's curve answers are taken."""

    method: str
    knob: float | None
    temperature: float


class Keyed(BaseModel, strict=True):
    """What every line of a run's files holds."""

    id: str
    method: str
    knob: float | None
    temperature: float
    seed: int


class Answered(Keyed):
    """A line of generations.jsonl."""

    prompt: str
    model: str | None
    generations: list[str] = Field(min_length=1)
    base_share: float | None = None
    switches: float | None = None
    tokens: int | None = None
    forwards: float | None = None
    sources: list[list[tuple[str, str]] | None] | None = None


class Timed(Keyed):
    """A line of timing.jsonl."""

    seconds: float


class RunSettings(BaseModel):
    """What a report needs of a run's settings."""

    methods: dict[str, list[Any]]
    seeds: list[int]
    n: int


class Asked(BaseModel):
    """A prompt of a run."""

    id: str
    text: str


class Manifest(BaseModel):
    """A run's run.json."""

    settings: RunSettings
    prompts: list[Asked]
    command: str | None


LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def key_of(record: Record) -> Key:
    """Return the fields that tell a record from all others."""
    return tuple(record[name] for name in ("id", "method", "knob", "temperature", "seed"))


def read_records(path: str | Path) -> list[Record]:
    """Read a run's records, with their seconds.

    Args:
        path: A run's folder, or one file of records.

    Raises:
        ParameterError: There are none, or a line is not JSON; the message names file and line.
    """
    path = Path(path)
    file = path / GENERATIONS if path.is_dir() else path
    if not file.is_file():
        remedy = "`baco eval run --out FOLDER` makes one."
        raise ParameterError("run", "a run's folder or file", str(path), remedy)
    records, _ = read_lines(file, Answered)
    timing, _ = read_lines(file.parent / TIMING, Timed)
    seconds = {key_of(row): row["seconds"] for row in timing}
    return [{**record, "seconds": seconds.get(key_of(record))} for record in records]


def read_errors(folder: str | Path) -> list[Record]:
    """Read what failed in a run.

    Raises:
        ParameterError: A line is not what a run writes; the message names file and line.
    """
    return read_lines(Path(folder) / ERRORS, Keyed)[0]


def read_manifest(folder: str | Path) -> Record:
    """Read a run's settings and prompts; empty for records without a run.json.

    Raises:
        ParameterError: They are not what a run writes.
    """
    file = Path(folder) / MANIFEST
    return checked(str(file), file.read_bytes(), Manifest) if file.is_file() else {}


class Journal:
    """A file of JSON lines that only grows.

    Args:
        path: Where it is; a torn last line of it is dropped.

    Attributes:
        rows: What it held when it was opened.
        added: How many rows have been appended since.
    """

    def __init__(self, path: Path) -> None:
        self.rows, length = read_lines(path, Keyed)
        self.added = 0
        self._file = path.open("ab")
        self._file.truncate(length)

    def append(self, row: Record) -> None:
        """Write a row, and wait until the disk has it."""
        line = json.dumps(row, ensure_ascii=False)
        # Half a character, which a model may be asked about, is an escape to JSON.
        self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.added += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lines(path: Path, kind: type[BaseModel]) -> tuple[list[Record], int]:
    """Return the rows of a file up to its last whole line, and how many bytes they take.

    Raises:
        ParameterError: A line is not what `kind` says; the message names file and line.
    """
    data = path.read_bytes() if path.is_file() else b""
    length = data.rfind(b"\n") + 1
    lines = enumerate(data[:length].split(b"\n")[:-1], 1)
    return [checked(f"{path}, line {number},", line, kind) for number, line in lines], length


def checked(what: str, text: bytes, kind: type[BaseModel]) -> Record:
    """Read an object of JSON that has what its kind names; all else stays as it is.

    Raises:
        ParameterError: It has not; `what` is what the message calls it.
    """
    try:
        # Half a character, which `Journal` may have written, is no text to pydantic.
        kind.model_validate_json(LONE_SURROGATE.sub(rb"\\ufffd", text))
    except ValidationError as error:
        [first, *_] = error.errors()
        fault = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        remedy = (
            f"It was changed by something else ({fault}): restore it, or start in a new folder."
        )
        raise ParameterError(what, "JSON as a run writes it", text, remedy) from error
    found: Record = json.loads(text)
    return found
