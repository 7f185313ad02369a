"""Structured output for LangChain: what is bound to a model, and how answers are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.output_parsers.openai_tools import JsonOutputToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema

from ..core.errors import ParameterError, nearest
from ..core.json_text import repeated_key
from ..core.python_types import TypedJsonSchema
from ..core.request_schema import format_schema
from .tools import is_model, resolved, tool_of

if TYPE_CHECKING:  # pydantic's plugin looks for it where the field is inherited
    from langchain_core.utils.pydantic import TBaseModel  # noqa: F401

METHODS = ("json_schema", "function_calling", "json_mode")
"""How structured output may be asked for."""

# Where services and core look for the schema of a tool or a response format.
_WRAPS = ("function", "json_schema", "parameters", "input_schema", "schema")


def response_schema(response_format: Any) -> dict[str, Any] | None:
    """Return the JSON schema that a ``response_format`` asks for, None for plain text.

    Raises:
        ParameterError: It is none of the known forms.
    """
    if isinstance(response_format, type):
        return schema_of(response_format)
    return format_schema(response_format)


def schema_of(schema: Any) -> dict[str, Any]:
    """Return the JSON schema of a pydantic class, a TypedDict, a function or a schema itself.

    A schema may come wrapped, as services take tools and response formats.
    """
    if is_model(schema):
        if not hasattr(schema, "model_json_schema"):
            return dict(schema.schema())
        return dict(schema.model_json_schema(schema_generator=TypedJsonSchema))
    if not isinstance(schema, Mapping):
        return convert_to_json_schema(schema)
    for name in _WRAPS:
        if isinstance(schema.get(name), Mapping) and not {"properties", "$ref"} & schema.keys():
            return schema_of(schema[name])
    return dict(schema)


def structured(
    llm: Any,
    schema: Any,
    *,
    method: str = "json_schema",
    include_raw: bool = False,
    strict: bool | None = None,
    **settings: Any,
) -> Runnable[Any, Any]:
    """Return a runnable whose output is an object of the schema.

    The arguments are those of `ChatBACo.with_structured_output`; `llm` may be a wrapper of one.
    """
    if method not in METHODS:
        raise ParameterError(
            "method", f"one of {', '.join(METHODS)}", method, nearest(str(method), METHODS)
        )
    if schema is None and method != "json_mode":
        raise ParameterError("schema", "given", None, "A pydantic class, for example.")
    try:
        convert_to_json_schema(schema)
        traced: Any = {"kwargs": {"method": method}, "schema": schema}
    except Exception:  # core could not write it into its traces, and would fail
        traced = None
    parser: Any
    if method == "function_calling":
        tool = object_tool(schema) if isinstance(schema, Mapping) else tool_of(schema)
        name = tool["function"]["name"]
        asked = llm.bind_tools(
            [tool],
            tool_choice=name,
            parallel_tool_calls=False,
            ls_structured_output_format=traced,
            **settings,
        )
        if is_model(schema):
            parser = CalledObjectParser(tools=[schema], first_tool_only=True)
        else:
            parser = CalledDictParser(key_name=name, first_tool_only=True)
    else:
        form: Any = {"json_schema": {"type": "object"}, "show_schema": False}
        if method == "json_schema":  # else the caller's own prompt describes the object
            form = {"json_schema": schema_of(schema)}
        llm.request_params({**settings, **form})
        asked = llm.bind(ls_structured_output_format=traced, **{**settings, **form})
        parser = ObjectParser(pydantic_object=schema) if is_model(schema) else DictParser()
    return with_raw(asked, parser) if include_raw else asked | parser


def with_raw(asked: Runnable[Any, Any], parser: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return a runnable of ``raw``, ``parsed`` and, instead of raising it, ``parsing_error``."""
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    safely = parsed.with_fallbacks([failed], exception_key="parsing_error")
    return RunnableMap(raw=asked) | safely


def object_tool(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool whose arguments are the object of a schema.

    Raises:
        ParameterError: The schema is not of an object.
    """
    parameters = resolved(schema_of(schema))
    if parameters.get("type") != "object" and "properties" not in parameters:
        raise ParameterError(
            "schema",
            "of an object with method='function_calling'",
            schema,
            "method='json_schema' takes any schema.",
        )
    wrapped = [schema[name] for name in _WRAPS if isinstance(schema.get(name), Mapping)]
    names = [each.get(name) for each in (schema, *wrapped) for name in ("name", "title")]
    name = next((each for each in names if isinstance(each, str) and each.strip()), "answer")
    function = {
        "name": re.sub(r"[^\w.-]+", "_", name),
        "description": parameters.get("description", ""),
        "parameters": parameters,
    }
    return {"type": "function", "function": function}


class WholeParser:
    """A parser that returns a partial object only while the answer is streamed."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the object of an answer.

        Raises:
            OutputParserException: The answer was cut off, or holds a key twice.
        """
        text, problem = result[0].text, None
        if not partial and not self.is_whole(result[0]):
            problem = (
                "The answer ended before the object was whole. Raise max_tokens, or leave out stop."
            )
        elif not partial and (key := repeated_key(text)) is not None:
            problem = f"An object in the answer holds {key!r} twice, and a value would be lost."
        if problem is not None:
            raise OutputParserException(problem, llm_output=text)
        return super().parse_result(result, partial=partial)  # type: ignore[misc]

    def is_whole(self, result: Generation) -> bool:
        """Tell whether an answer has a valid call, or is JSON where it is read as text."""
        if isinstance(self, JsonOutputToolsParser):
            message = result.message if isinstance(result, ChatGeneration) else None
            return isinstance(message, AIMessage) and bool(message.tool_calls)
        try:
            json.loads(result.text, strict=False)
        except ValueError:
            return False
        return True


class DictParser(WholeParser, JsonOutputParser):
    """Reads the JSON of an answer."""


class ObjectParser(WholeParser, PydanticOutputParser[Any]):
    """Reads the JSON of an answer as an object of a pydantic class."""


class CalledDictParser(WholeParser, JsonOutputKeyToolsParser):
    """Reads the arguments of an answer's call."""


class CalledObjectParser(WholeParser, PydanticToolsParser):
    """Reads the arguments of an answer's call as an object of a pydantic class."""
