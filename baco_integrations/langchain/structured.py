"""Structured output in LangChain's words: what is bound, and how answers are read."""

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
from langchain_core.outputs import Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema

from ..core.errors import ParameterError, nearest
from ..core.python_types import TypedJsonSchema
from ..core.tool_calls import repeated_key
from .tools import is_model, resolved, tool_of

if TYPE_CHECKING:  # pydantic's plugin looks for it where the field is inherited
    from langchain_core.utils.pydantic import TBaseModel  # noqa: F401

METHODS = ("json_schema", "function_calling", "json_mode")
"""How structured output may be asked for."""

# Where services and core look for the schema of a tool or a response format.
_WRAPS = ("function", "json_schema", "parameters", "input_schema", "schema")
_FORMAT = (
    "{'type': 'json_schema', 'json_schema': {'schema': {...}}}, {'type': 'json_object'} or text"
)


def response_schema(response_format: Any) -> dict[str, Any] | None:
    """Return the JSON schema that a ``response_format`` asks for, None for plain text.

    Raises:
        ParameterError: It is none of the known forms.
    """
    if isinstance(response_format, type):
        return schema_of(response_format)
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    inner = response_format.get("json_schema") if kind == "json_schema" else None
    if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
        return dict(inner["schema"])
    if kind in ("json_object", "text"):
        return {"type": "object"} if kind == "json_object" else None
    raise ParameterError("response_format", _FORMAT, response_format, "A pydantic class will do.")


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
    llm: Any, schema: Any, method: str, include_raw: bool, settings: Mapping[str, Any]
) -> Runnable[Any, Any]:
    """Return a runnable whose output is an object of the schema; see `ChatBACo`."""
    if method not in METHODS:
        raise ParameterError(
            "method", f"one of {', '.join(METHODS)}", method, nearest(str(method), METHODS)
        )
    if schema is None and method != "json_mode":
        raise ParameterError("schema", "given", None, "A pydantic class, for example.")
    told = {"kwargs": {"method": method}, "schema": schema} if _is_told(schema) else None
    build = _by_call if method == "function_calling" else _by_schema
    asked, parser = build(llm, schema, method, settings, told)
    if not include_raw:
        plain: Runnable[Any, Any] = asked | parser
        return plain
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    whole: Runnable[Any, Any] = RunnableMap(raw=asked) | parsed.with_fallbacks(
        [failed], exception_key="parsing_error"
    )
    return whole


def _is_told(schema: Any) -> bool:
    """Tell whether core can write a schema into its traces, where it reads it as a tool."""
    try:
        convert_to_json_schema(schema)
    except Exception:
        return False
    return True


def _by_call(
    llm: Any, schema: Any, method: str, settings: Mapping[str, Any], told: Any
) -> tuple[Any, Any]:
    tool = _object_tool(schema) if isinstance(schema, Mapping) else tool_of(schema)
    name = tool["function"]["name"]
    asked = llm.bind_tools(
        [tool],
        tool_choice=name,
        parallel_tool_calls=False,
        ls_structured_output_format=told,
        **settings,
    )
    if is_model(schema):
        return asked, _WholeCallObject(tools=[schema], first_tool_only=True)
    return asked, _WholeCall(key_name=name, first_tool_only=True)


def _object_tool(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool whose arguments are the object of a schema."""
    parameters = resolved(schema_of(schema))
    if parameters.get("type") != "object" and "properties" not in parameters:
        raise ParameterError(
            "schema",
            "of an object with method='function_calling'",
            schema,
            "method='json_schema' takes any schema.",
        )
    wrapped = [schema[name] for name in _WRAPS if isinstance(schema.get(name), Mapping)]
    told = [each.get(name) for each in (schema, *wrapped) for name in ("name", "title")]
    name = next((each for each in told if isinstance(each, str) and each.strip()), "answer")
    return {
        "type": "function",
        "function": {
            "name": re.sub(r"[^\w.-]+", "_", name),
            "description": parameters.get("description", ""),
            "parameters": parameters,
        },
    }


def _by_schema(
    llm: Any, schema: Any, method: str, settings: Mapping[str, Any], told: Any
) -> tuple[Any, Any]:
    if method == "json_mode":  # the caller's own prompt says what is wanted
        form = {"json_schema": {"type": "object"}, "show_schema": False}
    else:
        form = {"json_schema": schema_of(schema)}
    llm._params(None, {**settings, **form})
    asked = llm.bind(ls_structured_output_format=told, **{**settings, **form})
    if is_model(schema):
        return asked, _WholeObject(pydantic_object=schema)
    return asked, _WholeJson()


class _Whole:
    """A parser that takes half an object only while more of it may come."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        if not partial and not self._is_whole(result[0]):
            raise OutputParserException(
                "The answer ended before the object was whole. Raise max_tokens, or "
                "leave out stop.",
                llm_output=result[0].text,
            )
        if not partial and (key := repeated_key(result[0].text)) is not None:
            raise OutputParserException(
                f"An object in the answer holds {key!r} twice, and a value would be lost.",
                llm_output=result[0].text,
            )
        return super().parse_result(result, partial=partial)  # type: ignore[misc]

    def _is_whole(self, result: Generation) -> bool:
        try:
            json.loads(result.text, strict=False)
        except ValueError:
            return False
        return True


class _WholeJson(_Whole, JsonOutputParser):
    pass


class _WholeObject(_Whole, PydanticOutputParser[Any]):
    pass


class _Called(_Whole):
    def _is_whole(self, result: Generation) -> bool:
        message = getattr(result, "message", None)
        return isinstance(message, AIMessage) and bool(message.tool_calls)


class _WholeCall(_Called, JsonOutputKeyToolsParser):
    pass


class _WholeCallObject(_Called, PydanticToolsParser):
    pass
