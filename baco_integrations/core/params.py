"""What a caller can ask of one request."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    FailFast,
    Field,
    field_validator,
    model_validator,
)

from .errors import ParameterError, nearest
from .request_schema import TOOL_FORM, Tool, check_json_schema, check_tools
from .routing import ROUTERS, Router, RouterSpec, Source, resolve_router
from .settings import Checked, Integer, param

# On the embedded pair these two give most distinct valid answers at a valid share well above .9;
# tests/benchmarks/RESULTS.md has the table.
DEFAULT_GAMMA = 0.6
"""Diversity where none is asked for."""
DEFAULT_TEMPERATURE = 0.7
"""Temperature where none is asked for."""
DEFAULT_MAX_TOKENS = 256
"""Longest answer, in tokens, where nothing else is asked for."""

KNOBS = ("gamma", "threshold")
"""Settings that say the same thing: what is given takes the place of the other one's default."""

Temperature = Annotated[float, Field(ge=0, le=100)]
TopK = Annotated[Integer, Field(ge=0, lt=2**31)]
TopP = Annotated[float, Field(gt=0, le=1)]
MinP = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]

# What is allowed, the remedy and the help of settings that each side may have of its own.
_TEMPERATURE = (
    "a number from 0 to 100",
    "Use 0 for greedy decoding, 1 for plain sampling.",
    "0 is greedy, 1 plain sampling.",
)
_TOP_K = (
    "a whole number from 0 to 2**31 - 1",
    "Use 0 to switch it off.",
    "Keep so many of the most probable tokens; 0 is off.",
)
_TOP_P = (
    "a number above 0 and at most 1",
    "Use 1 to switch it off.",
    "Keep the smallest set of tokens with this probability; 1 is off.",
)
_MIN_P = (
    "a number from 0 to 1",
    "Use 0 to switch it off.",
    "Drop tokens less probable than this share of the best one; 0 is off.",
)


class SideSampling(Checked):
    """Sampling settings of one side; what is left out is shared with the other."""

    temperature: Temperature | None = param(None, *_TEMPERATURE, unset="the shared one")
    top_k: TopK | None = param(None, *_TOP_K, unset="the shared one")
    top_p: TopP | None = param(None, *_TOP_P, unset="the shared one")
    min_p: MinP | None = param(None, *_MIN_P, unset="the shared one")


def as_side(value: object) -> object:
    """Make `SideSampling` of a dict, and return any other value as it is."""
    if not isinstance(value, dict):
        return value
    if not all(isinstance(name, str) for name in value):
        raise ValueError
    unknown = [name for name in value if name not in SideSampling.model_fields]
    return SideSampling(**({name: value[name] for name in unknown[:1]} or value))


def as_tuple(value: object) -> object:
    """Make a tuple of a list, of a single string, or of None."""
    if isinstance(value, list):
        return tuple(value)
    return () if value is None else (value,) if isinstance(value, str) else value


Side = Annotated[SideSampling, BeforeValidator(as_side)]
Texts = Annotated[tuple[Text, ...], FailFast(), BeforeValidator(as_tuple)]
_SIDE = ("a SideSampling or a dict of its settings", "For example {'temperature': 0.7}.")


class SamplingParams(Checked):
    """How one request is decoded; everything has a default.

    What is enforced of JSON schemas is listed in `baco_integrations.core.request_schema`.

    Raises:
        ParameterError: A value is not allowed; raised when the object is made.
    """

    gamma: Annotated[float, Field(ge=0, le=1)] | None = param(
        None,
        "a number from 0 (the aligned model) to 1 (as diverse as it gets)",
        "Raise it for variety, lower it for safety.",
        unset=f"{DEFAULT_GAMMA:g}",
    )
    """Diversity: 0 is the aligned model, 1 as diverse as it gets."""
    threshold: float | None = param(
        None,
        "a finite number, the router's raw threshold",
        "Use gamma if in doubt.",
        unset="gamma decides",
    )
    """The router's raw threshold instead of gamma: a probability, or nats for the router h."""
    router: Any = param(
        "p-punc",
        "the name of a router, or an object with a route() method",
        "The default is 'p-punc'.",
        names=ROUTERS,
    )
    """Who gives the next token: a rule (p, h, rand, nudge), classes of tokens that are left to
    aligned (punc, fc, punc-fc), or both, as in p-punc; base and aligned decode alone."""
    signal_model: Literal["base", "aligned"] = param(
        "base",
        "'base' or 'aligned'",
        "It names the model whose top-1 token the content rule reads.",
    )
    """The model whose most probable token tells the content rules (punc, fc) what comes next."""
    first: Literal["routed", "aligned"] = param(
        "routed", "'routed' or 'aligned'", "It says who gives the first token."
    )
    """Who gives the first token: the side that the router chooses, or always aligned."""
    boundary: bool = param(True, "True or False", "False lets the sides switch inside a word.")
    """Whether sides switch only where a word starts."""
    line_breaks: Literal["aligned", "routed"] = param(
        "aligned", "'aligned' or 'routed'", "'routed' lets the base model break lines."
    )
    """Whether line breaks come from aligned alone, or from either side as it is routed."""
    temperature: Temperature = param(DEFAULT_TEMPERATURE, *_TEMPERATURE)
    top_k: TopK = param(0, *_TOP_K)
    top_p: TopP = param(1.0, *_TOP_P)
    min_p: MinP = param(0.0, *_MIN_P)
    base: Side | None = param(None, *_SIDE, unset="the shared ones")
    """Sampling settings of the base side alone, over the shared ones."""
    aligned: Side | None = param(None, *_SIDE, unset="the shared ones")
    """Sampling settings of the aligned side alone, over the shared ones."""
    seed: Annotated[Integer, Field(ge=0, lt=2**64)] | None = param(
        None,
        "a whole number from 0 to 2**64 - 1, or None",
        "Leave it out for a fresh sample.",
        unset="a fresh one",
    )
    """Repeats a result, but for rounding, which may turn near ties in bfloat16 and float16."""
    n: Annotated[Integer, Field(ge=1, le=4096)] = param(
        1, "a whole number from 1 to 4096", "Each sample is one completion."
    )
    """Number of answers, which differ from one another under one seed."""
    max_tokens: Annotated[Integer, Field(ge=1)] = param(
        DEFAULT_MAX_TOKENS,
        "a whole number of at least 1",
        "It limits the tokens of each completion.",
    )
    """Longest answer, in tokens."""
    stop: Texts = param(
        (), "a non-empty string or a list of them", "Leave it out if none is wanted."
    )
    """Text that ends an answer and is not part of it."""
    alternatives: Annotated[Integer, Field(ge=0, le=64)] = param(
        0,
        "a whole number from 0 to 64",
        "It asks for each side's most probable tokens at each step.",
    )
    """How many of the most probable tokens come with each token: of each side, and of what it was
    drawn from."""
    json_schema: Annotated[dict[str, Any] | None, AfterValidator(check_json_schema)] = param(
        None,
        "a JSON schema as a dict",
        "For example {'type': 'object'} for any object.",
        unset="any text",
    )
    """The text is JSON that follows this schema. Its structure comes from aligned, the values of
    strings are routed."""
    show_schema: bool = param(True, "True or False", "False leaves the prompt as it is.")
    """Whether the schema is written into the aligned model's prompt."""
    regex: Text | None = param(
        None, "a regular expression", "For example r'\\d{4}-\\d{2}-\\d{2}'.", unset="any text"
    )
    """The whole text matches this pattern, in the syntax of Rust."""
    choices: Texts = param((), "a list of non-empty strings", "For example ['yes', 'no'].")
    """The text is one of these."""
    tools: Annotated[tuple[Any, ...], BeforeValidator(as_tuple), AfterValidator(check_tools)] = (
        param((), "a list of tools", f"Each is a dict like {TOOL_FORM}.")
    )
    """Tools that may be called, as OpenAI-style dicts of type and function."""
    tool_choice: str = param(
        "auto", "'auto', 'any', 'none' or the name of a tool", "'any' asks for at least one call."
    )
    """Whether tools are called: auto, any (at least one call), none, or the name of one tool."""
    parallel_tool_calls: bool = param(
        True, "True or False", "False asks for one call at most in an answer."
    )
    """Whether one answer may hold several calls."""
    raw: bool = param(False, "True or False", "True feeds a text to both models as it stands.")
    """Whether the prompt is one text (or aligned's token ids) that both models go on with as it
    stands: no template, no base prompt, and control tokens that it spells are control tokens. The
    answer keeps the white space that it begins with, and a JSON schema is not shown."""
    continue_final_message: bool = param(
        False, "True or False", "True goes on with the assistant's last message."
    )
    """Whether the last message, which is the assistant's, is the beginning of the answer. The
    answer holds only what is new, and keeps the white space that it begins with."""
    timeout: Annotated[float, Field(gt=0)] | None = param(
        None,
        "a number of seconds above 0",
        "Leave it out to wait as long as it takes.",
        unset="no limit",
    )
    """Seconds after which the request fails, rendering and waiting included."""

    @field_validator("router")
    @classmethod
    def _check_router(cls, router: str | Router) -> str | Router:
        resolve_router(router)
        return router

    @model_validator(mode="after")
    def _check_gamma_or_threshold(self) -> SamplingParams:
        if self.threshold is not None:
            if self.gamma is not None:
                raise ParameterError(
                    "threshold",
                    "unset where gamma is given",
                    self.threshold,
                    "Both say the same thing: give one of them.",
                )
            self.spec.gamma(self.threshold)
        if self.gamma is not None and isinstance(self.router, str) and self.spec.rule is None:
            warn_unused_gamma(self.spec.name)
        return self

    @model_validator(mode="after")
    def _check_form(self) -> SamplingParams:
        given = {"json_schema": self.json_schema, "regex": self.regex, "choices": self.choices}
        forms = [name for name, value in given.items() if value not in (None, ())]
        # A schema may stand beside tools: then the answer is either calls or that JSON.
        calls = ["tools"] if self.offered else []
        if len(forms) > 1 or (calls and forms and (self.forced_calls or forms != ["json_schema"])):
            raise ParameterError(
                forms[-1],
                f"left out where {[*calls, *forms][0]} is given",
                given[forms[-1]],
                "A text has one form: give one of them.",
            )
        if any(choice[0].isspace() for choice in self.choices):
            raise ParameterError(
                "choices",
                "texts that do not begin with white space",
                self.choices,
                "Strip them: white space in front of a text is dropped.",
            )
        return self

    @model_validator(mode="after")
    def _check_tool_choice(self) -> SamplingParams:
        names = [tool["function"]["name"] for tool in self.tools]
        known = ("auto", "any", "none", *names) if names else ("auto", "none")
        if self.tool_choice not in known:
            listed = f"one of {', '.join(known)}"
            raise ParameterError(
                "tool_choice",
                listed if names else "'auto' or 'none' where no tool is given",
                self.tool_choice,
                f"{nearest(self.tool_choice, known)}Tools are given as tools=[...].",
            )
        return self

    @model_validator(mode="after")
    def _check_prompt(self) -> SamplingParams:
        shown = self.json_schema is not None and "show_schema" in self.model_fields_set
        refused = {
            "continue_final_message": self.raw and self.continue_final_message,
            "tools": self.raw and bool(self.offered),
            "show_schema": self.raw and shown and self.show_schema,
            "tool_choice": self.continue_final_message and self.forced_calls,
        }
        for name in (name for name, wrong in refused.items() if wrong):
            other = "raw" if self.raw else "continue_final_message"
            raise ParameterError(
                name,
                f"left out where {other} is given",
                getattr(self, name),
                "A raw prompt is shown to the models as it stands."
                if self.raw
                else "What goes on with a text begins with no call.",
            )
        return self

    @property
    def continues(self) -> bool:
        """Whether what is decoded goes on with a text."""
        return self.raw or self.continue_final_message

    @property
    def forced_calls(self) -> bool:
        """Whether the answer must call a tool."""
        return self.tool_choice not in ("auto", "none")

    @property
    def offered(self) -> tuple[Tool, ...]:
        """The tools that the answer may call."""
        return () if self.tool_choice == "none" else self.tools

    @property
    def spec(self) -> RouterSpec:
        """What the router's name means."""
        return resolve_router(self.router)

    @property
    def effective_gamma(self) -> float:
        """The gamma that decoding uses, whether it came as gamma, as a threshold or not at all."""
        if self.threshold is not None:
            return self.spec.gamma(self.threshold)
        return DEFAULT_GAMMA if self.gamma is None else self.gamma

    def side(self, source: Source) -> SideSampling:
        """Return one side's complete sampling settings."""
        own = self.base if source == "base" else self.aligned
        shared = self.model_dump(include=set(SideSampling.model_fields))
        return SideSampling(**shared | (own.model_dump(exclude_none=True) if own else {}))


@cache
def warn_unused_gamma(router: str) -> None:
    """Warn that a router ignores the gamma that it was given."""
    warnings.warn(
        f"router {router!r} has no logit rule, so gamma has no effect; leave gamma out, or use a "
        "router such as 'p-punc'",
        UserWarning,
        stacklevel=5,
    )
