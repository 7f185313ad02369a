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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..core.errors import ParameterError
from ..core.params import DEFAULT_MAX_TOKENS, SamplingParams
from .any_model import as_model
from .baselines import judged
from .judge import Judge
from .methods import Grid, Method, Sweep, find_methods
from .models import Answer, Model, PairModel
from .prompts import Prompt
from .records import (
    ERRORS,
    GENERATIONS,
    MANIFEST,
    TIMING,
    Journal,
    Point,
    Record,
    key_of,
    read_manifest,
)

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


class Batch(NamedTuple):
    """Some prompts, to be asked by one method at one point with one seed."""

    method: Method
    point: Point
    seed: int
    prompts: Sequence[Prompt]

    def keys(self) -> list[Record]:
        """Return, for each prompt, the fields that tell its record from all others."""
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
    max_tokens: int = DEFAULT_MAX_TOKENS,
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
        progress: Called before the first batch and after each, with how many records are done, of
            how many, and the method.

    Raises:
        ParameterError: A setting is not allowed, or the folder holds a run with other settings.
    """
    folder, started = Path(out), time.perf_counter()
    shared: Record = {"n": n, "max_tokens": max_tokens}
    SamplingParams(**shared)  # complains before anything is made
    require_ids(prompts)
    if judge is not None and not isinstance(judge, Judge):
        judge = Judge(judge)
    asked_model = as_model(model, name=name, rows=rows)
    try:
        chosen = choose_methods(methods, judge, pair=isinstance(asked_model, PairModel))
        points = {method.name: (sweep or Sweep()).of(method) for method in chosen}
        asked = [asdict(prompt) for prompt in prompts]
        settings = {
            "model": asked_model.identity,
            "prompts": digest(asked),
            "methods": {name: [point[1:] for point in each] for name, each in points.items()},
            "seeds": list(seeds),
            **shared,
            "judge": judge and judge.name,
            "sources": sources,
            "rows": asked_model.rows,
        }
        open_folder(folder, settings, {"command": command, "prompts": asked})
        # As many prompts as keep the model busy: it is idle only at a batch's end.
        size = max(1, 4 * asked_model.rows // n)
        batches = [
            Batch(method, point, seed, prompts[start : start + size])
            for method in chosen
            for point in points[method.name]
            for seed in seeds
            for start in range(0, len(prompts), size)
        ]
        writer = RunWriter(folder, asked_model, sources)
        counts = writer.write(batches, shared, progress)
    finally:
        if asked_model is not model:
            asked_model.close()
    return Outcome(*counts, seconds=time.perf_counter() - started)


def require_ids(prompts: Sequence[Prompt]) -> None:
    """Raise ParameterError where there are no prompts or two of them share an id."""
    ids = [prompt.id for prompt in prompts]
    if not ids or len(set(ids)) < len(ids):
        twice = sorted({each for each in ids if ids.count(each) > 1})
        allowed = "a non-empty list of prompts with different ids"
        raise ParameterError("prompts", allowed, twice, "Give each an id of its own.")


def choose_methods(names: Sequence[str], judge: Judge | None, pair: bool) -> list[Method]:
    """Return methods by name as `find_methods` does, and the judge's where there is a judge.

    Raises:
        ParameterError: The method ``judge`` is named without a judge.
    """
    others = [name for name in names if name != "judge"]
    found = find_methods(others, pair) if others or not names else []
    if judge is not None:
        found.append(Method("judge", ask=judged(judge)))
    elif len(others) < len(names):
        remedy = "For example a LangChain chat model."
        raise ParameterError("judge", "given where the method 'judge' is wanted", judge, remedy)
    return found


def digest(value: Any) -> str:
    """Return a hash of plain data."""
    plain = json.dumps(value, sort_keys=True, default=str)
    return blake2b(plain.encode(), digest_size=16).hexdigest()


def open_folder(folder: Path, settings: Record, more: Record) -> None:
    """Write down a new run's settings and more, or see that an old run's are the same.

    Raises:
        ParameterError: The folder holds a run with other settings.
    """
    settings = json.loads(json.dumps(settings, default=str))
    if manifest := read_manifest(folder):
        known = manifest["settings"]
        changed = [name for name in settings if settings[name] != known.get(name)]
        if changed:
            allowed = f"a new folder, or one whose run has the same {', '.join(changed)}"
            remedy = "Choose another folder, or the settings in its run.json."
            raise ParameterError("out", allowed, str(folder), remedy)
        return
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "settings": settings,
        "hash": digest(settings),
        "made_with": versions(),
        "machine": machine(),
        **more,
    }
    part = folder / f"{MANIFEST}.part"
    part.write_text(json.dumps(manifest, default=str) + "\n", encoding="utf-8")
    os.replace(part, folder / MANIFEST)


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


class RunWriter:
    """Answers batches and writes what is missing of them.

    Args:
        folder: The run's folder.
        model: Who answers.
        sources: Whether records keep who gave which part of the text.
    """

    def __init__(self, folder: Path, model: Model, sources: bool) -> None:
        self.model, self.sources = model, sources
        self.records, self.timing, self.errors = (
            Journal(folder / name) for name in (GENERATIONS, TIMING, ERRORS)
        )
        self.done = {key_of(row) for row in (*self.records.rows, *self.errors.rows)}

    def write(
        self, batches: Sequence[Batch], shared: Record, progress: Progress
    ) -> tuple[int, int, int]:
        """Go through all batches; return how many records there are, are new, and have failed."""
        done, total = 0, sum(len(batch.prompts) for batch in batches)
        try:
            for batch in batches[:1]:
                progress(0, total, batch.method.name)
            for batch in batches:
                if any(key_of(key) not in self.done for key in batch.keys()):  # noqa: SIM118
                    self.answer(batch, shared)
                done += len(batch.prompts)
                progress(done, total, batch.method.name)
        finally:
            for journal in (self.records, self.timing, self.errors):
                journal.close()
        new, failed = self.records.added, len(self.errors.rows) + self.errors.added
        return len(self.records.rows) + new, new, failed

    def answer(self, batch: Batch, shared: Record) -> None:
        """Answer a batch, and append those of its records that the files do not have yet."""
        method, model = batch.method, self.model
        before, started = model.spent(), time.perf_counter()
        results = method.answer(model, batch.prompts, batch.point, batch.seed, **shared)
        seconds, after, forwards = time.perf_counter() - started, model.spent(), None
        if before is not None and after is not None:
            counted = (after[0] - before[0]) / max(after[1] - before[1], 1)
            forwards = float(method.forwards or round(counted, 4))
        tokens = sum(each.tokens for got in results if isinstance(got, list) for each in got)
        for prompt, key, got in zip(batch.prompts, batch.keys(), results, strict=True):
            if key_of(key) in self.done:
                continue
            if isinstance(got, Exception):
                self.errors.append({**key, "error": f"{type(got).__name__}: {got}"})
                continue
            record = self.record(prompt, got, key, forwards)
            self.records.append(record)
            share = record["tokens"] / max(tokens, 1)
            self.timing.append({**key, "seconds": round(seconds * share, 4)})

    def record(
        self, prompt: Prompt, answers: list[Answer], key: Record, forwards: float | None
    ) -> Record:
        """Return the record of a prompt's answers."""
        tokens = sum(answer.tokens for answer in answers)
        base = [answer.base for answer in answers if answer.base is not None]
        switches = [answer.switches for answer in answers if answer.switches is not None]

        def rate(counts: list[int], scale: int, places: int) -> float | None:
            known = len(counts) == len(answers)
            return round(scale * sum(counts) / max(tokens, 1), places) if known else None

        record = {
            "id": prompt.id,
            "prompt": prompt.text,
            "model": self.model.name,
            "generations": [answer.text for answer in answers],
            **key,
            "base_share": rate(base, 1, 6),
            "switches": rate(switches, 100, 4),
            "tokens": tokens,
            "forwards": forwards,
            "seconds": None,  # in a file of its own: it is never the same twice
        }
        if self.sources and all(answer.runs is not None for answer in answers):
            record["sources"] = [answer.runs for answer in answers]
        return record
