"""Tools in LangChain's words: what is offered, and the calls that come back."""

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
    """Return a tool as OpenAI has it.

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
        whole = source.model_json_schema(schema_generator=TypedJsonSchema)
        # Core writes out references, and gives up on recursive ones; and knows types less well.
        if _recursive(whole) or whole != source.model_json_schema():
            function["parameters"] = resolved(whole)
    return converted


def _recursive(schema: Mapping[str, Any]) -> bool:
    """Tell whether a definition refers to itself, at once or by way of others."""
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
    """Write out the reference that a recursive class's own schema is."""
    if "$ref" not in schema:
        return dict(schema)
    own: Any = schema
    for name in schema["$ref"].removeprefix("#/").split("/"):
        own = own.get(name, {}) if isinstance(own, Mapping) else {}
    return {**{key: value for key, value in schema.items() if key != "$ref"}, **own}


def tool_calls(made: Sequence[calls.ToolCall]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Return calls as LangChain has them: the valid ones, and the others with their error."""
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
    return valid, invalid


def contradiction(arguments: str) -> str:
    """Return what, written behind the arguments of a call, keeps core from completing them.

    Core joins the pieces of a stream and repairs what is cut off: a call that deletes a folder
    would become one that deletes its parent.
    """
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", arguments, flags=re.DOTALL)
    outside, quote, inside = outside.partition('"')
    slashes = len(inside) - len(inside.rstrip("\\"))
    # A bracket that closes nothing is what core does not repair.
    return "\\" * (slashes % 2) + quote + "]" * (outside.count("[") + 1)


def is_model(schema: Any) -> bool:
    """Tell whether a schema is a pydantic class, of either version."""
    return isinstance(schema, type) and is_basemodel_subclass(schema)
