"""The comparison: scores in, one JSON-ready result out; the report shows it and adds nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from .scores import Scores, get, nearest_point

Floats = NDArray[np.float64]
FAMILIES = ("lexical", "semantic", "overall")
FLOORS = (0.8, 0.9, 0.95)
_DEFAULT = "p-punc"
_ROWS = 50  # resamples at a time where all methods' points are sorted together


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
    comparison = _Comparison(scores, settings)
    unfinished = {"unfinished": about["unfinished"]} if "unfinished" in about else {}
    result: dict[str, Any] = {
        **unfinished,
        "about": {**_about(scores, settings), **about},
        "anchors": comparison.anchors(),
        "metrics": {"lexical": list(LEXICAL), "semantic": list(SEMANTIC)},
        "qualities": comparison.qualities,
        "left_out": comparison.left_out,
        "methods": comparison.methods(),
        "contrasts": comparison.contrasts(),
        "valid_contrasts": comparison.valid_contrasts(),
        "routers": comparison.routers(),
        "differences": comparison.differences(),
    }
    result["examples"] = examples(scores, settings.base, settings.aligned, result["methods"])
    result = _plain(result)
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


def _about(scores: Scores, settings: Settings) -> dict[str, Any]:
    models = dict.fromkeys(get(record, "model", None) for record in scores.records.values())
    return {
        "models": [model for model in models if model],
        "prompts": len(scores.prompts),
        "prompts_left_out": scores.left_out,
        "k": scores.k,
        "seeds": list(scores.seeds),
        "temperatures": sorted({point.temperature for point in scores.points}),
        "resamples": settings.resamples,
        "splits": settings.splits,
        "anchor_temperature": settings.anchor_temperature,
        "base": settings.base,
        "aligned": settings.aligned,
    }


class _Comparison:
    """Normalised values of all points under every resample; row 0 is the estimate."""

    def __init__(self, scores: Scores, settings: Settings) -> None:
        self._scores, self._settings = scores, settings
        self._names = scores.methods
        for role in ("base", "aligned", "reference"):
            _known(role, getattr(settings, role), self._names)
        self._owner = np.array([self._names.index(p.method) for p in scores.points], np.intp)
        self._kinds = [kind_of(name, settings.kinds) for name in self._names]
        self._set_scales()
        weights = statistics.resample(len(scores.prompts), settings.resamples, settings.seed)
        self._d, self._q = self._normalised(weights)
        counts = np.stack([scores.valid, scores.valid_distinct], -1)
        self._valid, self._found = np.moveaxis(statistics.means(weights, counts), 1, 0)
        everything = range(len(self._names))
        self._coverage = np.stack([self._area(self._d, self._q, m) for m in everything])
        self._families = frontier.family_means(self._coverage, len(LEXICAL))
        self._best = int(np.argmax(self._families[:, 0, 2]))

    def _set_scales(self) -> None:
        scores, settings = self._scores, self._settings
        top_d = scores.diversity[self._anchor(settings.base)].mean(0)
        top_q = scores.quality[self._anchor(settings.aligned)].mean(0)
        # Where shuffled words do as well as the aligned model, there is nothing to measure with.
        usable = top_q - scores.shuffled > 0.01
        self._usable = np.flatnonzero(usable)
        self.qualities = [scores.qualities[place] for place in self._usable]
        self.left_out = [name for name in scores.qualities if name not in self.qualities]
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
        self._scale_d = scores.identical[:, None], top_d[:, None]
        self._scale_q = scores.shuffled[self._usable, None], top_q[self._usable, None]

    def _anchor(self, method: str) -> int:
        own = [point for point in self._scores.points if point.method == method]
        return self._scores.points.index(nearest_point(own, self._settings.anchor_temperature))

    def _normalised(self, weights: Floats) -> tuple[Floats, Floats]:
        """Diversity and quality, shapes (rows, metrics, points)."""
        d = statistics.means(weights, self._scores.diversity)
        q = statistics.means(weights, self._scores.quality[..., self._usable])
        return frontier.normalise(d, *self._scale_d), frontier.normalise(q, *self._scale_q)

    def _area(self, d: Floats, q: Floats, method: int) -> Floats:
        """Coverage by each diversity and quality metric, shape (rows, 11, qualities)."""
        own = self._owner == method
        return np.stack(
            [frontier.coverage(d[..., own], one[:, None, own]) for one in np.moveaxis(q, 1, 0)], -1
        )

    # -- parts of the result -----------------------------------------------------------------------

    def anchors(self) -> dict[str, Any]:
        """Raw values at 0 and at 1 of each scale."""

        def pairs(names: Sequence[str], scale: tuple[Floats, Floats]) -> dict[str, Any]:
            ends = np.hstack(scale).tolist()
            return dict(zip(names, ends, strict=True))

        return {
            "diversity": pairs(NAMES, self._scale_d),
            "quality": pairs(self.qualities, self._scale_q),
            "valid_distinct": [0, self._maximum],
        }

    @property
    def _maximum(self) -> float:
        return self._settings.maximum or self._scores.k

    def methods(self) -> list[dict[str, Any]]:
        """All that is known of each method, best Coverage first."""
        everything = np.arange(len(self._names))
        shares, alone = self._dominance(everything), self._exclusive()
        held_out = self._cross_fit()
        told = [
            {
                "name": name,
                "kind": self._kinds[m],
                "points": self._points(m),
                "coverage": _intervals(self._families[m]),
                "cross_fit": held_out[m],
                "dominance": _intervals(shares[m]),
                "exclusive": alone[m],
                "matrix": self._coverage[m, 0],
                "valid_distinct": self._valid_distinct(m),
                "cost": self._cost(m),
            }
            for m, name in enumerate(self._names)
        ]
        return sorted(told, key=lambda method: -method["coverage"]["overall"][0])

    def _points(self, method: int) -> list[dict[str, Any]]:
        lexical, scores = len(LEXICAL), self._scores
        return [
            {
                "knob": scores.points[p].knob,
                "temperature": scores.points[p].temperature,
                "lexical": self._d[0, :lexical, p].mean(),
                "semantic": self._d[0, lexical:, p].mean(),
                "quality": self._q[0, :, p],
                "raw_diversity": scores.diversity[p].mean(0),
                "raw_quality": scores.quality[p].mean(0),
                "valid": self._valid[0, p],
                "valid_distinct": self._found[0, p],
                **{name: values[p] for name, values in scores.costs.items()},
            }
            for p in np.flatnonzero(self._owner == method)
        ]

    def _dominance(self, pool: NDArray[np.intp]) -> Floats:
        """Share of the pool's Pareto front, by family: shape (methods of the pool, rows, 3)."""
        inside = np.isin(self._owner, pool)
        owner = np.searchsorted(pool, self._owner[inside])
        d, q = self._d[..., inside], self._q[..., inside]
        parts = [
            frontier.dominance(
                d[rows : rows + _ROWS, :, None], q[rows : rows + _ROWS, None], owner, len(pool)
            )
            for rows in range(0, len(d), _ROWS)
        ]
        return frontier.family_means(np.moveaxis(np.concatenate(parts), -1, 0), len(LEXICAL))

    def _exclusive(self) -> Floats:
        own = frontier.exclusive(
            self._d[0, :, None], self._q[0, None], self._owner, len(self._names)
        )
        return frontier.family_means(np.moveaxis(own, -1, 0), len(LEXICAL))[:, 2]

    def _cross_fit(self) -> Floats:
        """Coverage with the front chosen on one half of the prompts, by family: (methods, 3)."""
        prompts, settings = len(self._scores.prompts), self._settings
        if prompts < 2:
            return np.full((len(self._names), 3), np.nan)
        sides = statistics.halves(prompts, settings.splits, settings.seed)
        chosen, scored = (self._normalised(np.array(half)) for half in zip(*sides, strict=True))
        found = []
        for method in range(len(self._names)):
            own = self._owner == method
            area = statistics.held_out_coverage(
                *((d[:, :, None][..., own], q[:, None][..., own]) for d, q in (chosen, scored))
            )
            found.append(frontier.family_means(area, len(LEXICAL)).mean(0))
        return np.array(found)

    def _valid_distinct(self, method: int) -> dict[str, Any]:
        own = np.flatnonzero(self._owner == method)
        best: dict[str, Any] = {}
        for floor in FLOORS:
            able = own[self._valid[0, own] >= floor - 1e-9]
            best[str(floor)] = None
            if len(able):
                p = able[np.argmax(self._found[0, able])]
                best[str(floor)] = {
                    "value": statistics.interval(self._found[:, p]),
                    "valid": self._valid[0, p],
                    "knob": self._scores.points[p].knob,
                    "temperature": self._scores.points[p].temperature,
                }
        return {"at": best, "coverage": statistics.interval(self._valid_area(method))}

    def _valid_area(self, method: int) -> Floats:
        """Return the Coverage of valid-distinct answers against the valid share."""
        own = np.flatnonzero(self._owner == method)
        share = np.minimum(self._found[:, own] / self._maximum, 1)
        return frontier.coverage(share, self._valid[:, own])

    def valid_contrasts(self) -> dict[str, Any]:
        """The same of valid-distinct Coverage: its largest, and the default router's, if there."""
        areas = {name: self._valid_area(m) for m, name in enumerate(self._names)}
        best = max(areas, key=lambda name: float(areas[name][0]))
        chosen = dict.fromkeys([best, *({_DEFAULT} & areas.keys())])
        return {
            one: _tested({name: areas[one] - area for name, area in areas.items() if name != one})
            for one in chosen
        }

    def _cost(self, method: int) -> dict[str, Any]:
        own = self._owner == method
        costs = {name: values[own] for name, values in self._scores.costs.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            speed = costs["tokens"].sum() / costs["seconds"].sum()
        share = costs["base_share"]
        return {
            "tokens_per_second": speed,
            "forwards": costs["forwards"].mean(),
            "base_share": [share.min(), share.max()],
            "switches": [costs["switches"].min(), costs["switches"].max()],
            "tokens": costs["tokens"].mean() / self._scores.k,
        }

    def contrasts(self) -> dict[str, Any]:
        """The method with the largest overall Coverage against each other one."""
        overall = self._families[..., 2]
        gaps = {
            name: overall[self._best] - overall[m]
            for m, name in enumerate(self._names)
            if m != self._best
        }
        return {"best": self._names[self._best], "others": _tested(gaps)}

    def routers(self) -> dict[str, Any] | None:
        """The routers as a pool of their own, each against the control."""
        pool = np.array([m for m, kind in enumerate(self._kinds) if kind == "router"], np.intp)
        if len(pool) < 2:
            return None
        names = [self._names[m] for m in pool]
        shares = self._dominance(pool)
        told: dict[str, Any] = {
            "dominance": {name: _intervals(shares[place]) for place, name in enumerate(names)},
            "control": self._settings.control if self._settings.control in names else None,
        }
        if told["control"]:
            overall = dict(zip(self._names, self._families[..., 2], strict=True))
            against = overall[self._settings.control]
            gaps = {name: overall[name] - against for name in names}
            del gaps[self._settings.control]
            told["against"] = _tested(gaps)
        return told

    def differences(self) -> dict[str, Any]:
        """Coverage less the reference's by metric; p-values corrected over the whole map."""
        reference = self._names.index(self._settings.reference)
        others = [m for m in range(len(self._names)) if m != reference]
        if not others:
            return {"reference": self._settings.reference, "cells": {}}
        by_metric = self._coverage.mean(-1)
        gaps = np.stack([by_metric[m] - by_metric[reference] for m in others], 1)
        adjusted = statistics.holm(statistics.p_values(gaps))
        cells = {
            self._names[m]: {"difference": gaps[0, i], "p": adjusted[i]}
            for i, m in enumerate(others)
        }
        return {"reference": self._settings.reference, "cells": cells}


def _intervals(samples: Floats) -> dict[str, statistics.Interval]:
    return {name: statistics.interval(samples[:, i]) for i, name in enumerate(FAMILIES)}


def _tested(gaps: Mapping[str, Floats]) -> dict[str, Any]:
    """Paired differences by method, with p-values corrected over all of them."""
    if not gaps:
        return {}
    p = statistics.holm(statistics.p_values(np.stack(list(gaps.values()), -1)))
    return {
        name: {"difference": statistics.interval(gap), "p": p[place]}
        for place, (name, gap) in enumerate(gaps.items())
    }


def _known(role: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        hint = nearest(name, names)
        allowed = f"one of the methods, {', '.join(names)}"
        raise ParameterError(role, allowed, name, f"{hint}Every comparison needs it.")


def _plain(value: Any) -> Any:
    """Turn into JSON's types: arrays into lists, NaN into None, figures to four places."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 4) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
