"""From LlamaIndex's messages to a conversation; whether that can be decoded, the decoder checks."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from ..api.data import not_text
from ..core.messages import Message
from .tools import calls_of

_ROLES = {
    MessageRole.DEVELOPER: "system",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
}


def conversation_of(messages: Sequence[ChatMessage]) -> list[Message]:
    """Return messages as role/content dicts.

    Raises:
        PromptError: A message holds an image, a sound, a document or the like.
    """
    return [message_data(f"messages[{place}]", message) for place, message in enumerate(messages)]


def message_data(where: str, message: ChatMessage) -> Message:
    """Return one message as a role/content dict; thoughts are left out.

    The dict also has the message's tool calls, ``name`` and ``tool_call_id``, where there are any.

    Args:
        where: How errors name the message.
        message: The message.

    Raises:
        PromptError: The message holds an image, a sound, a document or the like.
    """
    for block in message.blocks:
        if not isinstance(block, TextBlock | ToolCallBlock | ThinkingBlock | CachePoint):
            raise not_text(f"{where}.blocks", block.block_type)
    texts = [block.text for block in message.blocks if isinstance(block, TextBlock)]
    data: Message = {
        "role": _ROLES.get(message.role, message.role.value),
        "content": "\n".join(texts),
    }
    if calls := calls_of(message):
        data["tool_calls"] = calls
    further = message.additional_kwargs
    return data | {name: further[name] for name in ("name", "tool_call_id") if name in further}
