r"""Methods and the points at which they are compared.

Every method gets the same number of points. Those without a knob spread them over the range of the
temperatures. Those with a knob put them on a grid of five knob values, endpoints included, and the
five temperatures: the protocol's 11 points are these,

    knob \ T    .3   .5   .7   1.0  1.3
    0           x                   x
    1/4              x         x
    1/2         x         x         x
    3/4              x         x
    1           x                   x

every knob value at two temperatures or three, the endpoints where they differ most. Eleven points
without a knob are .3, .4, .5, ... 1.3, with the five among them. Fewer points are the first of one
fixed order (the centre, the corners, the rest); 25 are the whole grid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from ..core.errors import ParameterError, nearest
from ..core.params import SamplingParams
from .baselines import Ask, ensemble, in_context, once, paraphrased, told_to_vary
from .models import Model, Results
from .prompts import Prompt
from .records import Point

TEMPERATURES = (0.3, 0.5, 0.7, 1.0, 1.3)
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Values of a knob, as parts of its range."""

CELLS = [
    *((2, 2), (0, 0), (4, 4), (0, 4), (4, 0)),
    *((1, 1), (3, 3), (1, 3), (3, 1), (2, 0), (2, 4)),
    *((0, 2), (4, 2), (1, 2), (3, 2), (2, 1), (2, 3)),
    *((0, 1), (0, 3), (1, 0), (1, 4), (3, 0), (3, 4), (4, 1), (4, 3)),
]
"""Knob and temperature of the grid's points, by number, in the order in which they are taken."""


@dataclass(frozen=True)
class Method:
    """A way of getting varied answers.

    Attributes:
        name: Its name in records.
        settings: Settings of `SamplingParams` that make it up.
        knob: The setting that its knob sets, or ``weight``; None if it has none.
        levels: The knob's five values.
        ask: How it asks for several answers.
        forwards: Forwards a token takes by the method's nature; None where they are counted.
        pair: Whether it needs a pair; otherwise any model will do.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    knob: str | None = None
    levels: tuple[float, ...] = LEVELS
    ask: Ask = once
    forwards: int | None = None
    pair: bool = True

    def answer(
        self, model: Model, prompts: Sequence[Prompt], point: Point, seed: int, **shared: Any
    ) -> Results:
        """Return the answers to each prompt at a point, or its error.

        Args:
            model: Who answers.
            prompts: What is asked.
            point: One of the method's points.
            seed: The run's seed.
            **shared: Settings that all methods share, such as ``n`` and ``max_tokens``.
        """
        settings = {**self.settings, **shared, "temperature": point.temperature}
        ask = self.ask
        if self.knob == "weight" and point.knob is not None:
            ask = ensemble(point.knob)
        elif self.knob is not None:
            settings[self.knob] = point.knob
        return ask(model, prompts, SamplingParams(**settings), seed)


@dataclass(frozen=True)
class Sweep:
    """Gives every method the same number of points.

    Attributes:
        points: How many points a method gets, from 1 to 25.

    Raises:
        ParameterError: There cannot be so many.
    """

    points: int = 11

    def __post_init__(self) -> None:
        if isinstance(self.points, bool) or self.points not in range(1, len(CELLS) + 1):
            remedy = "11 is the protocol's; 25 is the whole grid."
            raise ParameterError("points", "a whole number from 1 to 25", self.points, remedy)

    def of(self, method: Method) -> list[Point]:
        """Return a method's points, by knob and temperature."""
        if method.knob is None:
            return [Point(method.name, None, each) for each in spread_temperatures(self.points)]
        return [
            Point(method.name, method.levels[level], TEMPERATURES[place])
            for level, place in sorted(CELLS[: self.points])
        ]


def spread_temperatures(count: int) -> list[float]:
    """Return temperatures over the range of `TEMPERATURES`; up to five are taken from these."""
    last = len(TEMPERATURES) - 1
    if count == 1:
        return [TEMPERATURES[last // 2]]
    if count <= len(TEMPERATURES):
        return [TEMPERATURES[round(place * last / (count - 1))] for place in range(count)]
    low, high = TEMPERATURES[0], TEMPERATURES[-1]
    return [round(low + (high - low) * i / (count - 1), 4) for i in range(count)]


@dataclass(frozen=True)
class Grid:
    """Every knob value at every temperature, to find a method's best point.

    Attributes:
        knobs: Values of the knob, if the method has one.
        temperatures: Temperatures.
    """

    knobs: tuple[float, ...]
    temperatures: tuple[float, ...]

    def of(self, method: Method) -> list[Point]:
        """Return a method's points, by knob and temperature."""
        knobs = (None,) if method.knob is None else self.knobs
        return [Point(method.name, *each) for each in product(knobs, self.temperatures)]


GAMMA_ROUTERS = (
    *("p", "h", "rand", "p-punc", "h-punc", "p-fc", "h-fc", "p-punc-fc", "h-punc-fc"),
    *("rand-punc", "nudge"),
)
ALIGNED = {"router": "aligned"}
METHODS = {
    method.name: method
    for method in (
        Method("base", {"router": "base"}, forwards=1),
        Method("aligned", ALIGNED, forwards=1),
        *(Method(name, {"router": name}, "gamma") for name in GAMMA_ROUTERS),
        *(Method(name, {"router": name}) for name in ("punc", "fc")),
        # min-p acts where it is small, so its values are squares.
        Method("min-p", ALIGNED, "min_p", tuple(level**2 for level in LEVELS), forwards=1),
        Method("ensemble", ALIGNED, "weight", forwards=2),
        Method("in-context", ALIGNED, ask=in_context, forwards=1, pair=False),
        Method("paraphrase", ALIGNED, ask=paraphrased, forwards=1, pair=False),
        Method("system-prompt", ALIGNED, ask=told_to_vary, forwards=1, pair=False),
        Method("plain", ALIGNED, forwards=1, pair=False),
    )
}
"""Every method by its name; ``plain`` is the temperature sweep of a model that is no pair."""

ABLATIONS = (
    "p-punc:signal_model=aligned",
    "p-punc:boundary=false",
    "p-punc:first=aligned",
    "p-punc:line_breaks=routed",
)
"""The default router with one rule changed."""

GROUPS: dict[str, tuple[str, ...]] = {
    "all": tuple(name for name in METHODS if name != "plain"),
    "routers": tuple(name for name, method in METHODS.items() if method.forwards is None),
    "baselines": tuple(name for name, method in METHODS.items() if method.forwards and method.pair),
    "prompting": ("in-context", "paraphrase", "system-prompt"),
    "ablations": ABLATIONS,
}
"""Names for several methods at once."""


def find_methods(names: Sequence[str], pair: bool = True) -> list[Method]:
    """Return methods by name, each once.

    Args:
        names: Names from `METHODS` or `GROUPS`; a name may carry settings of `SamplingParams` that
            change it, as in ``p-punc:boundary=false``. Left empty, all that suit the model.
        pair: Whether the model is a pair.

    Raises:
        ParameterError: There is no such method or setting, or it needs a pair.
    """
    suited = GROUPS["all"] if pair else tuple(n for n, m in METHODS.items() if not m.pair)
    found: dict[str, Method] = {}
    for name in [each for group in names or suited for each in GROUPS.get(group, (group,))]:
        method = find_method(name)
        if method.pair and not pair:
            remedy = f"Without one there are {', '.join(suited)}."
            raise ParameterError("method", "one that needs no pair", name, remedy)
        found[name] = method
    return list(found.values())


def find_method(name: str) -> Method:
    """Return a method by its name, perhaps with settings that change it.

    Raises:
        ParameterError: There is no such method or setting, or a value is not allowed.
    """
    plain, _, changes = name.partition(":")
    if plain not in METHODS:
        known = (*METHODS, *GROUPS)
        remedy = f"{nearest(plain, known)}Routers take settings, as in p-punc:boundary=false."
        raise ParameterError("method", f"one of {', '.join(known)}", name, remedy)
    method = METHODS[plain]
    if not changes:
        return method
    settings = dict(method.settings)
    known = tuple(SamplingParams.model_fields)
    for change in sorted(changes.split(",")):
        each, _, value = change.partition("=")
        if each not in known:
            remedy = f"{nearest(each, known)}Known settings: {', '.join(known)}."
            raise ParameterError("method", "changed by settings of SamplingParams", name, remedy)
        try:
            settings[each] = json.loads(value)
        except ValueError:
            settings[each] = value
    SamplingParams(**settings)  # complains now rather than in the middle of a run
    return replace(method, name=name, settings=settings)
