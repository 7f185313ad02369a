"""Tools for LangChain: those that a call offers, and the calls of an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from ..core import tool_calls as calls
from ..core.errors import ParameterError
from ..core.python_types import TypedJsonSchema


def tool_of(tool: Any) -> dict[str, Any]:
    """Return a function, a class, a LangChain tool or a dict as an OpenAI-style dict of a tool.

    Raises:
        ParameterError: It is nothing that can be called here.
    """
    try:
        converted = convert_to_openai_tool(tool)
        function = converted["function"]
    except (ValueError, KeyError) as error:
        raise ParameterError(
            "tools",
            "functions, pydantic classes, TypedDicts, LangChain tools or OpenAI-style dicts",
            tool,
            "What a service runs itself, such as a web search, has to come as a tool of your own.",
        ) from error
    source = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    if is_model(source) and hasattr(source, "model_json_schema"):
        schema = source.model_json_schema(schema_generator=TypedJsonSchema)
        # Core writes out references, gives up on recursive ones, and knows some types less well.
        if is_recursive(schema) or schema != source.model_json_schema():
            function["parameters"] = resolved(schema)
    return converted


def is_recursive(schema: Mapping[str, Any]) -> bool:
    """Tell whether a definition of a schema refers to itself, at once or by way of others."""
    refers = {
        name: set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(definition)))
        for name, definition in schema.get("$defs", {}).items()
    }
    reached = refers
    for _ in refers:
        reached = {
            name: names.union(*(refers.get(each, ()) for each in names))
            for name, names in reached.items()
        }
    return any(name in names for name, names in reached.items())


def resolved(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the reference that stands at the top of a recursive class's schema."""
    if "$ref" not in schema:
        return dict(schema)
    own: Any = schema
    for name in schema["$ref"].removeprefix("#/").split("/"):
        own = own.get(name, {}) if isinstance(own, Mapping) else {}
    return {**{key: value for key, value in schema.items() if key != "$ref"}, **own}


def tool_calls(made: Sequence[calls.ToolCall]) -> dict[str, Any]:
    """Return an answer's calls as ``tool_calls`` and, with their errors, ``invalid_tool_calls``."""
    valid = [
        ToolCall(name=call.name, args=call.parsed, id=call.id, type="tool_call")
        for call in made
        if call.error is None
    ]
    invalid = [
        InvalidToolCall(
            name=call.name,
            args=call.arguments,
            id=call.id,
            error=call.error,
            type="invalid_tool_call",
        )
        for call in made
        if call.error is not None
    ]
    return {"tool_calls": valid, "invalid_tool_calls": invalid}


def contradiction(arguments: str) -> str:
    """Return a text that, put after a call's arguments, keeps LangChain from repairing them.

    Core joins the pieces of a stream and completes JSON that is cut off: a call that deletes a
    folder would become one that deletes its parent.
    """
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", arguments, flags=re.DOTALL)
    outside, quote, inside = outside.partition('"')
    slashes = len(inside) - len(inside.rstrip("\\"))
    # A bracket that closes nothing is what core does not repair.
    return "\\" * (slashes % 2) + quote + "]" * (outside.count("[") + 1)


def is_model(schema: Any) -> bool:
    """Tell whether a schema is a pydantic class, of either version."""
    return isinstance(schema, type) and is_basemodel_subclass(schema)
