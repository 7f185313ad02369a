"""From LangChain's messages to a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from ..core.errors import PromptError
from ..core.messages import Message

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (SystemMessage, "system"),
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (ToolMessage, "tool"),
    (FunctionMessage, "tool"),
)
_CALLS = ("tool_use", "tool_call")
# Said elsewhere in the message, or not part of what was said (thoughts).
_SILENT = {*_CALLS, "function_call", "reasoning", "thinking", "redacted_thinking"}


def conversation_of(messages: Sequence[BaseMessage]) -> list[Message]:
    """Return role/content dicts; what cannot be said in text is refused.

    Raises:
        PromptError: A message holds an image, a sound, a file or the like.
    """
    return [_message(position, message) for position, message in enumerate(messages)]


def _message(position: int, message: BaseMessage) -> Message:
    converted: Message = {"role": _role(message), "content": _text(position, message.content)}
    if isinstance(message, AIMessage):
        # A call that was not valid is no call, but it was said.
        wrong = [
            f"{call['name'] or ''}({call['args'] or ''})" for call in message.invalid_tool_calls
        ]
        converted["content"] = "\n".join(filter(None, (converted["content"], *wrong)))
        if calls := _calls(message):
            converted["tool_calls"] = calls
    if isinstance(message, ToolMessage):
        converted["tool_call_id"] = message.tool_call_id
    if isinstance(message, ToolMessage | FunctionMessage) and message.name:
        converted["name"] = message.name
    return converted


def _calls(message: AIMessage) -> list[dict[str, Any]]:
    """Return the calls of a message: core's, and those that stand in its content only."""
    known = {call["id"] for call in message.tool_calls}
    blocks = [block for block in message.content if isinstance(block, dict)]
    written = [
        {
            "id": block.get("id"),
            "name": block.get("name"),
            "args": block.get("input", block.get("args")),
        }
        for block in blocks
        if block.get("type") in _CALLS and block.get("id") not in known
    ]
    return [
        {
            "type": "function",
            "id": call["id"],
            "function": {"name": call["name"], "arguments": call["args"]},
        }
        for call in (*message.tool_calls, *written)
    ]


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return message.role
    return next((role for kind, role in _ROLES if isinstance(message, kind)), message.type)


def _text(position: int, content: str | list[str | dict[Any, Any]]) -> str:
    parts = [content] if isinstance(content, str) else content
    return "".join(
        part if isinstance(part, str) else _block(f"messages[{position}]", part) for part in parts
    )


def _block(where: str, block: dict[Any, Any]) -> str:
    kind = block.get("type", "text" if "text" in block else None)
    if kind == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    if kind in _SILENT:
        return ""
    raise PromptError(
        f"{where}.content",
        "text",
        f"a block of type {kind}",
        "The models of a pair read text only: leave it out, or describe it in words.",
    )
