"""A row: one sample on its way, what it has been given, and where its tokens go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...core.outputs import FinishReason
from ...core.params import SamplingParams
from ...policy.grammar_masks import GrammarMatcher
from ...policy.noise import uniforms
from ...policy.routers import GuardedRouter
from ...policy.step import ALIGNED, BASE, NOBODY
from .prefix_cache import common
from .speculative import AcceptanceEstimate

DRAWN = 64
"""Uniforms are drawn for so many positions first, then for twice as many each time."""


class TokenOutput(NamedTuple):
    """One decided token, in ids; `alternatives` are (id, probability) pairs of base and aligned."""

    token: int
    source: int
    p_base: float
    p_aligned: float
    p_max: float
    entropy: float
    switched: bool
    alternatives: tuple[list[tuple[int, float]], list[tuple[int, float]]] | None = None


class TokenSink(Protocol):
    """Where a row's tokens go. Called from the worker: it must be quick and must not raise."""

    def accept(self, record: TokenOutput, reason: FinishReason | None) -> bool:
        """Take a token, and why it is the last if it is; return whether its text ends the row."""

    def fail(self, error: BaseException) -> None:
        """Learn that the row will not finish."""

    def cancelled(self) -> None:
        """Learn that the row has been cancelled."""


@dataclass(eq=False)
class Row:
    """One sample: what to decode, and how far it is.

    Attributes:
        prompts: Prompt ids of base and aligned, neither empty.
        params: The request's settings.
        seed: The request's seed.
        index: Which of the request's samples this is.
        end: Token ids that end it.
        limit: Most tokens to decode.
        room: How many would fit into both context windows.
        sink: Where its tokens go.
        guard: The user's own router, if any.
        matcher: What holds it to a grammar, if anything does.
        deadline: When it fails, on the monotonic clock.
        submitted: When it came, on the monotonic clock.
        cancelled: Whether it is to stop.
        finished: Whether nothing more is to come of it.
        error: What keeps it from going on, if anything does.
        stuck_at: How many tokens had been decided when memory ran out for it alone.
        owner: The source of its last token.
        tokens: What has been decided.
        read: How many tokens each side has seen, while its prompts are being read.
        pending: What each side is fed next.
        acceptance: How far its drafted come true.
    """

    prompts: tuple[tuple[int, ...], tuple[int, ...]]
    params: SamplingParams
    seed: int
    index: int
    end: frozenset[int]
    limit: int
    room: int
    sink: TokenSink
    guard: GuardedRouter | None = None
    matcher: GrammarMatcher | None = None
    deadline: float = math.inf
    submitted: float = 0.0
    cancelled: bool = False
    finished: bool = False
    error: BaseException | None = None
    stuck_at: int | None = None
    owner: int = NOBODY
    tokens: list[int] = field(default_factory=list)
    read: list[int] | None = None
    pending: tuple[int, int] = (0, 0)
    noise: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    acceptance: AcceptanceEstimate = field(default_factory=AcceptanceEstimate)

    def start(self, read: list[int]) -> None:
        """Get ready to be read from some positions on; the last tokens are left to be fed."""
        self.read = read
        self.pending = (self.history(BASE)[-1], self.history(ALIGNED)[-1])

    @property
    def decoded(self) -> int:
        """How many tokens have been decided."""
        return len(self.tokens)

    def history(self, side: int) -> tuple[int, ...]:
        """Return all that a side is to have seen before the next token is decided."""
        return (*self.prompts[side], *self.tokens) if self.tokens else self.prompts[side]

    def position(self, side: int) -> int:
        """Return the position at which the pending token is fed to a side."""
        return len(self.prompts[side]) - 1 + len(self.tokens)

    def seen(self, side: int) -> int:
        """Return how many tokens a side has seen."""
        return self.position(side) if self.read is None else self.read[side]

    def unread(self, side: int) -> int:
        """Return how many tokens a side has still to read."""
        return self.position(side) - self.seen(side)

    def shares(self, side: int, tokens: Sequence[int]) -> int:
        """Return how many of some tokens a side has seen in this row, from the first on."""
        length = common(self.prompts[side], tokens)
        if length == len(self.prompts[side]):
            length += common(self.tokens, tokens[length:])
        return min(length, self.seen(side))

    def noise_at(self, position: int) -> Any:
        """Return the uniforms of a position; they are drawn as they are needed.

        A row's limit may be more than memory holds, and is hardly ever reached.
        """
        if position >= len(self.noise):
            self.noise = uniforms(self.seed, self.index, 2 * position + DRAWN)
        return self.noise[position]
