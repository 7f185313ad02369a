"""From LangChain's messages to a conversation; whether that can be decoded, the decoder checks."""

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

from ..api.data import call_data, not_text
from ..core.messages import Message, Messages

_ROLES: dict[type[BaseMessage], str] = {
    SystemMessage: "system",
    HumanMessage: "user",
    AIMessage: "assistant",
    ToolMessage: "tool",
    FunctionMessage: "tool",
}
_CALLS = ("tool_use", "tool_call")
# Blocks that repeat what stands elsewhere in the message, or that are thoughts.
_NOT_SAID = {*_CALLS, "function_call", "reasoning", "thinking", "redacted_thinking"}


def conversation_of(messages: str | Sequence[BaseMessage]) -> Messages:
    """Return messages as role/content dicts; a text stays as it is.

    Raises:
        PromptError: A message holds an image, a sound, a file or the like.
    """
    if isinstance(messages, str):
        return messages
    return [message_data(f"messages[{place}]", message) for place, message in enumerate(messages)]


def message_data(where: str, message: BaseMessage) -> Message:
    """Return one message as a role/content dict.

    Args:
        where: How errors name the message.
        message: The message.
    """
    role = next((role for kind, role in _ROLES.items() if isinstance(message, kind)), message.type)
    blocks = [message.content] if isinstance(message.content, str) else message.content
    text = "".join(text_of(f"{where}.content", block) for block in blocks)
    data: Message = {"role": message.role if isinstance(message, ChatMessage) else role}
    data["content"] = text
    if isinstance(message, AIMessage):
        # A call that was not valid is no call, but the model should see that it said it.
        wrong = [
            f"{call['name'] or ''}({call['args'] or ''})" for call in message.invalid_tool_calls
        ]
        data["content"] = "\n".join(filter(None, (text, *wrong)))
        if calls := calls_of(message):
            data["tool_calls"] = calls
    if isinstance(message, ToolMessage):
        data["tool_call_id"] = message.tool_call_id
    if isinstance(message, ToolMessage | FunctionMessage) and message.name:
        data["name"] = message.name
    return data


def calls_of(message: AIMessage) -> list[dict[str, Any]]:
    """Return the calls of a message: its own, and those that stand only in its content."""
    known = {call["id"] for call in message.tool_calls}
    written = [
        call_data(block.get("id"), block.get("name"), block.get("input", block.get("args")))
        for block in message.content
        if isinstance(block, dict) and block.get("type") in _CALLS and block.get("id") not in known
    ]
    own = [call_data(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    return own + written


def text_of(place: str, block: str | dict[Any, Any]) -> str:
    """Return the text of a content block; thoughts and calls have none.

    Raises:
        PromptError: The block is an image, a sound, a file or the like.
    """
    if isinstance(block, str):
        return block
    kind = block.get("type", "text" if "text" in block else None)
    if kind == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    if kind in _NOT_SAID:
        return ""
    raise not_text(place, kind)
