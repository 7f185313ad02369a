"""Quality against diversity: normalisation, Coverage, the Pareto front and Dominance.

Everything works on the last axis, the points of one or more methods, and is vectorised over the
axes before it: resamples, metrics. Definitions are this package's own protocol.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParameterError

Floats = NDArray[np.float64]


def normalise(values: Floats, floor: Floats, top: Floats) -> Floats:
    """Return clip((values - floor) / (top - floor), 0, 1), with fixed anchors for each metric.

    Args:
        values: Raw values.
        floor: What identical answers (diversity) or shuffled text (quality) get, broadcast.
        top: What the base model (diversity) or the aligned one (quality) gets, broadcast.

    Raises:
        ParameterError: A metric's anchors are not apart, so it has no scale.
    """
    if not np.all(np.asarray(top) > np.asarray(floor)):
        raise ParameterError(
            "top",
            "above floor for every metric",
            np.asarray(top).tolist(),
            "A metric that cannot tell its two anchors apart has to be left out.",
        )
    return np.clip((values - floor) / (np.asarray(top) - floor), 0.0, 1.0)


def coverage(d: Floats, q: Floats) -> Floats:
    """Return the area of the union of the rectangles [0, d] x [0, q] of each row of points.

    Args:
        d: Normalised diversity, shape (..., points).
        q: Normalised quality; the two are broadcast against each other.
    """
    d, q = np.broadcast_arrays(d, q)
    order = np.argsort(-d, axis=-1)
    d, q = np.take_along_axis(d, order, -1), np.take_along_axis(q, order, -1)
    steps = d - np.concatenate([d[..., 1:], np.zeros_like(d[..., :1])], -1)
    area: Floats = (steps * np.maximum.accumulate(q, axis=-1)).sum(-1)
    return area


def pareto(d: Floats, q: Floats) -> NDArray[np.bool_]:
    """Return which points no other point of their row beats; equal points stand together.

    A point beats another if it is at least as good in both and better in one.
    """
    d, q = np.broadcast_arrays(d, q)
    order = np.lexsort((-q, -d), axis=-1)
    d, q = np.take_along_axis(d, order, -1), np.take_along_axis(q, order, -1)
    edge = np.full_like(q[..., :1], -np.inf)
    best = np.maximum.accumulate(np.concatenate([edge, q[..., :-1]], -1), axis=-1)
    repeats = (d[..., 1:] == d[..., :-1]) & (q[..., 1:] == q[..., :-1])
    fresh = np.concatenate([np.ones(d[..., :1].shape, bool), ~repeats], -1)
    leader = np.maximum.accumulate(np.where(fresh, np.arange(d.shape[-1]), 0), axis=-1)
    front = np.empty_like(fresh)
    np.put_along_axis(front, order, np.take_along_axis(q > best, leader, -1), -1)
    return front


def dominance(d: Floats, q: Floats, owner: NDArray[np.intp], methods: int) -> Floats:
    """Return each method's share of the points on the Pareto front of the pool; they sum to 1.

    Args:
        d: Normalised diversity of all methods' points, shape (..., points).
        q: Normalised quality, likewise.
        owner: Shape (points,): the number of each point's method.
        methods: How many methods there are.

    Returns:
        Shape (..., methods).
    """
    front = pareto(d, q)
    held = front @ (owner[:, None] == np.arange(methods)).astype(float)
    shares: Floats = held / front.sum(-1, keepdims=True)
    return shares


def exclusive(d: Floats, q: Floats, owner: NDArray[np.intp], methods: int) -> Floats:
    """Return the area that only one method covers: all methods' area less that without it.

    Arguments and shape are those of `dominance`.
    """
    whole = coverage(d, q)
    without = [
        coverage(d[..., owner != method], q[..., owner != method])
        if np.any(owner != method)
        else np.zeros_like(whole)
        for method in range(methods)
    ]
    return np.maximum(whole[..., None] - np.stack(without, -1), 0.0)


def family_means(values: Floats, lexical: int) -> Floats:
    """Average over qualities and within the two families; overall is the mean of the families.

    Args:
        values: Shape (..., diversity metrics, quality metrics), lexical ones first.
        lexical: Number of lexical metrics.

    Returns:
        Shape (..., 3): lexical, semantic, overall.
    """
    of_metric = values.mean(-1)
    families = of_metric[..., :lexical].mean(-1), of_metric[..., lexical:].mean(-1)
    return np.stack([*families, (families[0] + families[1]) / 2], -1)
