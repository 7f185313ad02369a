"""A sequence: a request on its way, with what has been decided so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BacoError, too_late
from ..policy.noise import uniforms
from ..policy.params import NOBODY, PolicyParams
from ..text.token_space import TokenSpace
from .base import EngineRequest
from .faults import worker_failure

FIRST_UNIFORMS = 64
"""Uniforms are drawn for so many positions first, then for twice as many each time."""


@dataclass(eq=False)
class SequenceState:
    """A request and how far it is.

    Attributes:
        request: What is decoded.
        space: What each side has to read of the tokens.
        submitted: When it came, on the monotonic clock.
        policy: Its settings as tensors, once it has been admitted.
        tokens: The ids that have been decided.
        owner: The source of the last of them.
        finished: Whether nothing more is to come of it.
        error: What keeps it from going on, if anything does.
        stuck_at: How many tokens had been decided when memory ran out for it alone.
    """

    request: EngineRequest
    space: TokenSpace
    submitted: float
    policy: PolicyParams | None = None
    tokens: list[int] = field(default_factory=list)
    owner: int = NOBODY
    finished: bool = False
    error: BaseException | None = None
    stuck_at: int | None = None
    noise: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    @property
    def decoded(self) -> int:
        """How many tokens have been decided."""
        return len(self.tokens)

    def fed(self, side: int) -> Sequence[int]:
        """Return what a side has to read of the tokens that have been decided."""
        return self.space.feed(side, self.tokens)

    def history(self, side: int) -> tuple[int, ...]:
        """Return all that a side is to have read before the next token is decided."""
        prompt, fed = self.request.prompts[side], self.fed(side)
        return (*prompt, *fed) if fed else prompt

    def noise_at(self, position: int) -> Any:
        """Return the uniforms ``(2,)`` of a position, drawn as they are needed.

        A request's limit may be more than memory holds, and is hardly ever reached.
        """
        if position >= len(self.noise):
            count = 2 * position + FIRST_UNIFORMS
            self.noise = uniforms(self.request.seed, self.request.index, count)
        return self.noise[position]

    @contextmanager
    def keeping_errors(self) -> Iterator[None]:
        """Keep what the request's own matcher or sink raises for this sequence."""
        try:
            yield
        except BaseException as error:
            self.error = self.error or error

    def fail(self, error: BaseException) -> None:
        """End the sequence with an error, in a `WorkerError` if it is no `BacoError`.

        The error of the user's own router is kept as it is.
        """
        router = self.request.router
        of_router = router is not None and router.error is error
        self.error = error if of_router or isinstance(error, BacoError) else worker_failure(error)
        self.finished = True
        with suppress(BaseException):  # a sink that takes no error has nobody behind it
            self.request.sink.fail(self.error)

    def expire(self) -> None:
        """End the sequence because its time is over."""
        request = self.request
        self.fail(too_late(request.params.timeout, self.decoded, request.limit))

    def cancel(self) -> None:
        """Tell the sink that the request has been cancelled."""
        with self.keeping_errors():
            self.request.sink.cancelled()
        if self.error is not None:
            self.fail(self.error)
