"""What a caller can ask of one request."""

from __future__ import annotations

import json
import re
import warnings
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from .errors import ParameterError, nearest
from .plain import require_whole
from .routing import Router, RouterSpec, resolve_router
from .settings import Checked, Integer, param

# On the embedded pair these two give most distinct valid answers at a valid share well above .9;
# tests/benchmarks/RESULTS.md has the table.
DEFAULT_GAMMA = 0.6
"""Diversity where none is asked for."""
DEFAULT_TEMPERATURE = 0.7
"""Temperature where none is asked for."""

_Temperature = Annotated[float, Field(ge=0, le=100)]
_TopK = Annotated[Integer, Field(ge=0, lt=2**31)]
_TopP = Annotated[float, Field(gt=0, le=1)]
_MinP = Annotated[float, Field(ge=0, le=1)]

_TEMPERATURE = ("a number from 0 to 100", "Use 0 for greedy decoding, 1 for plain sampling.")
_TOP_K = ("a whole number from 0 to 2**31 - 1", "Use 0 to switch it off.")
_TOP_P = ("a number above 0 and at most 1", "Use 1 to switch it off.")
_MIN_P = ("a number from 0 to 1", "Use 0 to switch it off.")


class SideSampling(Checked):
    """Sampling settings of one side; what is left out is shared with the other."""

    temperature: _Temperature | None = param(None, *_TEMPERATURE)
    top_k: _TopK | None = param(None, *_TOP_K)
    top_p: _TopP | None = param(None, *_TOP_P)
    min_p: _MinP | None = param(None, *_MIN_P)


def _side(value: object) -> object:
    if not isinstance(value, dict):
        return value
    if not all(isinstance(name, str) for name in value):
        raise ValueError
    return SideSampling(**value)


def _strings(value: object) -> object:
    if value is None:
        return ()
    return (
        (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    )


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else () if value is None else value


def _is_json(schema: object) -> bool:
    try:
        json.dumps(schema)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


_DEEPEST = 127
"""Most objects and lists inside one another in a schema: what the grammar engine reads."""


def _require_shallow(value: Any, parameter: str, around: int = 0) -> None:
    """Refuse what nests deeper than a schema may, `around` levels around the schema aside."""
    level = [value]
    for _ in range(_DEEPEST + around + 1):
        level = [each for each in level if isinstance(each, dict | list | tuple)]
        if not level:
            return
        level = [
            part for each in level for part in (each.values() if isinstance(each, dict) else each)
        ]
    raise ParameterError(
        parameter,
        f"a JSON schema of at most {_DEEPEST} objects and lists inside one another",
        "a deeper one",
        "Give what nests a name in $defs, and refer to it.",
    )


def _schema(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    _require_shallow(schema, "json_schema")
    if not _is_json(schema):
        raise ValueError
    require_whole(json.dumps(schema, ensure_ascii=False), "json_schema", ParameterError)
    return schema


def _tools(tools: tuple[Any, ...]) -> tuple[Tool, ...]:
    """Check tools; one that is given twice is one."""
    known: dict[str, Tool] = {}
    for number, given in enumerate(tools):
        _require_shallow(given, "tools", 2)
        tool = _tool(given, f"tools[{number}]")
        name = tool["function"]["name"]
        if _untitled(known.setdefault(name, tool)) != _untitled(tool):
            raise ParameterError(
                f"tools[{number}].function.name",
                "a name that no other tool has",
                name,
                "Calls name their tool by it: give one of them another name, or leave it out.",
            )
    return tuple(known.values())


def _untitled(schema: Any) -> Any:
    """Leave out the titles, which pydantic gives to each field and frameworks drop."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _untitled(part)
        for key, part in schema.items()
        if key != "title" or isinstance(part, dict)
    }


def _tool(tool: Any, place: str) -> Tool:
    """Check a tool; an absent description or schema is filled in."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type", "function") != "function":
        raise ParameterError(place, f"a dict like {_TOOL}", tool, "It is the form of OpenAI's API.")
    name, schema = function.get("name"), function.get("parameters") or {}
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ParameterError(
            f"{place}.function.name",
            "a name of 1 to 128 letters, digits, '_', '-' and '.'",
            name,
            "Calls name their tool by it.",
        )
    is_object = isinstance(schema, dict) and schema.get("type", "object") == "object"
    if not is_object or not _is_json(schema):
        raise ParameterError(
            f"{place}.function.parameters",
            "a JSON schema of type 'object'",
            schema,
            f"The arguments of {name!r} are its properties; leave it out where there are none.",
        )
    if not _is_json(function):
        raise ParameterError(f"{place}.function", "JSON data", function, "It is told as JSON.")
    require_whole(json.dumps(function, ensure_ascii=False), f"{place}.function", ParameterError)
    filled = {"description": "", **function, "parameters": {**_NO_ARGUMENTS, **schema}}
    return {"type": "function", "function": filled}


_NAME = re.compile(r"[\w.-]{1,128}")
_NO_ARGUMENTS = {"type": "object", "properties": {}}
_TOOL = "{'type': 'function', 'function': {'name': ..., 'parameters': ...}}"

Tool = dict[str, Any]
"""A tool, as an OpenAI-style dict."""

_Side = Annotated[SideSampling, BeforeValidator(_side)]
_SIDE = ("a SideSampling or a dict of its settings", "For example {'temperature': 0.7}.")


class SamplingParams(Checked):
    """How one request is decoded; everything has a default.

    Attributes:
        gamma: Diversity, from 0 (the aligned model) to 1; 0.6 if neither it nor `threshold` is set.
        threshold: The router's raw threshold instead of gamma: a probability, or nats for ``h``.
        router: Who gives the next token: a name from `ROUTERS`, or an object with ``route``.
        signal_model: Whose top-1 token the content rules look at.
        first: Who gives the first token: the routed side, or always ``aligned``.
        boundary: Whether sides switch only where a word starts.
        line_breaks: ``aligned`` keeps line breaks from the base model, ``routed`` allows them.
        temperature: 0 is greedy.
        top_k: Keep so many of the most probable tokens; 0 is off.
        top_p: Keep the smallest set of tokens with this probability; 1 is off.
        min_p: Drop tokens less probable than this share of the best; 0 is off.
        base: Sampling settings of the base side alone, over the shared ones.
        aligned: Sampling settings of the aligned side alone, over the shared ones.
        seed: Repeats a result; a fresh one is drawn and told if it is left out.
        n: Number of samples. They differ from one another under one seed.
        max_tokens: Most tokens of each sample.
        stop: Strings that end the text; they are not part of it.
        alternatives: How many of each side's most probable tokens to tell at each step.
        json_schema: The text is JSON that follows this schema. Structure is aligned's, the values
            of strings are routed.
        show_schema: Whether the aligned model's prompt tells the schema.
        regex: The text matches this pattern (Rust's syntax) as a whole.
        choices: The text is one of these.
        tools: Tools that may be called, as OpenAI-style dicts of ``type`` and ``function``.
        tool_choice: ``auto``, ``any`` (at least one call), ``none``, or the name of one tool.
        parallel_tool_calls: Whether one answer may hold several calls.
        timeout: Seconds after which the request fails, rendering and waiting included.

    A schema, `json_schema` or a tool's, is enforced while decoding but for what the grammar engine
    cannot express. That is left to whoever reads the result; objects have just the properties that
    they name, in their order, unless ``additionalProperties`` says otherwise.

    - Enforced: ``type``, ``enum`` and ``const`` to the last digit, ``anyOf``, ``allOf``, ``oneOf``
      whose parts exclude one another, ``$ref`` within the schema; ``properties``, ``required``,
      ``additionalProperties``, ``patternProperties``, ``propertyNames`` with just a pattern,
      ``minProperties`` and ``maxProperties``;
      ``items``, ``prefixItems``, ``minItems``, ``maxItems``; ``minLength``, ``maxLength``,
      ``pattern``, and ``format`` where it is ``date-time``, ``date``, ``time``, ``duration``,
      ``email``, ``hostname``, ``ipv4``, ``ipv6``, ``uuid``, ``uri`` or one of pydantic's
      ``base64``, ``ipv4network`` and the like, ``uuid1`` to ``uuid8``; ``minimum``, ``maximum``,
      ``exclusiveMinimum``, ``exclusiveMaximum``, ``multipleOf``.
    - Not enforced: other formats; ``uniqueItems``, ``contains``, ``not``, ``if``,
      other ``propertyNames``, ``dependentRequired``, ``dependentSchemas``,
      ``unevaluatedProperties``, ``unevaluatedItems``, and ``$dynamicRef``; ``oneOf`` whose parts
      overlap is as ``anyOf``;
      a pattern with look-around, word boundaries or back-references; patterns of properties that
      overlap; numbers of properties where some that are named are optional; bounds of numbers that
      are too wide for the engine; that names which are not given one by one do not repeat (a call
      or an object that repeats one is an error where it is read).

    A schema or a pattern that takes the engine longer than 10 seconds is refused.

    Raises:
        ParameterError: A value is not allowed; raised when the object is made.
    """

    gamma: Annotated[float, Field(ge=0, le=1)] | None = param(
        None,
        "a number from 0 (the aligned model) to 1 (as diverse as it gets)",
        "Raise it for variety, lower it for safety.",
    )
    threshold: float | None = param(
        None, "a finite number, the router's raw threshold", "Use gamma if in doubt."
    )
    router: Any = param("p-punc", "the name of a router", "The default is 'p-punc'.")
    signal_model: Literal["base", "aligned"] = param(
        "base",
        "'base' or 'aligned'",
        "It names the model whose top-1 token the content rule reads.",
    )
    first: Literal["routed", "aligned"] = param(
        "routed", "'routed' or 'aligned'", "It says who gives the first token."
    )
    boundary: bool = param(True, "True or False", "False lets the sides switch inside a word.")
    line_breaks: Literal["aligned", "routed"] = param(
        "aligned", "'aligned' or 'routed'", "'routed' lets the base model break lines."
    )
    temperature: _Temperature = param(DEFAULT_TEMPERATURE, *_TEMPERATURE)
    top_k: _TopK = param(0, *_TOP_K)
    top_p: _TopP = param(1.0, *_TOP_P)
    min_p: _MinP = param(0.0, *_MIN_P)
    base: _Side | None = param(None, *_SIDE)
    aligned: _Side | None = param(None, *_SIDE)
    seed: Annotated[Integer, Field(ge=0, lt=2**64)] | None = param(
        None, "a whole number from 0 to 2**64 - 1, or None", "Leave it out for a fresh sample."
    )
    n: Annotated[Integer, Field(ge=1, le=4096)] = param(
        1, "a whole number from 1 to 4096", "Each sample is one completion."
    )
    max_tokens: Annotated[Integer, Field(ge=1)] = param(
        256, "a whole number of at least 1", "It limits the tokens of each completion."
    )
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_strings)] = (
        param((), "a non-empty string or a list of them", "Leave it out if none is wanted.")
    )
    alternatives: Annotated[Integer, Field(ge=0, le=64)] = param(
        0,
        "a whole number from 0 to 64",
        "It asks for each side's most probable tokens at each step.",
    )
    json_schema: Annotated[dict[str, Any] | None, AfterValidator(_schema)] = param(
        None, "a JSON schema as a dict", "For example {'type': 'object'} for any object."
    )
    show_schema: bool = param(True, "True or False", "False leaves the prompt as it is.")
    regex: Annotated[str, Field(min_length=1)] | None = param(
        None, "a regular expression", "For example r'\\d{4}-\\d{2}-\\d{2}'."
    )
    choices: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_strings)
    ] = param((), "a list of non-empty strings", "For example ['yes', 'no'].")
    tools: Annotated[tuple[Any, ...], BeforeValidator(_tuple), AfterValidator(_tools)] = param(
        (), "a list of tools", f"Each is a dict like {_TOOL}."
    )
    tool_choice: str = param(
        "auto", "'auto', 'any', 'none' or the name of a tool", "'any' asks for at least one call."
    )
    parallel_tool_calls: bool = param(
        True, "True or False", "False asks for one call at most in an answer."
    )
    timeout: Annotated[float, Field(gt=0)] | None = param(
        None, "a number of seconds above 0", "Leave it out to wait as long as it takes."
    )

    @field_validator("router")
    @classmethod
    def _router_exists(cls, router: str | Router) -> str | Router:
        resolve_router(router)
        return router

    @model_validator(mode="after")
    def _one_knob(self) -> SamplingParams:
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
            _warn_unused_gamma(self.spec.name)
        return self

    @model_validator(mode="after")
    def _one_form(self) -> SamplingParams:
        forms = [name for name in ("json_schema", "regex", "choices") if getattr(self, name)]
        if self.json_schema == {}:
            forms.insert(0, "json_schema")
        # A schema may stand beside tools: then the answer is either calls or that JSON.
        calls = [] if not self.tools or self.tool_choice == "none" else ["tools"]
        if len(forms) > 1 or (calls and forms and (self.forced_calls or forms != ["json_schema"])):
            raise ParameterError(
                forms[-1],
                f"left out where {[*calls, *forms][0]} is given",
                getattr(self, forms[-1]),
                "A text has one form: give one of them.",
            )
        if any(choice[0].isspace() for choice in self.choices):
            raise ParameterError(
                "choices",
                "texts that do not begin with white space",
                self.choices,
                "Strip them: white space in front of a text is dropped.",
            )
        names = [tool["function"]["name"] for tool in self.tools]
        known = ("auto", "any", "none", *names) if names else ("auto", "none")
        if self.tool_choice not in known:
            raise ParameterError(
                "tool_choice",
                f"one of {', '.join(known)}"
                if names
                else "'auto' or 'none' where no tool is given",
                self.tool_choice,
                f"{nearest(self.tool_choice, known)}Tools are given as tools=[...].",
            )
        return self

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

    def side(self, source: Literal["base", "aligned"]) -> SideSampling:
        """Return one side's complete sampling settings."""
        own: SideSampling | None = getattr(self, source)
        values = {name: getattr(self, name) for name in SideSampling.model_fields}
        if own is not None:
            values |= own.model_dump(exclude_none=True)
        return SideSampling(**values)


@cache
def _warn_unused_gamma(router: str) -> None:
    warnings.warn(
        f"router {router!r} has no logit rule, so gamma has no effect; leave gamma out, or use a "
        "router such as 'p-punc'",
        UserWarning,
        stacklevel=5,
    )
