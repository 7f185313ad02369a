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
            allowed = f"unset for router {self.name!r}, which has no logit rule"
            remedy = "Leave it out, or use a router such as 'p-punc'."
            raise ParameterError("threshold", allowed, threshold, remedy)
        if self.rule == "h":
            if threshold < 0:
                allowed, remedy = "an entropy of at least 0 nats", "Raise it, or use gamma."
                raise ParameterError("threshold", allowed, threshold, remedy)
            return math.exp(-threshold)
        if not 0 <= threshold <= 1:
            allowed, remedy = "a probability in [0, 1]", "Move it into range, or use gamma."
            raise ParameterError("threshold", allowed, threshold, remedy)
        return 1 - threshold if self.rule == "nudge" else threshold


RULES: tuple[LogitRule, ...] = ("p", "h", "rand")
CONTENTS: tuple[tuple[ContentRule, ...], ...] = (("punc",), ("fc",), ("punc", "fc"))

ROUTERS: dict[str, RouterSpec] = {
    spec.name: spec
    for spec in (
        *(RouterSpec(rule, rule) for rule in RULES),
        *(RouterSpec("-".join(content), content=frozenset(content)) for content in CONTENTS),
        *(
            RouterSpec("-".join((rule, *content)), rule, frozenset(content))
            for rule in RULES
            for content in CONTENTS
        ),
        RouterSpec("base", only="base"),
        RouterSpec("aligned", only="aligned"),
        RouterSpec("nudge", "nudge"),
    )
}
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
    if isinstance(router, Router) and not isinstance(router, type) and callable(router.route):
        return RouterSpec(type(router).__name__)
    hint = nearest(router, ROUTERS) if isinstance(router, str) else ""
    raise ParameterError(
        "router",
        f"one of {', '.join(ROUTERS)}, or an object with a route() method",
        router,
        f"{hint}The default is 'p-punc'.",
    )
