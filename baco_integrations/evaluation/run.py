"""A run: every prompt, by every method, at each of its points, with each seed.

Invariant: the order of the records, and every answer of a pair, depend on the settings alone. So a
run that was interrupted, wherever it was, goes on to the same bytes as one that was not: what is
written stays, a batch that was broken off is answered again, and only what was missing of it is
added.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..core.errors import ParameterError
from ..core.params import SamplingParams
from .baselines import judged
from .judge import Judge
from .methods import Grid, Method, Point, Sweep, find_methods
from .models import Answer, Model, PairModel, as_model
from .prompts import Prompt
from .records import ERRORS, GENERATIONS, TIMING, Journal, Record, key_of, read_object

MANIFEST = "run.json"

Progress = Callable[[int, int, str], None]


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        records: How many records its file holds.
        new: How many of them this call added.
        errors: How many prompts failed, over all points and seeds.
        seconds: How long this call took.
    """

    records: int
    new: int
    errors: int
    seconds: float


class _Batch(NamedTuple):
    """What is asked at once."""

    method: Method
    point: Point
    seed: int
    prompts: Sequence[Prompt]

    def labels(self) -> list[Record]:
        """Return what each record of the batch is one of, as a part of it."""
        knobs = {"knob": self.point.knob, "temperature": self.point.temperature}
        shared = {"method": self.method.name, **knobs, "seed": self.seed}
        return [{"id": prompt.id, **shared} for prompt in self.prompts]


def collect(
    model: Any,
    prompts: Sequence[Prompt],
    out: str | Path,
    *,
    methods: Sequence[str] = (),
    sweep: Sweep | Grid | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    n: int = 10,
    max_tokens: int = 256,
    judge: Any = None,
    sources: bool = False,
    name: str | None = None,
    rows: int | None = None,
    command: str | None = None,
    progress: Progress = lambda done, total, what: None,
) -> Outcome:
    """Let a model answer prompts by every method, or go on with a run that was interrupted.

    Args:
        model: A pair, or what else `as_model` takes.
        prompts: What is asked; ids are unique.
        out: The run's folder; see `records` for its files. What it already holds is kept.
        methods: Names as for `find_methods`; all that suit the model if left out.
        sweep: The points of each method.
        seeds: Every point is taken with each of them.
        n: Answers to a prompt.
        max_tokens: Longest answer of a pair.
        judge: What the method ``judge`` asks (see `Judge`), which is then run too.
        sources: Whether records keep who gave which part of the text.
        name: What records call a model that is no pair.
        rows: How many answers are worked on at once.
        command: What the run was started with, for its report.
        progress: Told before the first batch and after each how many records are done, of how many,
            and the method.

    Raises:
        ParameterError: A setting is not allowed, or the folder holds a run with other settings.
    """
    folder, started = Path(out), time.perf_counter()
    shared: Record = {"n": n, "max_tokens": max_tokens}
    SamplingParams(**shared)  # complains before anything is made
    _require_ids(prompts)
    speaker = as_model(model, name=name, rows=rows)
    chosen = _chosen(methods, judge, pair=isinstance(speaker, PairModel))
    points = {method.name: (sweep or Sweep()).of(method) for method in chosen}
    asked = [asdict(prompt) for prompt in prompts]
    try:
        settings = {
            "model": speaker.identity,
            "prompts": _digest(asked),
            "methods": {name: [point[1:] for point in each] for name, each in points.items()},
            "seeds": list(seeds),
            **shared,
            "judge": None if judge is None else _as_judge(judge).name,
            "sources": sources,
            "rows": speaker.rows,
        }
        _open_folder(folder, settings, {"command": command, "prompts": asked})
        # As many prompts as keep the model busy: it is idle only at a batch's end.
        size = max(1, 4 * speaker.rows // n)
        batches = _batches(chosen, points, seeds, prompts, size)
        return _Writer(folder, speaker, sources).write(list(batches), shared, progress, started)
    finally:
        if speaker is not model:
            speaker.close()


def _chosen(names: Sequence[str], judge: Any, pair: bool) -> list[Method]:
    wanted = [name for name in names if name != "judge"]
    found = find_methods(wanted, pair) if wanted or not names else []
    if judge is not None:
        found.append(Method("judge", ask=judged(_as_judge(judge))))
    elif len(wanted) < len(names):
        remedy = "For example a LangChain chat model."
        raise ParameterError("judge", "given where the method 'judge' is wanted", judge, remedy)
    return found


def _as_judge(judge: Any) -> Judge:
    return judge if isinstance(judge, Judge) else Judge(judge)


def _require_ids(prompts: Sequence[Prompt]) -> None:
    ids = [prompt.id for prompt in prompts]
    if not ids or len(set(ids)) < len(ids):
        twice = sorted({each for each in ids if ids.count(each) > 1})
        allowed = "a non-empty list of prompts with different ids"
        raise ParameterError("prompts", allowed, twice, "Give each an id of its own.")


def _digest(value: Any) -> str:
    plain = json.dumps(value, sort_keys=True, default=str)
    return blake2b(plain.encode(), digest_size=16).hexdigest()


def _open_folder(folder: Path, settings: Record, more: Record) -> None:
    """Write down a new run's settings and more, or see that an old run's are the same."""
    settings = json.loads(json.dumps(settings, default=str))
    file = folder / MANIFEST
    if file.is_file():
        known = read_manifest(folder)["settings"]
        changed = [name for name in settings if settings[name] != known.get(name)]
        if changed:
            allowed = f"a new folder, or one whose run has the same {', '.join(changed)}"
            remedy = "Choose another folder, or the settings in its run.json."
            raise ParameterError("out", allowed, str(folder), remedy)
        return
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "settings": settings,
        "hash": _digest(settings),
        "made_with": versions(),
        "machine": machine(),
        **more,
    }
    part = file.with_suffix(".part")
    part.write_text(json.dumps(manifest, default=str) + "\n", encoding="utf-8")
    os.replace(part, file)


def versions() -> dict[str, str]:
    """Return the versions of what answers depend on."""
    found = {"baco_integrations": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def machine() -> str:
    """Return what this machine is, in a few words."""
    words = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    torch = sys.modules.get("torch")  # what has not been imported was not used
    if torch is not None and torch.cuda.is_available():
        words += f", {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return words


def read_manifest(folder: str | Path) -> Record:
    """Return a run's run.json; empty for records without one.

    Raises:
        ParameterError: It is not what a run writes.
    """
    file = Path(folder) / MANIFEST
    return read_object(file) if file.is_file() else {}


def _batches(
    methods: Sequence[Method],
    points: dict[str, list[Point]],
    seeds: Sequence[int],
    prompts: Sequence[Prompt],
    size: int,
) -> Iterator[_Batch]:
    for method in methods:
        for point in points[method.name]:
            for seed in seeds:
                for start in range(0, len(prompts), size):
                    yield _Batch(method, point, seed, prompts[start : start + size])


class _Writer:
    """Answers batches and writes what is missing of them."""

    def __init__(self, folder: Path, model: Model, sources: bool) -> None:
        self._model, self._sources = model, sources
        self._records, self._timing, self._errors = (
            Journal(folder / name) for name in (GENERATIONS, TIMING, ERRORS)
        )
        self._done = {key_of(row) for row in (*self._records.rows, *self._errors.rows)}
        self._written, self._failed = len(self._records.rows), len(self._errors.rows)

    def write(
        self, batches: list[_Batch], shared: Record, progress: Progress, started: float
    ) -> Outcome:
        """Go through all batches, in their order."""
        before, done = self._written, 0
        total = sum(len(batch.prompts) for batch in batches)
        try:
            for batch in batches[:1]:
                progress(0, total, batch.method.name)
            for batch in batches:
                if any(key_of(key) not in self._done for key in batch.labels()):
                    self._answer(batch, shared)
                done += len(batch.prompts)
                progress(done, total, batch.method.name)
        finally:
            for journal in (self._records, self._timing, self._errors):
                journal.close()
        seconds = time.perf_counter() - started
        return Outcome(self._written, self._written - before, self._failed, seconds)

    def _answer(self, batch: _Batch, shared: Record) -> None:
        method, spent, started = batch.method, self._model.spent(), time.perf_counter()
        results = method.answer(self._model, batch.prompts, batch.point, batch.seed, **shared)
        seconds = time.perf_counter() - started
        forwards = None
        if spent is not None and (now := self._model.spent()) is not None:
            counted = (now[0] - spent[0]) / max(now[1] - spent[1], 1)
            forwards = float(method.forwards or round(counted, 4))
        tokens = sum(each.tokens for got in results if isinstance(got, list) for each in got)
        for prompt, key, got in zip(batch.prompts, batch.labels(), results, strict=True):
            if key_of(key) in self._done:
                continue
            if isinstance(got, Exception):
                self._errors.append({**key, "error": f"{type(got).__name__}: {got}"})
                self._failed += 1
                continue
            record = self._record(prompt, got, key, forwards)
            self._records.append(record)
            self._written += 1
            share = record["tokens"] / max(tokens, 1)
            self._timing.append({**key, "seconds": round(seconds * share, 4)})

    def _record(
        self, prompt: Prompt, answers: list[Answer], key: Record, forwards: float | None
    ) -> Record:
        tokens = sum(answer.tokens for answer in answers)
        base, switches = (
            _total([getattr(a, name) for a in answers]) for name in ("base", "switches")
        )
        record = {
            "id": prompt.id,
            "prompt": prompt.text,
            "model": self._model.name,
            "generations": [answer.text for answer in answers],
            **key,
            "base_share": None if base is None else round(base / max(tokens, 1), 6),
            "switches": None if switches is None else round(100 * switches / max(tokens, 1), 4),
            "tokens": tokens,
            "forwards": forwards,
            "seconds": None,  # in a file of its own: it is never the same twice
        }
        if self._sources and all(answer.runs is not None for answer in answers):
            record["sources"] = [answer.runs for answer in answers]
        return record


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
