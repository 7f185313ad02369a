"""From records to arrays: every metric of every point of every method on every prompt.

Invariant: the arrays are complete. Prompts that some point or seed lacks, as in an interrupted
run, are left out for all, so every comparison is paired.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BacoError, ParameterError
from .metrics import diversity, valid_distinct
from .quality import Quality
from .similarity import Likeness, Question, Similarity

Floats = NDArray[np.float64]
COSTS = ("base_share", "switches", "tokens", "forwards", "seconds")


class Point(NamedTuple):
    """One setting of a method."""

    method: str
    knob: float | None
    temperature: float


@dataclass(frozen=True)
class Scores:
    """What `measure` found. Points, prompts, metrics and qualities index the arrays.

    Attributes:
        points: Every setting of every method, method by method.
        prompts: Ids of the prompts.
        qualities: Names of the quality metrics; the first one decides what is valid.
        k: Answers per record.
        seeds: The seeds, over which all values are averaged.
        diversity: Raw values, shape (points, prompts, 11), metrics as in `metrics.NAMES`.
        quality: Means over answers, shape (points, prompts, qualities).
        valid: Share of valid answers, shape (points, prompts).
        valid_distinct: Distinct classes among the valid answers, shape (points, prompts).
        identical: Diversity of k equal answers, shape (11,).
        shuffled: Quality of the aligned model's words in random order, shape (qualities,).
        costs: Means over records by name, NaN where none told it, each of shape (points,).
        records: One record for each (point, prompt), of the first seed.
        left_out: How many prompts were incomplete.
    """

    points: tuple[Point, ...]
    prompts: tuple[str, ...]
    qualities: tuple[str, ...]
    k: int
    seeds: tuple[int, ...]
    diversity: Floats
    quality: Floats
    valid: Floats
    valid_distinct: Floats
    identical: Floats
    shuffled: Floats
    costs: dict[str, Floats]
    records: dict[tuple[Point, str], Any]
    left_out: int

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the order of their points."""
        return tuple(dict.fromkeys(point.method for point in self.points))


def measure(
    records: Iterable[Any],
    similarity: Similarity,
    qualities: Mapping[str, Quality],
    *,
    aligned: str = "aligned",
    valid_from: float = 0.5,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Scores:
    """Score records.

    Args:
        records: One for each prompt, method, knob, temperature and seed: mappings or objects with
            ``id, prompt, generations, method, knob, temperature, seed``, and what they cost. All
            have the same number of generations. A later one replaces an equal earlier one.
        similarity: Which answers are alike.
        qualities: How good answers are, by name.
        aligned: Name of the method whose answers, repeated or shuffled, are the lower anchors.
        valid_from: Value of the first quality from which an answer is valid.
        progress: Told how many prompts of how many are done.

    Raises:
        ParameterError: There are no records, no qualities, no prompt that all points answered, or
            no records of the aligned model.
    """
    if not qualities:
        raise ParameterError("qualities", "at least one", {}, "Pass {'task quality': ...}.")
    table = _Table(records)
    if not any(point.method == aligned for point in table.points):
        raise ParameterError(
            "records", f"with the method {aligned!r}", table.methods, "It sets the lower anchors."
        )
    columns: dict[str, list[Any]] = defaultdict(list)
    for done, prompt in enumerate(table.prompts):
        progress(done, len(table.prompts))
        judged = _Prompt(table, prompt, similarity, qualities, aligned, valid_from)
        columns["identical"].append(judged.identical())
        columns["shuffled"].append(judged.shuffled())
        cells = [judged.cell(point) for point in table.points]
        for name, values in zip(_CELL, zip(*cells, strict=True), strict=True):
            columns[name].append(values)
    progress(len(table.prompts), len(table.prompts))
    per_point = {name: np.swapaxes(np.array(columns[name], float), 0, 1) for name in _CELL}
    return Scores(
        tuple(table.points),
        tuple(table.prompts),
        tuple(qualities),
        table.k,
        tuple(table.seeds),
        **per_point,
        identical=np.mean(columns["identical"], 0),
        shuffled=np.mean(columns["shuffled"], 0),
        costs={name: table.cost(name) for name in COSTS},
        records={
            (point, prompt): table.rows[point, prompt, table.seeds[0]]
            for point in table.points
            for prompt in table.prompts
        },
        left_out=table.left_out,
    )


_CELL = ("diversity", "quality", "valid", "valid_distinct")


class _Table:
    """Records by point, prompt and seed, cut down to the prompts that have them all."""

    def __init__(self, records: Iterable[Any]) -> None:
        self.rows: dict[tuple[Point, str, int], Any] = {}
        for record in records:
            point = Point(*(get(record, name) for name in ("method", "knob", "temperature")))
            self.rows[point, get(record, "id"), get(record, "seed")] = record
        if not self.rows:
            raise ParameterError("records", "at least one record", [], "Generate some first.")
        self.methods = list(dict.fromkeys(point.method for point, _, _ in self.rows))
        self.points = sorted(
            {point for point, _, _ in self.rows},
            key=lambda p: (
                self.methods.index(p.method),
                -1.0 if p.knob is None else p.knob,
                p.temperature,
            ),
        )
        self.seeds = sorted({seed for _, _, seed in self.rows})
        asked = dict.fromkeys(prompt for _, prompt, _ in self.rows)
        self.prompts = [
            prompt
            for prompt in asked
            if all((p, prompt, seed) in self.rows for p in self.points for seed in self.seeds)
        ]
        self.left_out = len(asked) - len(self.prompts)
        if not self.prompts:
            raise ParameterError(
                "records",
                "complete for at least one prompt",
                f"{len(self.rows)} records of {len(asked)} prompts and {len(self.points)} points",
                "Finish the run; every method needs the same prompts and seeds at each point.",
            )
        sizes = {len(get(self.rows[key], "generations")) for key in self._complete()}
        if len(sizes) > 1:
            raise ParameterError(
                "records", "of one number of generations", sorted(sizes), "Compare equal numbers."
            )
        self.k = sizes.pop()

    def _complete(self) -> Iterable[tuple[Point, str, int]]:
        return ((p, i, s) for p in self.points for i in self.prompts for s in self.seeds)

    def answers(self, point: Point, prompt: str) -> list[list[str]]:
        """Return the answers of each seed."""
        return [list(get(self.rows[point, prompt, s], "generations")) for s in self.seeds]

    def cost(self, name: str) -> Floats:
        """Return the mean of a cost at each point."""
        told: dict[Point, list[float]] = {point: [] for point in self.points}
        for key in self._complete():
            value = get(self.rows[key], name, None)
            if value is not None:
                told[key[0]].append(value)
        return np.array([np.mean(values) if values else np.nan for values in told.values()])


class _Prompt:
    """One prompt's answers, each judged once."""

    def __init__(
        self,
        table: _Table,
        prompt: str,
        similarity: Similarity,
        qualities: Mapping[str, Quality],
        aligned: str,
        valid_from: float,
    ) -> None:
        self._table, self._prompt, self._similarity = table, prompt, similarity
        self._valid_from = valid_from
        some = table.rows[table.points[0], prompt, table.seeds[0]]
        self._question = Question(prompt, get(some, "prompt"))
        # The anchors come from the aligned model as it is, not from its hottest point.
        point = nearest_point([p for p in table.points if p.method == aligned], 1.0)
        self._aligned = table.answers(point, prompt)[0]
        self._shuffled = [_shuffle(text, f"{prompt}:{n}") for n, text in enumerate(self._aligned)]
        lists = (row for p in table.points for row in table.answers(p, prompt))
        texts = list(dict.fromkeys([*(t for row in lists for t in row), *self._shuffled]))
        scores = [judged(name, judge, self._question, texts) for name, judge in qualities.items()]
        self._quality = dict(zip(texts, np.transpose(scores), strict=True))

    def cell(self, point: Point) -> tuple[Any, ...]:
        """Return a point's values in the order of `_CELL`, averaged over seeds."""
        rows = [self._scores(answers) for answers in self._table.answers(point, self._prompt)]
        return tuple(np.mean(values, 0) for values in zip(*rows, strict=True))

    def identical(self) -> list[float]:
        answers = self._aligned[:1] * len(self._aligned)
        return diversity(answers, *self._likeness(answers))

    def shuffled(self) -> Any:
        return np.mean([self._quality[text] for text in self._shuffled], 0)

    def _likeness(self, answers: Sequence[str]) -> Likeness:
        found: Likeness = measured("similarity", self._similarity, self._question, answers)
        return found

    def _scores(self, answers: Sequence[str]) -> tuple[Any, Any, float, float]:
        classes, vectors = self._likeness(answers)
        quality = np.array([self._quality[answer] for answer in answers])
        valid = quality[:, 0] >= self._valid_from
        return (
            diversity(answers, classes, vectors),
            quality.mean(0),
            float(valid.mean()),
            valid_distinct(classes, valid),
        )


def measured(parameter: str, measure: Any, question: Question, texts: Sequence[str]) -> Any:
    """Return what a similarity or a quality, which anybody may have written, says of answers.

    Raises:
        ParameterError: It fails.
    """
    try:
        return measure(question, texts)
    except BacoError:
        raise
    except Exception as error:  # it may raise anything
        name = getattr(measure, "__name__", type(measure).__name__)
        raise ParameterError(
            parameter,
            "a function that measures the answers to any prompt",
            f"{type(error).__name__}: {error}",
            f"{name} failed at the prompt {question.id!r}. Answers that have been collected are "
            "kept: mend it, and measure again.",
        ) from error


def judged(name: str, judge: Quality, question: Question, texts: Sequence[str]) -> list[float]:
    """Return a score from 0 to 1 for each answer.

    Raises:
        ParameterError: The judge fails, or returns something else.
    """
    parameter = f"qualities[{name!r}]"

    @wraps(judge, ("__name__",), ())
    def numbers(*given: Any) -> list[float]:
        return [float(score) for score in judge(*given)]

    scores: list[float] = measured(parameter, numbers, question, texts)
    wrong = [score for score in scores if not 0 <= score <= 1]
    if wrong or len(scores) != len(texts):
        raise ParameterError(
            parameter,
            "a function that returns a number from 0 to 1 for each answer",
            wrong[0] if wrong else f"{len(scores)} numbers for {len(texts)} answers",
            "RewardQuality brings scores of any range into 0 to 1.",
        )
    return scores


def nearest_point(points: Sequence[Point], temperature: float) -> Point:
    """Return the point whose temperature is nearest; of equally near ones, the first."""
    return min(points, key=lambda point: abs(point.temperature - temperature))


_MISSING = object()


def get(record: Any, name: str, default: Any = _MISSING) -> Any:
    """Read a field of a record, be it a mapping or an object.

    Raises:
        ParameterError: The record lacks the field, and there is no default.
    """
    value = (
        record.get(name, default) if isinstance(record, Mapping) else getattr(record, name, default)
    )
    if value is _MISSING:
        raise ParameterError("records", f"records with {name!r}", record, "Generate them anew.")
    return value


def _shuffle(text: str, seed: str) -> str:
    tokens = text.split()
    Random(seed).shuffle(tokens)
    return " ".join(tokens)
