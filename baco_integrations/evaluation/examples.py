"""Answers to look at, chosen by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .records import Point
from .scores import Scores, nearest_point
from .words import DEFAULT_ROUTER


def examples(
    scores: Scores, base: str, aligned: str, methods: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return answers to 3 prompts of base, aligned and a router, each at its best point.

    The router is the default one; where it is missing, the one that covers most.
    """
    routers = [method["name"] for method in methods if method["kind"] == "router"]
    router = DEFAULT_ROUTER if DEFAULT_ROUTER in routers else next(iter(routers), None)
    shown = dict.fromkeys(name for name in (base, aligned, router) if name)
    points = [best_point(scores, methods, name) for name in shown]
    places = np.linspace(0, len(scores.prompts) - 1, min(3, len(scores.prompts))).round()
    return [
        {
            "id": prompt,
            "prompt": scores.records[points[0], prompt]["prompt"],
            "answers": [
                {
                    **point._asdict(),
                    "answers": list(record["generations"])[:4],
                    "sources": (record.get("sources") or [])[:4] or None,
                }
                for point in points
                for record in [scores.records[point, prompt]]
            ],
        }
        for prompt in (scores.prompts[int(place)] for place in places)
    ]


def best_point(scores: Scores, methods: Sequence[Mapping[str, Any]], name: str) -> Point:
    """Return the point with most valid-distinct answers at the highest floor that it reaches."""
    best = next(m["valid_distinct"]["at"] for m in methods if m["name"] == name)
    for floor in ("0.9", "0.8"):
        if found := best[floor]:
            return Point(name, found["knob"], found["temperature"])
    return nearest_point(scores.points, name, 0.7)
