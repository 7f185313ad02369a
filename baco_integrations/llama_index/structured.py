"""Structured output for LlamaIndex: the text of an answer as an object of a pydantic class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms import LLM
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import Model
from pydantic import ValidationError
from pydantic_core import from_json

from ..core.errors import CutOffError, DecoderError, ParameterError
from ..core.json_text import repeated_key
from ..core.python_types import TypedJsonSchema
from .responses import is_last

_dispatcher = get_dispatcher(__name__)


def report_start(output_cls: type[Model], prompt: PromptTemplate, filled: dict[str, Any]) -> None:
    """Send core's event that an object is asked for."""
    _dispatcher.event(
        LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=filled)
    )


def report_end(output: Model) -> Model:
    """Send core's event that an object has come, and return it."""
    _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
    return output


def chat_arguments(
    llm: LLM,
    output_cls: type[Model],
    prompt: PromptTemplate,
    llm_kwargs: Mapping[str, Any] | None,
    filled: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what `chat` is called with for an object of a class.

    Args:
        llm: The LLM.
        output_cls: The pydantic class.
        prompt: The prompt.
        llm_kwargs: Settings of the call.
        filled: What the prompt is filled in with.

    Raises:
        ParameterError: `llm_kwargs` say what the answer looks like, as the class does.
    """
    settings = dict(llm_kwargs or {})
    for name in ("json_schema", "regex", "choices"):
        if settings.get(name) is not None:
            raise ParameterError(
                name,
                "left out of llm_kwargs",
                settings[name],
                "The class says what the answer looks like; chat(...) takes any such setting.",
            )
    messages = llm._extend_messages(prompt.format_messages(llm=llm, **filled))
    schema = output_cls.model_json_schema(schema_generator=TypedJsonSchema)
    return {**settings, "messages": messages, "json_schema": schema}


def object_of(output_cls: type[Model], response: ChatResponse) -> Model:
    """Return the object that an answer holds.

    Raises:
        CutOffError: The answer was cut off.
        DecoderError: An object in it holds a key twice, and a value would be lost.
        ValidationError: The class asks for something that its schema does not say.
    """
    text = response.message.content or ""
    if (key := repeated_key(text)) is not None:
        raise DecoderError(f"an object in the answer holds {key!r} twice. Ask again.")
    try:
        return output_cls.model_validate_json(text)
    except ValidationError as error:
        cut_off = cut_off_error(response.raw, f"the {output_cls.__name__} was whole")
        if cut_off is None:
            raise
        raise cut_off from error


def cut_off_error(raw: Any, before: str) -> CutOffError | None:
    """Return the error of an answer that was cut off, None for one that was not.

    Args:
        raw: The ``raw`` of its response.
        before: What would have come about, as a clause that follows "before".
    """
    info: dict[str, Any] = raw or {}
    if info.get("finish_reason") != "length":
        return None
    return CutOffError(
        f"The answer was cut off after {info['usage']['completion_tokens']} tokens, before "
        f"{before}. Raise max_tokens; if the context window is full, shorten the prompt."
    )


def object_reader(output_cls: type[Model]) -> Callable[[ChatResponse], Model | FlexibleModel]:
    """Return a function that reads the pieces of a stream: partial objects, then the whole one.

    A partial object is of the class itself if that takes it, and of core's flexible twin if not.
    """
    flexible = create_flexible_model(output_cls)
    data: Any = {}

    def read(response: ChatResponse) -> Model | FlexibleModel:
        nonlocal data
        if is_last(response):
            return object_of(output_cls, response)
        with suppress(ValueError):  # half a number: what came before it stays
            data = from_json(response.message.content or "", allow_partial="trailing-strings")
        try:
            return output_cls.model_validate(data)
        except ValidationError:
            # What is no object stands alone in its class, as ``root``.
            return flexible.model_validate(data if isinstance(data, dict) else {"root": data})

    return read
