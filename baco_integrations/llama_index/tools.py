"""Tool calls in LlamaIndex's words: what is offered, and how calls are written and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ContentBlock,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.tools.types import BaseTool
from pydantic_core import from_json

from ..adapters.base import plain_tool_choice
from ..core.messages import Message
from ..core.python_types import TypedJsonSchema
from ..core.tool_calls import CallPiece, ToolCall


def offer(tools: Sequence[BaseTool], choice: Any, required: bool, several: bool) -> dict[str, Any]:
    """Return the settings of a call that offers tools, none if there are none.

    Args:
        tools: The tools.
        choice: As for `plain_tool_choice`; None leaves it to `required`.
        required: Whether the answer must call a tool.
        several: Whether one answer may hold several calls.
    """
    if not tools:
        return {}
    # Core's limits on names and descriptions are a service's; by the names that it makes of others
    # it would not find the tools again.
    names = [tool.metadata.get_name() for tool in tools]
    offered = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
    for given, tool, name in zip(tools, offered, names, strict=True):
        function = tool["function"]
        function["name"] = name
        if given.metadata.fn_schema is not None:
            typed = given.metadata.fn_schema.model_json_schema(schema_generator=TypedJsonSchema)
            function["parameters"] = {key: typed[key] for key in function["parameters"]}
    chosen = plain_tool_choice((required or None) if choice is None else choice)
    return {"tools": offered, "tool_choice": chosen, "parallel_tool_calls": several}


def grow(calls: list[ToolCall], pieces: Sequence[CallPiece]) -> None:
    """Add the next pieces to the calls of an answer; while they come they are not valid."""
    for piece in pieces:
        if piece.index == len(calls):
            calls.append(ToolCall(piece.id or "", piece.name or "", "", "The text goes on."))
        call = calls[piece.index]
        calls[piece.index] = call._replace(arguments=call.arguments + piece.arguments)


def message_of(text: str, calls: Sequence[ToolCall]) -> ChatMessage:
    """Return an answer; the arguments of a call that is not valid yet are their text so far."""
    blocks: list[ContentBlock] = [
        ToolCallBlock(
            tool_call_id=call.id,
            tool_name=call.name,
            tool_kwargs=call.arguments if call.error else call.parsed,
        )
        for call in calls
    ]
    if text or not calls:
        blocks.insert(0, TextBlock(text=text))
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=told(calls))


def told(calls: Sequence[ToolCall]) -> dict[str, Any]:
    """Return calls as ``additional_kwargs``, where parts of core look for them; empty if none."""
    written = [
        {
            "type": "function",
            "id": call.id,
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]
    return {"tool_calls": written} if written else {}


def calls_of(message: ChatMessage) -> list[Any]:
    """Return a message's calls as dicts of ``type``, ``id`` and ``function``.

    They come from the message's blocks or else from its ``additional_kwargs``, where some
    integrations leave dicts and others the objects of their client. The arguments are as they were
    told, dicts or text, and what is no call at all is as it is.
    """
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [_call(each.tool_call_id, each.tool_name, each.tool_kwargs) for each in blocks]
    told = message.additional_kwargs.get("tool_calls") or ()
    return [_told(call) for call in (told if isinstance(told, list | tuple) else [told])]


def _told(call: Any) -> Any:
    plain = call.model_dump() if hasattr(call, "model_dump") else call
    function = plain.get("function", plain) if isinstance(plain, Mapping) else None
    if not isinstance(function, Mapping):
        return plain
    arguments = function.get("arguments", function.get("input"))
    return _call(plain.get("id"), function.get("name"), arguments)


def _call(call_id: str | None, name: str | None, arguments: Any) -> Message:
    function = {"name": name or "", "arguments": arguments}
    return {"type": "function", "id": call_id or "", "function": function}


def read_arguments(arguments: Any) -> dict[str, Any]:
    """Return arguments, or as much of their text as can be read."""
    if isinstance(arguments, str):
        try:
            arguments = from_json(arguments, allow_partial="trailing-strings")
        except ValueError:
            return {}
    return dict(arguments) if isinstance(arguments, Mapping) else {}
