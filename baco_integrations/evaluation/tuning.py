"""Which router, gamma and temperature to use: the most breadth that a floor of quality leaves.

Every setting's quality and valid-distinct answers are means over prompts. A setting is safe if the
lower end of its 95 % interval of quality - floor x the aligned model's quality, paired by prompt
and one-sided, is not below 0; suggested is the safe one with the most valid-distinct answers.
The whole choice is then repeated on resampled prompts: how often it comes out the same is how much
it depends on the prompts that happened to be asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParameterError
from ..core.params import DEFAULT_MAX_TOKENS, DEFAULT_TEMPERATURE, SamplingParams
from .methods import Grid, find_methods
from .prompts import Prompt
from .records import read_records
from .run import collect
from .scorer import find_scorer
from .scores import Scores, nearest_point
from .statistics import Interval, interval, resample

Floats = NDArray[np.float64]

ROUTERS = ("p-punc", "h-punc", "p-fc")
GRID = Grid((0.3, 0.6, 0.9), (0.3, 0.7, 1.0))
FEW = 10  # prompts; below that, no interval is worth its name
ONE_SIDED = 1.645  # standard errors below which 5 % lie


@dataclass(frozen=True)
class Candidate:
    """A setting and what it is expected to give.

    Attributes:
        router: The router; ``aligned`` is the aligned model alone.
        gamma: Its gamma, if it has one.
        temperature: The temperature.
        quality: Mean quality of its answers, with the 95 % interval over prompts.
        valid_distinct: Different things among the valid ones of a prompt's answers, likewise.
        safe: Whether its quality is above the floor with confidence.
        agreement: In which share of the resamples of the prompts it is the one suggested.
        behind: How many valid-distinct answers less than the suggestion it gives, paired.
    """

    router: str
    gamma: float | None
    temperature: float
    quality: Interval
    valid_distinct: Interval
    safe: bool
    agreement: float
    behind: Interval

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `SamplingParams` that make it up."""
        gamma = {} if self.gamma is None else {"gamma": self.gamma}
        return {"router": self.router, **gamma, "temperature": self.temperature}


@dataclass(frozen=True)
class Suggestion:
    """What to use.

    Attributes:
        best: The suggested setting.
        candidates: All settings: the safe ones, most valid-distinct answers first, then the rest.
        aligned: The aligned model alone at its usual temperature, which sets the floor.
        floor: Share of its quality that has to be kept.
        prompts: How many prompts were asked.
        k: Answers to each.
        doubts: What the data do not tell, in sentences; empty if they tell enough.
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    aligned: Candidate
    floor: float
    prompts: int
    k: int
    doubts: tuple[str, ...]


def tune(
    pair: Any,
    prompts: Sequence[Prompt],
    *,
    floor: float = 0.9,
    routers: Sequence[str] = ROUTERS,
    grid: Grid = GRID,
    n: int = 8,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    seed: int = 0,
    similarity: Any = None,
    quality: Any = None,
    out: str | Path | None = None,
    rows: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Suggestion:
    """Ask some prompts at several settings, and suggest the best of them.

    Args:
        pair: The pair to be tuned.
        prompts: Such prompts as it will be asked; 30 tell more than 10.
        floor: Share of the aligned model's quality to keep, from 0 to 1.
        routers: Which routers to try, beside aligned alone.
        grid: Gammas and temperatures to try them at.
        n: Answers to a prompt at each setting.
        max_tokens: Longest answer.
        seed: Seed of the answers.
        similarity: As for `find_scorer`.
        quality: Likewise.
        out: A folder for the answers, so that the run can be gone on with; none by default.
        rows: How many answers are worked on at once.
        progress: As in `collect`.

    Raises:
        ParameterError: A setting is not allowed, the model is no pair, or nothing tells a good
            answer from a bad one.
    """
    require_floor(floor)
    scorer = find_scorer(prompts, similarity, quality)
    names = tuple(dict.fromkeys(("aligned", *routers)))
    find_methods(names)
    for gamma, temperature in product(grid.knobs, grid.temperatures):
        SamplingParams(gamma=gamma, temperature=temperature)  # complains before anything is asked
    grid = Grid(grid.knobs, tuple(sorted({*grid.temperatures, DEFAULT_TEMPERATURE})))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(out or scratch)
        collect(
            pair,
            prompts,
            folder,
            methods=names,
            sweep=grid,
            seeds=(seed,),
            n=n,
            max_tokens=max_tokens,
            rows=rows,
            progress=progress,
        )
        return suggest(scorer.measure(read_records(folder)), floor)


def suggest(
    scores: Scores, floor: float = 0.9, resamples: int = 2000, aligned: str = "aligned"
) -> Suggestion:
    """Suggest the best of the measured settings.

    Args:
        scores: What `measure` found; the first quality is the one with the floor.
        floor: Share of the aligned model's quality to keep, from 0 to 1.
        resamples: How often the prompts are resampled.
        aligned: The method that is the aligned model alone.
    """
    require_floor(floor)
    points = scores.points
    own = points.index(nearest_point(points, aligned, DEFAULT_TEMPERATURE))
    weights = resample(len(scores.prompts), resamples)
    quality, found = scores.quality[..., 0], scores.valid_distinct
    safe = lower_ends(weights, quality - floor * quality[own]) >= -1e-9
    means = weights @ found.T
    reached = np.where(safe, means, -1.0)
    best = int(reached[0].argmax())
    first = reached >= reached.max(1, keepdims=True) - 1e-9
    agreement = (first / first.sum(1, keepdims=True))[1:].mean(0)  # those that tie share it
    qualities = weights @ quality.T

    def candidate(place: int) -> Candidate:
        point = points[place]
        return Candidate(
            point.method,
            point.knob,
            point.temperature,
            interval(qualities[:, place]),
            interval(means[:, place]),
            bool(safe[0, place]),
            float(agreement[place]),
            interval(means[:, best] - means[:, place]),
        )

    order = sorted(range(len(points)), key=lambda p: (not safe[0, p], p != best, -means[0, p]))
    every = [candidate(place) for place in order]
    return Suggestion(
        every[0],
        tuple(every),
        candidate(own),
        floor,
        len(scores.prompts),
        scores.k,
        tuple(doubts_about(every, candidate(own), len(scores.prompts))),
    )


def lower_ends(weights: Floats, values: Floats) -> Floats:
    """Return the lower ends of the means' intervals under each row of weights: (rows, points)."""
    mean = weights @ values.T
    spread = np.maximum(weights @ (values.T**2) - mean**2, 0)
    ends: Floats = mean - ONE_SIDED * np.sqrt(spread / max(values.shape[1] - 1, 1))
    return ends


def doubts_about(every: Sequence[Candidate], aligned: Candidate, prompts: int) -> Iterator[str]:
    """Yield sentences about what the data leave open.

    Args:
        every: The candidates, the suggested one first.
        aligned: The aligned model alone.
        prompts: How many prompts were asked.
    """
    if prompts < FEW:
        yield (
            f"With {prompts} prompt{'s' * (prompts != 1)} this is a guess: give at least {FEW}, "
            "better 30."
        )
    gain = aligned.behind
    if gain.low <= 0:
        yield (
            "It is not shown to be more varied than the aligned model alone: the difference is "
            f"{gain.value:.1f} [{gain.low:.1f}, {gain.high:.1f}] valid, different answers."
        )
    tied = [describe(one) for one in every[1:] if one.safe and one.behind.low <= 0]
    if every[0].agreement < 0.5 and tied:
        more = f" and {len(tied) - 3} more" if len(tied) > 3 else ""
        yield (
            f"As good, for all that is known: {'; '.join(tied[:3])}{more}. Which of them comes "
            "first changes with the prompts."
        )


def describe(candidate: Candidate) -> str:
    """Write a setting as in ``p-punc, gamma 0.6, T 0.7``."""
    gamma = "" if candidate.gamma is None else f"gamma {candidate.gamma:g}, "
    return f"{candidate.router}, {gamma}T {candidate.temperature:g}"


def require_floor(floor: float) -> None:
    """Raise ParameterError where a floor is not from 0 to 1."""
    if not 0 <= floor <= 1:
        remedy = "0.9 keeps nine tenths of the aligned model's quality."
        raise ParameterError("floor", "a number from 0 to 1", floor, remedy)
