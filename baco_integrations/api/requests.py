"""Bodies of requests: OpenAI's fields, and every setting of `SamplingParams` beside them.

A body is read in two steps. Its form is checked by pydantic, as the OpenAPI document tells it; what
its settings may be is checked by `SamplingParams`, as everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, WithJsonSchema, create_model
from pydantic_core import from_json

from ..core.errors import ParameterError, PromptError, nearest
from ..core.messages import Messages
from ..core.params import KNOBS, SamplingParams
from ..core.request_schema import format_schema
from ..core.routing import resolve_router
from ..core.settings import Integer, stated
from .data import not_text, plain_tool_choice

MAX_MODEL_ID = 1000
"""Longest id of a model, in characters: each chunk of a stream repeats it."""

_TEXT = {"type": "string"}
_PARTS = {"type": "array", "items": {"type": "object", "properties": {"text": _TEXT}}}
_MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"anyOf": [_TEXT, _PARTS, {"type": "null"}]},
        "tool_calls": {"type": "array", "items": {"type": "object"}},
        "tool_call_id": _TEXT,
    },
}
_TOKENS = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_PROMPT = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1},
        _TOKENS,
        {"type": "array", "items": _TOKENS, "minItems": 1},
    ]
}
_JSON_TYPES: dict[str, Any] = {
    "router": _TEXT,
    "base": {"type": "object"},
    "aligned": {"type": "object"},
    "stop": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
    "choices": {"type": "array", "items": _TEXT},
    "json_schema": {"type": "object"},
    "tools": {"type": "array", "items": {"type": "object"}},
    "tool_choice": {"anyOf": [_TEXT, {"type": "object"}]},
}
"""JSON schemas of settings whose types pydantic does not tell."""


class StreamOptions(BaseModel):
    """What a stream sends beside its tokens."""

    include_usage: bool | None = Field(None, description="Whether a last chunk tells the usage.")


def setting_fields() -> dict[str, Any]:
    """Return a field for each setting of `SamplingParams`; None is not given."""
    fields: dict[str, Any] = {}
    for name, setting in SamplingParams.model_fields.items():
        kind: Any = setting.annotation
        if name in _JSON_TYPES:
            kind = Annotated[Any, WithJsonSchema(_JSON_TYPES[name])]
        elif setting.metadata:
            kind = Annotated[(kind, *setting.metadata)]
        fields[name] = kind | None, Field(None, description=stated(setting, "help"))
    return fields


if TYPE_CHECKING:

    class Settings(BaseModel):
        """The fields of `setting_fields`."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Settings = create_model(
        "Settings",
        __config__=ConfigDict(extra="allow", strict=True, allow_inf_nan=False),
        **setting_fields(),
    )


class GenerationBody(Settings):
    """What the bodies of both endpoints share."""

    model: str = Field(
        description="A served pair, as NAME or NAME@gamma=0.7,router=h.", max_length=MAX_MODEL_ID
    )
    stream: bool | None = Field(None, description="Whether tokens come as they are decoded.")
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="Taken for compatibility; it is not used.")

    @property
    def ignored(self) -> list[str]:
        """Fields that came and have no meaning here; None and other neutral values do not count."""
        extra = self.model_extra or {}
        return [name for name, value in extra.items() if value not in (None, 0, False, [], {}, "")]

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def own_settings(self) -> dict[str, Any]:
        """Return the settings of decoding that the body gives."""
        named = {name: getattr(self, name) for name in SamplingParams.model_fields}
        return {name: value for name, value in named.items() if value is not None}

    def params(self, *defaults: Mapping[str, Any]) -> SamplingParams:
        """Return how to decode.

        Args:
            *defaults: Settings that count where the body gives none, the weightiest first.

        Raises:
            ParameterError: A setting is not allowed.
        """
        settings = self.own_settings()
        for more in defaults:
            settings = {**fitting(more, settings), **settings}
        return SamplingParams(**settings)


class ChatBody(GenerationBody):
    """The body of ``/v1/chat/completions``."""

    messages: Annotated[
        list[dict[str, Any]],
        FailFast(),
        WithJsonSchema({"type": "array", "minItems": 1, "items": _MESSAGE}),
    ] = Field(description="The conversation.")
    max_completion_tokens: Integer | None = Field(
        None, ge=1, description="Longest answer, in tokens; it goes before max_tokens."
    )
    logprobs: bool | None = Field(
        None, description="Whether each token comes with probabilities and its source."
    )
    top_logprobs: Integer | None = Field(
        None, ge=0, le=64, description="How many of the most probable tokens come with each token."
    )
    response_format: Annotated[Any, WithJsonSchema({"type": "object"})] = Field(
        None, description="json_schema, json_object or text, as OpenAI takes it."
    )

    def own_settings(self) -> dict[str, Any]:
        """Return the settings of decoding that the body gives."""
        settings = super().own_settings()
        if self.max_completion_tokens is not None:
            settings["max_tokens"] = self.max_completion_tokens
        if self.response_format is not None:
            schema = format_schema(self.response_format)
            settings |= {} if schema is None else {"json_schema": schema}
        if self.tool_choice is not None:
            settings["tool_choice"] = plain_tool_choice(self.tool_choice)
        if self.top_logprobs:
            asked = max(self.top_logprobs, settings.get("alternatives", 0))
            settings["alternatives"] = asked
        return settings

    @property
    def wants_tokens(self) -> bool:
        """Whether the answer tells of each token."""
        return bool(self.logprobs or self.top_logprobs or self.alternatives)

    def conversation(self) -> list[dict[str, Any]]:
        """Return the messages with their contents as texts.

        Raises:
            PromptError: A message holds an image, a sound, a file or the like.
        """
        return [plain_message(place, message) for place, message in enumerate(self.messages)]


class CompletionBody(GenerationBody):
    """The body of ``/v1/completions``: both models go on with a text as it stands."""

    prompt: Annotated[Any, WithJsonSchema(_PROMPT)] = Field(
        description="A text, token ids, or a list of either."
    )
    echo: bool | None = Field(None, description="Whether the texts begin with the prompt.")
    logprobs: Integer | None = Field(
        None, ge=0, le=64, description="How many of the most probable tokens come with each token."
    )

    def own_settings(self) -> dict[str, Any]:
        """Return the settings of decoding that the body gives."""
        settings = super().own_settings() | {"raw": True}
        if self.logprobs:
            settings["alternatives"] = max(self.logprobs, settings.get("alternatives", 0))
        return settings

    @property
    def wants_tokens(self) -> bool:
        """Whether the answer tells of each token."""
        return self.logprobs is not None or bool(self.alternatives)

    def prompts(self) -> list[Messages]:
        """Return the prompts, each a text or token ids.

        Raises:
            ParameterError: There is none, they are neither, or what cannot be had is asked of them.
        """
        given = self.prompt
        single = isinstance(given, str) or (
            isinstance(given, list) and bool(given) and all(map(is_token, given))
        )
        prompts: Any = [given] if single else given
        if not isinstance(prompts, list) or not prompts or not all(map(is_prompt, prompts)):
            raise PromptError(
                "prompt", "a text, token ids, or a list of either", given, "For example 'Once'."
            )
        if self.echo and (self.wants_tokens or not all(isinstance(p, str) for p in prompts)):
            raise ParameterError(
                "echo",
                "left out with logprobs and with token ids",
                True,
                "Probabilities of the prompt's own tokens are not computed.",
            )
        return list(prompts)


class TokenizeBody(BaseModel):
    """The body of ``/v1/baco/tokenize``: a text, or a conversation and the tools it offers."""

    model: str = Field(description="A served pair.")
    text: str | None = Field(None, description="A text, as it stands.")
    messages: list[dict[str, Any]] | None = Field(None, description="A conversation.")
    tools: Annotated[Any, WithJsonSchema(_JSON_TYPES["tools"])] = Field(
        None, description="Tools that are offered in it."
    )

    def conversation(self) -> list[dict[str, Any]]:
        """Return the messages with their contents as texts.

        Raises:
            ParameterError: There is a text too, or neither.
            PromptError: A message holds an image, a sound, a file or the like.
        """
        if self.messages is None or self.text is not None:
            raise ParameterError(
                "messages", "given, or text, but not both", self.messages, "Count one of them."
            )
        return [plain_message(place, message) for place, message in enumerate(self.messages)]


def fitting(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return defaults without the gamma or threshold that would not go with some settings.

    Raises:
        ParameterError: The settings' router is unknown.
    """
    unfit: Collection[str] = ()
    if not settings.keys().isdisjoint(KNOBS):
        unfit = KNOBS
    elif "router" in settings:  # a threshold is in the units of its router
        unfit = KNOBS if resolve_router(settings["router"]).rule is None else ("threshold",)
    return {name: value for name, value in defaults.items() if name not in unfit}


def is_token(value: object) -> bool:
    """Tell whether something is a token id."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_prompt(value: object) -> bool:
    """Tell whether something is a text or a list of token ids."""
    ids = isinstance(value, list) and bool(value) and all(map(is_token, value))
    return isinstance(value, str) or ids


def plain_message(place: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with its content as one text, and a developer's message as a system's.

    Args:
        place: Which message it is.
        message: The message.

    Raises:
        PromptError: A part of its content is no text.
    """
    said = dict(message)
    if said.get("role") == "developer":
        said["role"] = "system"
    if isinstance(said.get("content"), list):
        parts = enumerate(said["content"])
        said["content"] = "".join(
            part_text(f"messages[{place}].content[{n}]", part) for n, part in parts
        )
    return said


def part_text(where: str, part: Any) -> str:
    """Return the text of a part of a content.

    Raises:
        PromptError: It is an image, a sound, a file or the like.
    """
    text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        raise not_text(where, part.get("type") if isinstance(part, dict) else type(part).__name__)
    return text


def read_model_id(model: str, names: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """Split a model's id into the name of a pair and the settings behind ``@``.

    Args:
        model: The id, such as ``tiny@gamma=0.7,router=h``.
        names: Pairs that are served.

    Returns:
        The name, which may be none of `names`, and the settings.

    Raises:
        ParameterError: A setting is unknown, or the text is no list of settings.
    """
    if model in set(names):
        return model, {}
    name, _, told = model.partition("@")
    settings: dict[str, Any] = {}
    for each in filter(None, told.split(",")):
        key, equals, value = each.partition("=")
        if not equals or key not in SamplingParams.model_fields:
            raise ParameterError(
                "model",
                "the name of a pair, or NAME@SETTING=VALUE,...",
                model,
                f"{nearest(key, SamplingParams.model_fields)}For example {name}@gamma=0.7.",
            )
        settings[key] = value
        with suppress(ValueError):  # a text, such as a router's name
            settings[key] = from_json(value)
    return name, settings
