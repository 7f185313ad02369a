"""What comes out of decoding: tokens with their provenance, summed up in completions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from .notebook import answer_html, how_decoded
from .routing import Source
from .tool_calls import CallPiece, ToolCall

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


Distribution = Source | Literal["sampled"]
"""Whose most probable tokens: a side's raw ones, or those of the distribution sampled from."""


class Alternative(NamedTuple):
    """A token that could have come, with its probability in one of a step's distributions."""

    token_id: int
    text: str
    probability: float


class TokenStep(NamedTuple):
    """One token and where it came from.

    Probabilities and entropy (in nats) are those of the raw distributions at temperature 1 over the
    shared vocabulary, before bans, word boundaries and sampling filters. What is called sampled is
    of the distribution that the token was drawn from, after all of these. Routers that ask one
    model only (``aligned``, ``base``) need not run the other one: its numbers are nan, unless
    alternatives are asked for.

    Attributes:
        token_id: The token.
        text: The text it releases. A piece of a character, or of a possible stop string, waits for
            the token that settles it, so joining the texts gives the completion's text.
        source: Who gave the token.
        p_base: The base model's probability of the token.
        p_aligned: The aligned model's probability of the token.
        p_sampled: Its probability in the distribution that it was drawn from: its source's, with
            temperature, filters, bans, word boundary and grammar; 1 at temperature 0.
        p_max: The base model's highest probability at this step.
        entropy: The base model's entropy at this step.
        switched: Whether the source differs from the previous token's.
        sample: Which of the request's samples this belongs to.
        alternatives: The most probable tokens of each side, and (``sampled``) of the distribution
            that the token was drawn from, if asked for; none of probability 0.
        calls: The pieces of tool calls that it releases instead of text.
    """

    token_id: int
    text: str
    source: Source
    p_base: float
    p_aligned: float
    p_sampled: float
    p_max: float
    entropy: float
    switched: bool
    sample: int = 0
    alternatives: dict[Distribution, tuple[Alternative, ...]] | None = None
    calls: tuple[CallPiece, ...] = ()


class Usage(NamedTuple):
    """Tokens of a request: the prompt as each side was fed it, and what was decoded."""

    prompt_tokens: int
    base_prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """The aligned model's prompt and the completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Completion:
    """One finished sample.

    Attributes:
        text: The text; it never begins with white space (unless it goes on with a text) and never
            holds a stop string. Tool calls are not part of it.
        steps: Every decoded token, an end-of-turn token included.
        finish_reason: ``stop`` (end of turn or stop string), ``length``, ``tool_calls`` or
            ``cancelled``.
        usage: Tokens of prompt and completion.
        seed: The seed that reproduces it, drawn if none was given.
        sample: Which of the request's samples this is.
        router: The router's name.
        gamma: The gamma used; None where the router has no logit rule.
        tool_calls: The calls of the tools that were offered, wrong ones with their error.
        approximate: Whether a side of the pair only stands for a model: an adapter from
            `baco extract`, or a chat that tells no probabilities. Of pairs over endpoints: whether
            a token might be another one, had they told of all tokens and not of the likeliest.
    """

    text: str
    steps: tuple[TokenStep, ...]
    finish_reason: FinishReason
    usage: Usage
    seed: int
    sample: int
    router: str
    gamma: float | None
    tool_calls: tuple[ToolCall, ...] = ()
    approximate: bool = False

    @property
    def base_share(self) -> float:
        """Share of the tokens that the base model gave, from 0 to 1."""
        return sum(step.source == "base" for step in self.steps) / max(len(self.steps), 1)

    @property
    def switches(self) -> int:
        """How often the source changed."""
        return sum(step.switched for step in self.steps)

    @property
    def switches_per_100_tokens(self) -> float:
        """How often the source changed, per 100 tokens."""
        return 100 * self.switches / max(len(self.steps), 1)

    @property
    def sources(self) -> list[tuple[Source, str]]:
        """The text in pieces, each with who gave it."""
        return [
            (source, text)
            for source, group in groupby(self.steps, key=lambda step: step.source)
            if (text := "".join(step.text for step in group))
        ]

    def _repr_html_(self) -> str:
        """Return the text for a notebook, with a mark on what base gave."""
        calls = [f"{call.name}({call.arguments})" for call in self.tool_calls]
        about = how_decoded(self.router, self.gamma, self.base_share, self.seed)
        return answer_html(self.sources, *calls, *about, "approximate" * self.approximate)
