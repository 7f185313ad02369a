"""Routers: which model gives the next token, said in one word such as ``p-punc``.

A router joins an optional *logit rule* (``p``, ``h``, ``rand`` or ``nudge``), steered by ``gamma``,
to optional *content rules* (``punc``, ``fc``). A content rule hands its class of tokens to the
aligned model first; the logit rule decides the rest. Every logit rule is monotone: a larger gamma
never gives the base model fewer tokens, and ``gamma=0`` is the aligned model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from .errors import ParameterError, nearest

Source = Literal["base", "aligned"]
LogitRule = Literal["p", "h", "rand", "nudge"]
ContentRule = Literal["punc", "fc"]


@runtime_checkable
class Router(Protocol):
    """A router of the user's own.

    ``route`` receives a `RouteInputs` of ``r`` rows and returns a boolean tensor of shape ``(r,)``,
    true where the base model is to give the token. Bans and word boundaries still apply after it.
    """

    def route(self, inputs: Any) -> Any:
        """Choose a side for each row."""


@dataclass(frozen=True)
class RouterSpec:
    """What a router's name means.

    Attributes:
        name: The name as written by users.
        rule: The logit rule; None where the content rules alone decide, or where one side rules.
        content: Content rules: classes of tokens that always go to the aligned model.
        only: The side that gives every token, for the degenerate routers.
    """

    name: str
    rule: LogitRule | None = None
    content: frozenset[ContentRule] = frozenset()
    only: Source | None = None

    def threshold(self, gamma: float) -> float:
        """Return the raw threshold behind a gamma.

        ``p``: a probability; ``h``: an entropy in nats (infinite at gamma 0); ``rand``: a
        probability; ``nudge``: the certainty above which the base model speaks.
        """
        if self.rule == "h":
            return -math.log(gamma) if gamma > 0 else math.inf
        return 1 - gamma if self.rule == "nudge" else gamma

    def gamma(self, threshold: float) -> float:
        """Return the gamma behind a raw threshold, the inverse of `threshold`.

        Raises:
            ParameterError: The threshold is out of the rule's range, or there is no logit rule.
        """
        if self.rule is None:
            raise ParameterError(
                "threshold",
                f"unset for router {self.name!r}, which has no logit rule",
                threshold,
                "Leave it out, or use a router such as 'p-punc'.",
            )
        if self.rule == "h":
            if threshold < 0:
                raise ParameterError(
                    "threshold",
                    "an entropy of at least 0 nats",
                    threshold,
                    "Raise it, or use gamma.",
                )
            return math.exp(-threshold)
        if not 0 <= threshold <= 1:
            raise ParameterError(
                "threshold",
                "a probability in [0, 1]",
                threshold,
                "Move it into range, or use gamma.",
            )
        return 1 - threshold if self.rule == "nudge" else threshold


def _specs() -> dict[str, RouterSpec]:
    rules: dict[str, LogitRule] = {"p": "p", "h": "h", "rand": "rand"}
    contents: dict[str, frozenset[ContentRule]] = {
        "punc": frozenset({"punc"}),
        "fc": frozenset({"fc"}),
        "punc-fc": frozenset({"punc", "fc"}),
    }
    specs = [RouterSpec(name, rule) for name, rule in rules.items()]
    specs += [RouterSpec(name, content=content) for name, content in contents.items()]
    specs += [
        RouterSpec(f"{name}-{suffix}", rule, content)
        for name, rule in rules.items()
        for suffix, content in contents.items()
    ]
    specs += [RouterSpec("base", only="base"), RouterSpec("aligned", only="aligned")]
    specs.append(RouterSpec("nudge", "nudge"))
    return {spec.name: spec for spec in specs}


ROUTERS: dict[str, RouterSpec] = _specs()
"""Every router by its name."""


def resolve_router(router: str | Router) -> RouterSpec:
    """Return what a router means.

    Args:
        router: A name from `ROUTERS`, or an object with a ``route`` method.

    Raises:
        ParameterError: The name is unknown, or the object has no ``route`` method.
    """
    if isinstance(router, str) and router.lower() in ROUTERS:
        return ROUTERS[router.lower()]
    if not isinstance(router, str | type) and callable(getattr(router, "route", None)):
        return RouterSpec(type(router).__name__)
    hint = nearest(router, ROUTERS) if isinstance(router, str) else ""
    raise ParameterError(
        "router",
        f"one of {', '.join(ROUTERS)}, or an object with a route() method",
        router,
        f"{hint}The default is 'p-punc'.",
    )
