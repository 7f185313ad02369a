"""Conversations: one string, or role/content dicts, checked before anything else happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import PromptError, nearest

ROLES = ("system", "user", "assistant", "tool")
Message = dict[str, Any]
Messages = str | Sequence[Mapping[str, Any]]

_EXAMPLE = "For example [{'role': 'user', 'content': 'Name a city.'}]."


def conversation(messages: Messages) -> list[Message]:
    """Return a conversation as a list of role/content dicts; a string is one user message.

    Raises:
        PromptError: There is no message, or one is malformed.
    """
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    if not isinstance(turns, Sequence) or isinstance(turns, bytes) or not turns:
        raise PromptError(
            "messages", "a non-empty string or a non-empty list of messages", messages, _EXAMPLE
        )
    return [_message(position, message) for position, message in enumerate(turns)]


def require_text(messages: Sequence[Message]) -> None:
    """Refuse a conversation in which nothing is said, to which there is no answer.

    Raises:
        PromptError: No message has text, or calls a tool.
    """
    if not any(message["content"].strip() or message.get("tool_calls") for message in messages):
        raise PromptError("messages", "a conversation with some text in it", messages, _EXAMPLE)


def _message(position: int, message: Mapping[str, Any]) -> Message:
    where = f"messages[{position}]"
    if not isinstance(message, Mapping):
        raise PromptError(where, "a dict with 'role' and 'content'", message, _EXAMPLE)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        hint = nearest(role, ROLES) if isinstance(role, str) else ""
        raise PromptError(
            f"{where}['role']", f"one of {', '.join(ROLES)}", role, f"{hint}{_EXAMPLE}"
        )
    if not isinstance(content, str):
        raise PromptError(
            f"{where}['content']", "a string", content, "Join multi-part content into one text."
        )
    return dict(message)
