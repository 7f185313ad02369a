"""The comparison: scores in, one JSON-ready result out; the report shows it and adds nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParameterError, nearest
from ..core.routing import ROUTERS
from . import frontier, statistics
from .examples import examples
from .findings import findings
from .metrics import LEXICAL, NAMES, SEMANTIC
from .scores import Scores, nearest_point
from .words import DEFAULT_ROUTER

Floats = NDArray[np.float64]
FAMILIES = ("lexical", "semantic", "overall")
FLOORS = (0.8, 0.9, 0.95)
SHOWN_SETTINGS = ("resamples", "splits", "anchor_temperature", "base", "aligned")
RESAMPLES_AT_ONCE = 50
"""How many resamples are in memory where the points of all methods are sorted together."""


@dataclass(frozen=True)
class Settings:
    """How methods are compared.

    Attributes:
        base: The method that sets the top of the diversity scale.
        aligned: The method that sets the top of the quality scale.
        anchor_temperature: At which temperature the two do so.
        reference: What the heatmap compares with.
        control: What the routers are compared with; left out if it is not among the methods.
        kinds: "model", "router" or "baseline" for methods whose name does not say so.
        maximum: Most valid-distinct answers that are possible; the number of answers by default.
        resamples: Number of bootstrap resamples of the prompts.
        splits: Number of splits for cross-fitting.
        seed: Seed of resamples and splits.
    """

    base: str = "base"
    aligned: str = "aligned"
    anchor_temperature: float = 1.0
    reference: str = "aligned"
    control: str = "rand"
    kinds: Mapping[str, str] = field(default_factory=dict)
    maximum: float | None = None
    resamples: int = 2000
    splits: int = 20
    seed: int = 0


def compare(scores: Scores, settings: Settings = Settings(), **about: Any) -> dict[str, Any]:
    """Compare all methods.

    Args:
        scores: What `measure` found, for one set of prompts and one pair.
        settings: How to compare.
        **about: What the report says of the run: ``title``, ``command``, ``machine``,
            ``versions``, ``similarity`` and so on; values are JSON. What ``unfinished`` says comes
            first.

    Returns:
        The result, of JSON's types only.

    Raises:
        ParameterError: A named method is not among the scores, or a metric has no scale.
    """
    comparison = Comparison(scores, settings)
    models = dict.fromkeys(record.get("model") for record in scores.records.values())
    own_about = {
        "models": [model for model in models if model],
        "prompts": len(scores.prompts),
        "prompts_left_out": scores.left_out,
        "k": scores.k,
        "seeds": list(scores.seeds),
        "temperatures": sorted({point.temperature for point in scores.points}),
        **{name: getattr(settings, name) for name in SHOWN_SETTINGS},
    }
    methods = comparison.methods()
    result: dict[str, Any] = {
        **({"unfinished": about["unfinished"]} if "unfinished" in about else {}),
        "about": {**own_about, **about},
        "anchors": comparison.anchors(),
        "metrics": {"lexical": list(LEXICAL), "semantic": list(SEMANTIC)},
        "qualities": comparison.qualities,
        "left_out": [name for name in scores.qualities if name not in comparison.qualities],
        "methods": methods,
        "contrasts": comparison.contrasts(),
        "valid_contrasts": comparison.valid_contrasts(),
        "routers": comparison.routers(),
        "differences": comparison.differences(),
        "examples": examples(scores, settings.base, settings.aligned, methods),
    }
    result = to_json(result)
    result["findings"] = findings(result)
    return result


def kind_of(method: str, kinds: Mapping[str, str]) -> str:
    """Return "model", "router" or "baseline"; a router's variant is named "p-punc:..."."""
    root = method.lower().partition(":")[0]
    if method in kinds or root == "judge":
        return kinds.get(method, "router")
    spec = ROUTERS.get(root)
    if spec is None or spec.rule == "nudge":
        return "baseline"
    return "model" if spec.only else "router"


class Comparison:
    """Normalised values of all points under every resample; row 0 is the estimate.

    Attributes:
        names: The methods; `kinds` are their kinds, `points` the indices of their points.
        qualities: The qualities that have a scale.
        d: Normalised diversity, shape (rows, 11, points).
        q: Normalised quality, shape (rows, qualities, points).
        valid: Share of valid answers, shape (rows, points).
        distinct: Valid-distinct answers, shape (rows, points).
        coverage: Shape (methods, rows, 11, qualities).
        families: Coverage by family, shape (methods, rows, 3).
    """

    def __init__(self, scores: Scores, settings: Settings) -> None:
        self.scores, self.settings, self.names = scores, settings, scores.methods
        for role in ("base", "aligned", "reference"):
            name = getattr(settings, role)
            if name not in self.names:
                hint = nearest(name, self.names)
                allowed = f"one of the methods, {', '.join(self.names)}"
                raise ParameterError(role, allowed, name, f"{hint}Every comparison needs it.")
        self.kinds = [kind_of(name, settings.kinds) for name in self.names]
        self.owner = np.array([self.names.index(p.method) for p in scores.points], np.intp)
        self.points = [np.flatnonzero(self.owner == m) for m in range(len(self.names))]
        self.set_scales()
        weights = statistics.resample(len(scores.prompts), settings.resamples, settings.seed)
        self.d, self.q = self.normalised(weights)
        counts = np.stack([scores.valid, scores.valid_distinct], -1)
        self.valid, self.distinct = np.moveaxis(statistics.means(weights, counts), 1, 0)
        self.coverage = np.stack(
            [frontier.coverage(self.d[:, :, None, p], self.q[:, None, :, p]) for p in self.points]
        )
        self.families = frontier.family_means(self.coverage, len(LEXICAL))

    def set_scales(self) -> None:
        """Set which raw values count as 0 and as 1, and leave out qualities without a scale.

        Raises:
            ParameterError: No quality, or not every diversity, has a scale.
        """
        scores, settings = self.scores, self.settings
        anchors = [
            scores.points.index(nearest_point(scores.points, name, settings.anchor_temperature))
            for name in (settings.base, settings.aligned)
        ]
        top_d, top_q = scores.diversity[anchors[0]].mean(0), scores.quality[anchors[1]].mean(0)
        # Where shuffled words do as well as the aligned model, there is nothing to measure with.
        self.usable = np.flatnonzero(top_q - scores.shuffled > 0.01)
        self.qualities = [scores.qualities[place] for place in self.usable]
        if not self.qualities:
            raise ParameterError(
                "scores",
                "of a quality that tells the aligned model's answers from shuffled words",
                dict(zip(scores.qualities, top_q.tolist(), strict=True)),
                "Use another measure of quality.",
            )
        flat = [name for name, gap in zip(NAMES, top_d - scores.identical, strict=True) if gap <= 0]
        if flat:
            raise ParameterError(
                "scores",
                f"of answers of {settings.base} that differ more than identical ones do",
                f"no difference by {', '.join(flat)}",
                "Use a similarity that tells them apart, such as one with a higher threshold, or "
                "more prompts.",
            )
        self.scale_d = scores.identical[:, None], top_d[:, None]
        self.scale_q = scores.shuffled[self.usable, None], top_q[self.usable, None]

    def normalised(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return diversity and quality under weights, shapes (rows, metrics, points)."""
        d = statistics.means(weights, self.scores.diversity)
        q = statistics.means(weights, self.scores.quality[..., self.usable])
        return frontier.normalise(d, *self.scale_d), frontier.normalise(q, *self.scale_q)

    @property
    def maximum(self) -> float:
        """The most valid-distinct answers that are possible."""
        return self.settings.maximum or self.scores.k

    def anchors(self) -> dict[str, Any]:
        """Return the raw values at 0 and at 1 of each scale."""
        return {
            "diversity": dict(zip(NAMES, np.hstack(self.scale_d), strict=True)),
            "quality": dict(zip(self.qualities, np.hstack(self.scale_q), strict=True)),
            "valid_distinct": [0, self.maximum],
        }

    def methods(self) -> list[dict[str, Any]]:
        """Return all that is known of each method, best Coverage first."""
        count, lexical = len(self.names), len(LEXICAL)
        shares, held_out = self.dominance(np.arange(count)), self.cross_fit()
        own = frontier.exclusive(self.d[0, :, None], self.q[0, None], self.owner, count)
        alone = frontier.family_means(np.moveaxis(own, -1, 0), lexical)[:, 2]
        found = [
            {
                "name": name,
                "kind": self.kinds[m],
                "points": self.point_values(m),
                "coverage": intervals(self.families[m]),
                "cross_fit": held_out[m],
                "dominance": intervals(shares[m]),
                "exclusive": alone[m],
                "matrix": self.coverage[m, 0],
                "valid_distinct": self.valid_distinct(m),
                "cost": self.cost(m),
            }
            for m, name in enumerate(self.names)
        ]
        return sorted(found, key=lambda method: -method["coverage"]["overall"][0])

    def point_values(self, method: int) -> list[dict[str, Any]]:
        """Return the values of each of a method's points."""
        lexical, scores = len(LEXICAL), self.scores
        return [
            {
                "knob": scores.points[p].knob,
                "temperature": scores.points[p].temperature,
                "lexical": self.d[0, :lexical, p].mean(),
                "semantic": self.d[0, lexical:, p].mean(),
                "quality": self.q[0, :, p],
                "raw_diversity": scores.diversity[p].mean(0),
                "raw_quality": scores.quality[p].mean(0),
                "valid": self.valid[0, p],
                "valid_distinct": self.distinct[0, p],
                **{name: values[p] for name, values in scores.costs.items()},
            }
            for p in self.points[method]
        ]

    def dominance(self, pool: NDArray[np.intp]) -> Floats:
        """Return shares of the pool's Pareto front, by family: (methods of the pool, rows, 3)."""
        inside = np.isin(self.owner, pool)
        owner = np.searchsorted(pool, self.owner[inside])
        d, q = self.d[:, :, None, inside], self.q[:, None, :, inside]
        parts = [
            frontier.dominance(d[rows], q[rows], owner, len(pool))
            for start in range(0, len(d), RESAMPLES_AT_ONCE)
            for rows in [slice(start, start + RESAMPLES_AT_ONCE)]
        ]
        return frontier.family_means(np.moveaxis(np.concatenate(parts), -1, 0), len(LEXICAL))

    def cross_fit(self) -> Floats:
        """Return Coverage by family with the front chosen on half the prompts: (methods, 3)."""
        prompts, settings = len(self.scores.prompts), self.settings
        if prompts < 2:
            return np.full((len(self.names), 3), np.nan)
        sides = statistics.halves(prompts, settings.splits, settings.seed)
        chosen, scored = (self.normalised(np.array(half)) for half in zip(*sides, strict=True))
        means = []
        for own in self.points:
            area = statistics.held_out_coverage(
                *((d[:, :, None, own], q[:, None, :, own]) for d, q in (chosen, scored))
            )
            means.append(frontier.family_means(area, len(LEXICAL)).mean(0))
        return np.array(means)

    def valid_distinct(self, method: int) -> dict[str, Any]:
        """Return a method's point with most valid-distinct answers at each floor of validity."""
        own = self.points[method]
        best: dict[str, Any] = {}
        for floor in FLOORS:
            able = own[self.valid[0, own] >= floor - 1e-9]
            best[str(floor)] = None
            if len(able):
                p = able[np.argmax(self.distinct[0, able])]
                best[str(floor)] = {
                    "value": statistics.interval(self.distinct[:, p]),
                    "valid": self.valid[0, p],
                    "knob": self.scores.points[p].knob,
                    "temperature": self.scores.points[p].temperature,
                }
        return {"at": best, "coverage": statistics.interval(self.valid_area(method))}

    def valid_area(self, method: int) -> Floats:
        """Return the Coverage of valid-distinct answers against the valid share, shape (rows,)."""
        own = self.points[method]
        share = np.minimum(self.distinct[:, own] / self.maximum, 1)
        return frontier.coverage(share, self.valid[:, own])

    def cost(self, method: int) -> dict[str, Any]:
        """Return what a method takes: means, or the least and the most, over its points."""
        costs = {name: values[self.points[method]] for name, values in self.scores.costs.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            speed = costs["tokens"].sum() / costs["seconds"].sum()
        share, switches = costs["base_share"], costs["switches"]
        return {
            "tokens_per_second": speed,
            "forwards": costs["forwards"].mean(),
            "base_share": [share.min(), share.max()],
            "switches": [switches.min(), switches.max()],
            "tokens": costs["tokens"].mean() / self.scores.k,
        }

    def contrasts(self) -> dict[str, Any]:
        """Return the method with the largest overall Coverage, tested against each other one."""
        overall = dict(zip(self.names, self.families[..., 2], strict=True))
        best = max(overall, key=lambda name: float(overall[name][0]))
        return {"best": best, "others": contrast(overall, best)}

    def valid_contrasts(self) -> dict[str, Any]:
        """Return the same of valid-distinct Coverage, for its best and for the default router."""
        areas = {name: self.valid_area(m) for m, name in enumerate(self.names)}
        best = max(areas, key=lambda name: float(areas[name][0]))
        chosen = dict.fromkeys([best, *({DEFAULT_ROUTER} & areas.keys())])
        return {one: contrast(areas, one) for one in chosen}

    def routers(self) -> dict[str, Any] | None:
        """Return the routers as a pool of their own, each against the control."""
        pool = np.array([m for m, kind in enumerate(self.kinds) if kind == "router"], np.intp)
        if len(pool) < 2:
            return None
        overall = {self.names[m]: self.families[m, :, 2] for m in pool}
        shares = dict(zip(overall, map(intervals, self.dominance(pool)), strict=True))
        control = self.settings.control
        if control not in overall:
            return {"dominance": shares, "control": None}
        against = overall.pop(control)
        gaps = {name: area - against for name, area in overall.items()}
        return {"dominance": shares, "control": control, "against": tested(gaps)}

    def differences(self) -> dict[str, Any]:
        """Return Coverage less the reference's by metric; p-values corrected over all of them."""
        reference = self.names.index(self.settings.reference)
        others = [m for m in range(len(self.names)) if m != reference]
        cells = {}
        if others:
            by_metric = self.coverage.mean(-1)
            gaps = np.stack([by_metric[m] - by_metric[reference] for m in others], 1)
            adjusted = statistics.holm(statistics.p_values(gaps))
            cells = {
                self.names[m]: {"difference": gaps[0, place], "p": adjusted[place]}
                for place, m in enumerate(others)
            }
        return {"reference": self.settings.reference, "cells": cells}


def intervals(samples: Floats) -> dict[str, statistics.Interval]:
    """Return the interval of each family from samples of shape (rows, 3)."""
    return {name: statistics.interval(samples[:, i]) for i, name in enumerate(FAMILIES)}


def contrast(areas: Mapping[str, Floats], one: str) -> dict[str, Any]:
    """Return one method's area less each other one's, paired and tested."""
    return tested({name: areas[one] - area for name, area in areas.items() if name != one})


def tested(gaps: Mapping[str, Floats]) -> dict[str, Any]:
    """Return paired differences by method, with p-values corrected over all of them."""
    if not gaps:
        return {}
    p = statistics.holm(statistics.p_values(np.stack(list(gaps.values()), -1)))
    return {
        name: {"difference": statistics.interval(gap), "p": p[place]}
        for place, (name, gap) in enumerate(gaps.items())
    }


def to_json(value: Any) -> Any:
    """Turn into JSON's types: arrays into lists, NaN into None, figures to four places."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 4) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
