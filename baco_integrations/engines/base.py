"""The protocol `Engine`: all that a decoder knows of what turns requests into tokens.

An engine gets requests whose prompts are token ids, one for each sample, and puts each token into
its request's sink as it is decided. Text, messages and frameworks stay outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Protocol

from pydantic import Field
from torch import Tensor

from ..core.errors import ParameterError
from ..core.outputs import FinishReason
from ..core.params import SamplingParams
from ..core.settings import Checked, Integer, param
from ..policy.grammar_masks import GrammarMatcher
from ..policy.routers import GuardedRouter
from .metrics import Metrics

Lookahead = Literal["auto", "off"] | int
"""How many tokens to draft at a time: as many as save time, none, or so many."""

Graphs = Literal["auto", "on", "off"]
"""Whether forwards have fixed shapes: on CUDA devices, everywhere, nowhere."""


Mix = Callable[[Tensor, Tensor], Tensor]
"""Replaces aligned's logits ``(r, any)``, given base's and its own."""


class EngineSettings(Checked):
    """How an engine is opened.

    None of these changes a text, but for rounding: it differs with the shape of a forward, and in
    bfloat16 and float16 it may turn near ties.

    Raises:
        ParameterError: A value is not allowed; raised when the object is made.
    """

    max_rows: Annotated[Integer, Field(ge=1)] = param(
        32, "a whole number of at least 1", "Leave it out if in doubt."
    )
    """Most samples that are decoded at once; further ones wait."""
    max_waiting: Annotated[Integer, Field(ge=1)] = param(
        65536, "a whole number of at least 1", "Leave it out if in doubt."
    )
    """Most samples that wait; beyond that, requests are refused."""
    lookahead: Literal["auto", "off"] | Annotated[Integer, Field(ge=0, le=64)] = param(
        "auto",
        "'auto', 'off', or a whole number up to 64",
        "'auto' drafts tokens where that saves time.",
    )
    """How many tokens base drafts before aligned checks them in one forward: auto as many as save
    time, off none, or so many. The text is that of off, but for rounding."""
    prefix_bytes: Annotated[Integer, Field(ge=0)] = param(
        2**30, "a whole number of at least 0", "Leave it out if in doubt."
    )
    """Most bytes of prompts and answers to remember: what begins with the same tokens, as the next
    turn of a chat does, is not read again."""
    kv_bytes: Annotated[Integer, Field(ge=1)] | None = param(
        None, "a whole number of at least 1, or None", "Leave it out if in doubt."
    )
    """Most bytes of keys and values of both models, with those that are remembered: a prompt that
    needs more is refused, and rows that need more together wait. Left out, what the device has
    free."""
    graphs: Graphs = param("off", "'auto', 'on' or 'off'", "'auto' is 'on' for CUDA devices.")
    """Whether forwards are recorded as CUDA graphs and replayed, which saves launching their
    kernels: auto on CUDA devices; on elsewhere too, where it saves nothing. Tested without a GPU
    only."""


class TokenOutput(NamedTuple):
    """One decided token, in ids. The numbers of a model that did not run for it are nan.

    Attributes:
        token: The token.
        source: Who gave it: `BASE` or `ALIGNED`.
        p_base: Base's probability of it, in the raw distribution.
        p_aligned: Aligned's probability of it, in the raw distribution.
        p_sampled: Its probability in the distribution that it was drawn from.
        p_max: Base's highest probability.
        entropy: Base's entropy, in nats.
        switched: Whether the previous token came from the other side.
        alternatives: The most probable tokens of base, of aligned, and of the distribution that
            was sampled from, as (id, probability) pairs.
    """

    token: int
    source: int
    p_base: float
    p_aligned: float
    p_sampled: float
    p_max: float
    entropy: float
    switched: bool
    alternatives: tuple[list[tuple[int, float]], ...] | None = None


class TokenSink(Protocol):
    """Where a request's tokens go. Called from the engine's thread: it must be quick.

    Attributes:
        approximate: Whether what comes may be other than the definition gives; engines set it.
    """

    approximate: bool

    def put(self, token: TokenOutput, finish: FinishReason | None) -> bool:
        """Take a token, and why it is the last one if it is; return whether its text ends here."""

    def fail(self, error: BaseException) -> None:
        """Take the error that ended the request."""

    def cancelled(self) -> None:
        """Take notice that the request has been cancelled."""


@dataclass(eq=False)
class EngineRequest:
    """One sample that is to be decoded.

    Attributes:
        prompts: Prompt ids of base and aligned, neither empty.
        params: The settings.
        seed: The seed of the request that the sample belongs to.
        index: Which of that request's samples this is.
        end: Token ids that end it.
        limit: Most tokens to decode.
        room: How many tokens fit into both context windows behind the prompts.
        sink: Where its tokens go.
        router: The user's own router, if there is one.
        matcher: What holds it to a grammar, if anything does.
        deadline: When it fails, on the monotonic clock.
        cancelled: Whether its engine has been asked to cancel it.
    """

    prompts: tuple[tuple[int, ...], tuple[int, ...]]
    params: SamplingParams
    seed: int
    index: int
    end: frozenset[int]
    limit: int
    room: int
    sink: TokenSink
    router: GuardedRouter | None = None
    matcher: GrammarMatcher | None = None
    deadline: float = math.inf
    cancelled: bool = False


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; what it cannot is refused when a request is submitted.

    Attributes:
        exact_seed: A seed repeats a text.
        grammar: Schemas, patterns, choices and tools are enforced while decoding.
        custom_router: Routers of the users' own are asked.
        alternatives: Each side's most probable tokens are reported.
    """

    exact_seed: bool = True
    grammar: bool = True
    custom_router: bool = True
    alternatives: bool = True

    def require(self, request: EngineRequest) -> None:
        """Refuse a request that asks for what the engine cannot do.

        Raises:
            ParameterError: It does; the message names the parameter.
        """
        params = request.params
        asked = {
            "seed": params.seed is not None and not self.exact_seed,
            "json_schema, regex, choices and tools": request.matcher and not self.grammar,
            "router": request.router and not self.custom_router,
            "alternatives": params.alternatives and not self.alternatives,
        }
        for parameter, refused in asked.items():
            if refused:
                raise ParameterError(
                    parameter,
                    "left out with this engine, which cannot do it",
                    "a request that sets it",
                    "Leave it out, or decode with the pair loaded in this process.",
                )


class Engine(Protocol):
    """Turns requests into tokens; safe to use from many threads at once.

    Attributes:
        capabilities: What it can do.
        settings: How it was opened.
        context: Context windows of base and aligned, in tokens.
        metrics: What it has done so far.
    """

    capabilities: Capabilities
    settings: EngineSettings
    context: tuple[int, int]
    metrics: Metrics

    def submit(self, requests: Sequence[EngineRequest]) -> None:
        """Queue requests, all or none.

        Raises:
            DecoderClosedError: The engine is closed, or this process was forked from its owner.
            ParameterError: A request asks for what the engine cannot do.
            QueueFullError: There is no room for all of them.
        """

    def cancel(self, requests: Sequence[EngineRequest]) -> None:
        """Ask requests to stop. Those that have finished are unharmed."""

    def close(self) -> None:
        """Stop; requests that have not finished fail with `DecoderClosedError`."""

    def stop(self) -> None:
        """Ask the engine to stop without waiting for it, as a garbage collector must."""

    def require_open(self) -> None:
        """Refuse a caller who would wait for ever.

        Raises:
            DecoderClosedError: The engine is closed, or this process was forked from its owner.
            DecoderError: The caller is the engine's own thread.
        """

    def require_reader(self) -> None:
        """Refuse a reader to whom the engine cannot deliver tokens.

        Raises:
            DecoderClosedError: This process was forked from the engine's owner.
            DecoderError: The caller is the engine's own thread.
        """

    @property
    def closed(self) -> bool:
        """Whether it has been closed, or stayed behind in a parent process."""

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process that runs it."""

    @property
    def running(self) -> int:
        """Number of requests that are being prefilled or decoded."""

    @property
    def waiting(self) -> int:
        """Number of requests that wait for their turn."""
