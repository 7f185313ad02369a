"""Tool calls for LlamaIndex: the tools that are offered, and how calls are written and read."""

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
from pydantic import BaseModel
from pydantic_core import from_json

from ..api.data import call_data, plain_tool_choice
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
    offered = []
    for given in tools:
        # Core's limits on names and descriptions are a service's; by the names that it makes of
        # others it would not find the tools again.
        name, schema = given.metadata.get_name(), given.metadata.fn_schema
        tool = given.metadata.to_openai_tool(skip_length_check=True)
        tool["function"]["name"] = name
        if schema is not None:
            typed = schema.model_json_schema(schema_generator=TypedJsonSchema)
            tool["function"]["parameters"] = {k: typed[k] for k in tool["function"]["parameters"]}
        offered.append(tool)
    chosen = plain_tool_choice((required or None) if choice is None else choice)
    return {"tools": offered, "tool_choice": chosen, "parallel_tool_calls": several}


def add_pieces(calls: list[ToolCall], pieces: Sequence[CallPiece]) -> None:
    """Add a token's pieces to the calls of an answer; until it ends, all have an error."""
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
    further = written_calls(calls)
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=further)


def written_calls(calls: Sequence[ToolCall]) -> dict[str, Any]:
    """Return calls as ``additional_kwargs``, where parts of core look for them; empty if none."""
    written = [call_data(call.id, call.name, call.arguments) for call in calls]
    return {"tool_calls": written} if written else {}


def calls_of(message: ChatMessage) -> list[Any]:
    """Return a message's calls as dicts of ``type``, ``id`` and ``function``.

    They come from the message's blocks or else from its ``additional_kwargs``, where some
    integrations leave dicts and others the objects of their client. Arguments stay dicts or text,
    and what is no call at all stays as it is, for the decoder to refuse.
    """
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [call_data(b.tool_call_id or "", b.tool_name or "", b.tool_kwargs) for b in blocks]
    found = message.additional_kwargs.get("tool_calls") or ()
    calls = []
    for call in found if isinstance(found, list | tuple) else [found]:
        plain = call.model_dump() if isinstance(call, BaseModel) else call
        function = plain.get("function", plain) if isinstance(plain, Mapping) else None
        if isinstance(function, Mapping):
            arguments = function.get("arguments", function.get("input"))
            plain = call_data(plain.get("id") or "", function.get("name") or "", arguments)
        calls.append(plain)
    return calls


def read_arguments(arguments: Any) -> dict[str, Any]:
    """Return arguments, or as much of their text as can be read."""
    if isinstance(arguments, str):
        try:
            arguments = from_json(arguments, allow_partial="trailing-strings")
        except ValueError:
            return {}
    return dict(arguments) if isinstance(arguments, Mapping) else {}
