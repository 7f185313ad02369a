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
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from ..core.errors import ParameterError

GENERATIONS, TIMING, ERRORS = "generations.jsonl", "timing.jsonl", "errors.jsonl"

Record = dict[str, Any]
Key = tuple[str, str, float | None, float, int]


class _Key(TypedDict):
    __pydantic_config__ = ConfigDict(strict=True)  # type: ignore[misc]

    id: str
    method: str
    knob: float | None
    temperature: float
    seed: int


class _Answers(_Key):
    prompt: str
    model: str | None
    generations: Annotated[list[str], Field(min_length=1)]
    base_share: NotRequired[float | None]
    switches: NotRequired[float | None]
    tokens: NotRequired[int | None]
    forwards: NotRequired[float | None]
    sources: NotRequired[list[list[tuple[str, str]] | None] | None]


class _Seconds(_Key):
    seconds: float


class _Settings(TypedDict):
    methods: dict[str, list[Any]]
    seeds: list[int]
    n: int


class _Asked(TypedDict):
    id: str
    text: str
    details: dict[str, Any]


class _Manifest(TypedDict):
    settings: _Settings
    prompts: list[_Asked]
    command: str | None


_HALF = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_KEY: TypeAdapter[Any] = TypeAdapter(_Key)
_ANSWERS: TypeAdapter[Any] = TypeAdapter(_Answers)
_SECONDS: TypeAdapter[Any] = TypeAdapter(_Seconds)
_MANIFEST: TypeAdapter[Any] = TypeAdapter(_Manifest)


def key_of(record: Record) -> Key:
    """Return what a record is one of."""
    names = ("id", "method", "knob", "temperature", "seed")
    return tuple(record[name] for name in names)


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
    records, _ = _intact(file, _ANSWERS)
    timing, _ = _intact(file.parent / TIMING, _SECONDS)
    seconds = {key_of(row): row["seconds"] for row in timing}
    return [{**record, "seconds": seconds.get(key_of(record))} for record in records]


def read_errors(folder: str | Path) -> list[Record]:
    """Read what failed in a run.

    Raises:
        ParameterError: A line is not what a run writes; the message names file and line.
    """
    return _intact(Path(folder) / ERRORS, _KEY)[0]


def read_object(file: Path) -> Record:
    """Read a run's settings and prompts.

    Raises:
        ParameterError: They are not what a run writes.
    """
    return _checked(str(file), file.read_bytes(), _MANIFEST)


class Journal:
    """A file of JSON lines that only grows.

    Args:
        path: Where it is; a torn last line of it is dropped.

    Attributes:
        rows: What it held when it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.rows, length = _intact(path, _KEY)
        self._file = path.open("ab")
        self._file.truncate(length)

    def append(self, row: Record) -> None:
        """Write a row, and wait until the disk has it."""
        line = json.dumps(row, ensure_ascii=False)
        # Half a character, which a model may be asked about, is an escape to JSON.
        self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _intact(path: Path, kind: TypeAdapter[Any]) -> tuple[list[Record], int]:
    """Return the rows of a file up to its last whole line, and how many bytes they take."""
    data = path.read_bytes() if path.is_file() else b""
    length = data.rfind(b"\n") + 1
    lines = enumerate(data[:length].split(b"\n")[:-1], 1)
    return [_checked(f"{path}, line {number},", line, kind) for number, line in lines], length


def _checked(what: str, text: bytes, kind: TypeAdapter[Any]) -> Record:
    """Read an object of JSON that has what its kind names; all else stays as it is."""
    try:
        # Half a character, which `Journal` may have written, is no text to pydantic.
        kind.validate_json(_HALF.sub(rb"\\ufffd", text))
    except ValidationError as error:
        [first, *_] = error.errors()
        told = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        remedy = f"It was changed by something else ({told}): restore it, or start in a new folder."
        raise ParameterError(what, "JSON as a run writes it", text, remedy) from error
    found: Record = json.loads(text)
    return found
