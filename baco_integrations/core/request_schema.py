"""JSON schemas and tools of a request, checked before anything is decoded.

A schema, a request's or a tool's, is enforced while decoding but for what the grammar engine cannot
express. That is left to the reader of the result; objects have just the properties that they name,
in their order, unless ``additionalProperties`` says otherwise.

- Enforced: ``type``, ``enum`` and ``const`` to the last digit, ``anyOf``, ``allOf``, ``oneOf``
  whose parts exclude one another, ``$ref`` within the schema; ``properties``, ``required``,
  ``additionalProperties``, ``patternProperties``, ``propertyNames`` with just a pattern,
  ``minProperties`` and ``maxProperties``; ``items``, ``prefixItems``, ``minItems``, ``maxItems``;
  ``minLength``, ``maxLength``, ``pattern``, and ``format`` where it is ``date-time``, ``date``,
  ``time``, ``duration``, ``email``, ``hostname``, ``ipv4``, ``ipv6``, ``uuid``, ``uri`` or one of
  pydantic's ``base64``, ``ipv4network`` and the like, ``uuid1`` to ``uuid8``; ``minimum``,
  ``maximum``, ``exclusiveMinimum``, ``exclusiveMaximum``, ``multipleOf``.
- Not enforced: other formats; ``uniqueItems``, ``contains``, ``not``, ``if``, other
  ``propertyNames``, ``dependentRequired``, ``dependentSchemas``, ``unevaluatedProperties``,
  ``unevaluatedItems``, and ``$dynamicRef``; ``oneOf`` whose parts overlap is as ``anyOf``; a
  pattern with look-around, word boundaries or back-references; patterns of properties that overlap;
  numbers of properties where some that are named are optional; bounds of numbers that are too wide
  for the engine; that names which are not given one by one do not repeat (a call or an object that
  repeats one is an error where it is read).

A schema or a pattern that takes the engine longer than 10 seconds is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .errors import ParameterError
from .plain import require_whole

Tool = dict[str, Any]
"""A tool, as an OpenAI-style dict."""

MAX_DEPTH = 127
"""Most objects and lists inside one another in a schema: what the grammar engine reads."""
TOOL_FORM = "{'type': 'function', 'function': {'name': ..., 'parameters': ...}}"
_NAME = re.compile(r"[\w.-]{1,128}")
_NO_ARGUMENTS = {"type": "object", "properties": {}}


def check_json_schema(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a JSON schema if it is JSON data, not too deep and without half characters.

    Raises:
        ParameterError: It nests too deeply, or holds a lone surrogate.
        ValueError: It is no JSON data.
    """
    require_shallow(schema, "json_schema", MAX_DEPTH)
    if not is_json(schema):
        raise ValueError
    require_whole(json.dumps(schema, ensure_ascii=False), "json_schema", ParameterError)
    return schema


def check_tools(tools: tuple[Any, ...]) -> tuple[Tool, ...]:
    """Return the tools, each in its complete form (see `check_tool`) and once.

    Raises:
        ParameterError: One is malformed, or two that differ have one name.
    """
    known: dict[str, Tool] = {}
    for number, given in enumerate(tools):
        require_shallow(given, "tools", MAX_DEPTH + 2)  # a schema lies two levels deep in a tool
        tool = check_tool(given, f"tools[{number}]")
        name = tool["function"]["name"]
        if without_titles(known.setdefault(name, tool)) != without_titles(tool):
            raise ParameterError(
                f"tools[{number}].function.name",
                "a name that no other tool has",
                name,
                "Calls name their tool by it: give one of them another name, or leave it out.",
            )
    return tuple(known.values())


def check_tool(tool: Any, place: str) -> Tool:
    """Return a tool; a description or parameters that are absent are filled in.

    Args:
        tool: What was given as a tool.
        place: Where it stands, such as ``tools[0]``, for messages.

    Raises:
        ParameterError: It has not the form of OpenAI's API.
    """
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type", "function") != "function":
        remedy = "It is the form of OpenAI's API."
        raise ParameterError(place, f"a dict like {TOOL_FORM}", tool, remedy)
    name, schema = function.get("name"), function.get("parameters") or {}
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ParameterError(
            f"{place}.function.name",
            "a name of 1 to 128 letters, digits, '_', '-' and '.'",
            name,
            "Calls name their tool by it.",
        )
    is_object = isinstance(schema, dict) and schema.get("type", "object") == "object"
    if not is_object or not is_json(schema):
        raise ParameterError(
            f"{place}.function.parameters",
            "a JSON schema of type 'object'",
            schema,
            f"The arguments of {name!r} are its properties; leave it out where there are none.",
        )
    if not is_json(function):
        raise ParameterError(f"{place}.function", "JSON data", function, "It is told as JSON.")
    require_whole(json.dumps(function, ensure_ascii=False), f"{place}.function", ParameterError)
    filled = {"description": "", **function, "parameters": {**_NO_ARGUMENTS, **schema}}
    return {"type": "function", "function": filled}


def require_shallow(value: Any, parameter: str, depth: int) -> None:
    """Refuse data whose objects and lists nest deeper than `depth`.

    Raises:
        ParameterError: They do.
    """
    level = [value]
    for _ in range(depth + 1):
        level = [each for each in level if isinstance(each, dict | list | tuple)]
        if not level:
            return
        level = [
            part for each in level for part in (each.values() if isinstance(each, dict) else each)
        ]
    raise ParameterError(
        parameter,
        f"a JSON schema of at most {MAX_DEPTH} objects and lists inside one another",
        "a deeper one",
        "Give what nests a name in $defs, and refer to it.",
    )


def is_json(value: object) -> bool:
    """Whether a value can be written as JSON."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def without_titles(schema: Any, names: bool = False) -> Any:
    """Return a JSON schema without its ``title`` keywords, such as those that pydantic adds.

    Args:
        schema: The schema, or a part of it.
        names: Whether the keys are names, as in ``properties``: then ``title`` is one of them, and
            is kept.
    """
    if isinstance(schema, list):
        return [without_titles(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: without_titles(value, names=not names and key in ("properties", "$defs"))
        for key, value in schema.items()
        if names or key != "title"
    }


def format_schema(response_format: object) -> dict[str, Any] | None:
    """Return the JSON schema that an OpenAI-style ``response_format`` asks for, None for text.

    Raises:
        ParameterError: It is none of the known forms.
    """
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    inner = response_format.get("json_schema") if isinstance(response_format, Mapping) else None
    if kind == "json_schema" and isinstance(inner, Mapping):
        if isinstance(inner.get("schema"), Mapping):
            return dict(inner["schema"])
    elif kind in ("json_object", "text"):
        return {"type": "object"} if kind == "json_object" else None
    raise ParameterError(
        "response_format",
        "{'type': 'json_schema', 'json_schema': {'schema': {...}}}, {'type': 'json_object'} or "
        "{'type': 'text'}",
        response_format,
        "Leave it out for any text.",
    )
