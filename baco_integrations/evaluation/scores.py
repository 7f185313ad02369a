"""From records to arrays: every metric of every point of every method on every prompt.

Invariant: the arrays are complete. Prompts that some point or seed lacks, as in an interrupted
run, are left out for all, so every comparison is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BacoError, ParameterError
from .metrics import diversity, valid_distinct
from .quality import Quality
from .records import Point, Record
from .similarity import AnswerSimilarity, Question

Floats = NDArray[np.float64]
COSTS = ("base_share", "switches", "tokens", "forwards", "seconds")
REQUIRED = ("id", "prompt", "generations", "method", "knob", "temperature", "seed")


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
        shuffled: Quality of the aligned model's words in random order, or the qualities' own
            floors, shape (qualities,).
        costs: Means over records by name, NaN where none says it, each of shape (points,).
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
    records: dict[tuple[Point, str], Record]
    left_out: int

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the order of their points."""
        return tuple(dict.fromkeys(point.method for point in self.points))


def measure(
    records: Iterable[Any],
    similarity: AnswerSimilarity,
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
        progress: Called with how many prompts are done, and of how many.

    Raises:
        ParameterError: There are no records, no qualities, no prompt that all points answered, or
            no records of the aligned model.
    """
    if not qualities:
        raise ParameterError("qualities", "at least one", {}, "Pass {'task quality': ...}.")
    table = RecordTable(records)
    if aligned not in table.methods:
        raise ParameterError(
            "records", f"with the method {aligned!r}", table.methods, "It sets the lower anchors."
        )
    found = []
    for done, prompt in enumerate(table.prompts):
        progress(done, len(table.prompts))
        found.append(score_prompt(table, prompt, similarity, qualities, aligned, valid_from))
    progress(len(table.prompts), len(table.prompts))
    return Scores(
        tuple(table.points),
        tuple(table.prompts),
        tuple(qualities),
        table.k,
        tuple(table.seeds),
        np.stack([each.diversity for each in found], 1),
        np.stack([each.quality for each in found], 1),
        np.stack([each.valid for each in found], 1),
        np.stack([each.valid_distinct for each in found], 1),
        np.mean([each.identical for each in found], 0),
        np.mean([each.shuffled for each in found], 0),
        costs={name: table.mean_cost(name) for name in COSTS},
        records={
            (point, prompt): table.rows[point, prompt, table.seeds[0]]
            for point, prompt in product(table.points, table.prompts)
        },
        left_out=table.left_out,
    )


class RecordTable:
    """Records by point, prompt and seed, cut down to the prompts that have them all.

    Attributes:
        rows: The records.
        methods: The methods, in the order in which they first come.
        points: The points, by method, knob and temperature.
        seeds: The seeds, in ascending order.
        prompts: Ids of the prompts that are complete.
        left_out: How many prompts are not.
        k: Generations per record.

    Raises:
        ParameterError: There are no records, no prompt is complete, or their sizes differ.
    """

    def __init__(self, records: Iterable[Any]) -> None:
        self.rows: dict[tuple[Point, str, int], Record] = {}
        for record in map(as_mapping, records):
            point = Point(record["method"], record["knob"], record["temperature"])
            self.rows[point, record["id"], record["seed"]] = record
        if not self.rows:
            raise ParameterError("records", "at least one record", [], "Generate some first.")
        points, prompts, seeds = (dict.fromkeys(key) for key in zip(*self.rows, strict=True))
        self.methods = list(dict.fromkeys(point.method for point in points))
        self.points = sorted(
            points,
            key=lambda point: (
                self.methods.index(point.method),
                -1.0 if point.knob is None else point.knob,
                point.temperature,
            ),
        )
        self.seeds = sorted(seeds)
        self.prompts = [
            prompt
            for prompt in prompts
            if all((p, prompt, s) in self.rows for p, s in product(self.points, self.seeds))
        ]
        self.left_out = len(prompts) - len(self.prompts)
        if not self.prompts:
            raise ParameterError(
                "records",
                "complete for at least one prompt",
                f"{len(self.rows)} records of {len(prompts)} prompts and {len(points)} points",
                "Finish the run; every method needs the same prompts and seeds at each point.",
            )
        complete = product(self.points, self.prompts, self.seeds)
        sizes = {len(self.rows[key]["generations"]) for key in complete}
        if len(sizes) > 1:
            raise ParameterError(
                "records", "of one number of generations", sorted(sizes), "Compare equal numbers."
            )
        self.k = sizes.pop()

    def answers(self, point: Point, prompt: str) -> list[list[str]]:
        """Return the answers of each seed."""
        return [list(self.rows[point, prompt, seed]["generations"]) for seed in self.seeds]

    def mean_cost(self, name: str) -> Floats:
        """Return the mean of a cost at each point, shape (points,); NaN where no record says it."""
        means = []
        for point in self.points:
            rows = (self.rows[point, p, s] for p, s in product(self.prompts, self.seeds))
            values = [value for row in rows if (value := row.get(name)) is not None]
            means.append(np.mean(values) if values else np.nan)
        return np.array(means)


def as_mapping(record: Any) -> Record:
    """Return a record, be it a mapping or an object, as a mapping.

    Raises:
        ParameterError: It lacks a field of `REQUIRED`.
    """
    if not isinstance(record, Mapping):
        names = (*REQUIRED, *COSTS, "model", "sources")
        record = {name: getattr(record, name) for name in names if hasattr(record, name)}
    for name in REQUIRED:
        if name not in record:
            raise ParameterError("records", f"records with {name!r}", record, "Generate them anew.")
    return dict(record)


class PromptScores(NamedTuple):
    """One prompt's part of `Scores`: four arrays over points, and the two lower anchors."""

    diversity: Floats
    quality: Floats
    valid: Floats
    valid_distinct: Floats
    identical: Floats
    shuffled: Floats


def score_prompt(
    table: RecordTable,
    prompt: str,
    similarity: AnswerSimilarity,
    qualities: Mapping[str, Quality],
    aligned: str,
    valid_from: float,
) -> PromptScores:
    """Score every point's answers to one prompt; each different answer is judged once."""
    first = table.rows[table.points[0], prompt, table.seeds[0]]
    question = Question(prompt, first["prompt"])
    # The anchors come from the aligned model as it is, not from its hottest point.
    usual = table.answers(nearest_point(table.points, aligned, 1.0), prompt)[0]
    shuffled = [shuffle_words(text, f"{prompt}:{place}") for place, text in enumerate(usual)]
    answers = [table.answers(point, prompt) for point in table.points]
    every = (text for of_point in answers for of_seed in of_point for text in of_seed)
    texts = list(dict.fromkeys([*every, *shuffled]))
    scores = [checked_scores(name, judge, question, texts) for name, judge in qualities.items()]
    quality = dict(zip(texts, np.transpose(scores), strict=True))

    def score(texts: list[str]) -> tuple[Any, ...]:
        classes, vectors = attempt("similarity", similarity, question, texts)
        values = np.array([quality[text] for text in texts])
        valid = values[:, 0] >= valid_from
        found = valid_distinct(classes, valid)
        return diversity(texts, classes, vectors), values.mean(0), float(valid.mean()), found

    cells = [
        [np.mean(values, 0) for values in zip(*map(score, of_point), strict=True)]
        for of_point in answers
    ]
    by_metric = [np.array(column, float) for column in zip(*cells, strict=True)]
    same = usual[:1] * len(usual)
    identical = diversity(same, *attempt("similarity", similarity, question, same))
    of_shuffled = np.mean([quality[text] for text in shuffled], 0)
    for place, judge in enumerate(qualities.values()):
        if (floor := getattr(judge, "floor", None)) is not None:
            of_shuffled[place] = floor
    return PromptScores._make([*by_metric, np.array(identical), of_shuffled])


def attempt(
    parameter: str,
    measure: Any,
    question: Question,
    texts: Sequence[str],
    read: Callable[[Any], Any] = lambda found: found,
) -> Any:
    """Call a similarity or a quality; what it raises becomes a `ParameterError`.

    Args:
        parameter: What errors call it.
        measure: The similarity or quality.
        question: What was asked.
        texts: The answers.
        read: Turns what it returns into what is expected.

    Raises:
        ParameterError: It fails, or returns what cannot be read.
    """
    try:
        return read(measure(question, texts))
    except BacoError:
        raise
    except Exception as error:  # it may raise anything
        raise ParameterError(
            parameter,
            "a function that measures the answers to any prompt",
            f"{type(error).__name__}: {error}",
            f"{name_of(measure)} failed at the prompt {question.id!r}. Answers that have been "
            "collected are kept: mend it, and measure again.",
        ) from error


def name_of(measure: Any) -> str:
    """Return the name of a function, or of an object's class."""
    return str(getattr(measure, "__name__", type(measure).__name__))


def checked_scores(
    name: str, judge: Quality, question: Question, texts: Sequence[str]
) -> list[float]:
    """Return a score from 0 to 1 for each answer.

    Raises:
        ParameterError: The judge fails, or returns something else.
    """
    parameter = f"qualities[{name!r}]"
    scores: list[float] = attempt(
        parameter, judge, question, texts, lambda found: [float(score) for score in found]
    )
    wrong = [score for score in scores if not 0 <= score <= 1]
    if wrong or len(scores) != len(texts):
        raise ParameterError(
            parameter,
            "a function that returns a number from 0 to 1 for each answer",
            wrong[0] if wrong else f"{len(scores)} numbers for {len(texts)} answers",
            "RewardQuality brings scores of any range into 0 to 1.",
        )
    return scores


def nearest_point(points: Sequence[Point], method: str, temperature: float) -> Point:
    """Return a method's point whose temperature is nearest; of equally near ones, the first."""
    own = (point for point in points if point.method == method)
    return min(own, key=lambda point: abs(point.temperature - temperature))


def shuffle_words(text: str, seed: str) -> str:
    """Return a text's words in a random order, which the seed decides."""
    words = text.split()
    Random(seed).shuffle(words)
    return " ".join(words)
