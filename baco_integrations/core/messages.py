"""Conversations: one string, or role/content dicts, checked before anything else happens.

Invariant: a checked conversation is plain JSON data of its own, and the arguments of its calls are
dicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from .errors import PromptError, nearest
from .json_text import parse_json
from .plain import plain

ROLES = ("system", "user", "assistant", "tool")
Message = dict[str, Any]
Messages = str | Sequence[Mapping[str, Any]] | Sequence[int]
"""What a caller may ask with: a text, messages, or (of a raw prompt) token ids."""

_EXAMPLE = "For example [{'role': 'user', 'content': 'Name a city.'}]."
_CALL = "For example {'id': 'a', 'function': {'name': 'f', 'arguments': {'x': 1}}}."


class Conversation(list[Message]):
    """A conversation that has been checked; see `conversation`."""


@dataclass(frozen=True)
class RawPrompt:
    """A text, or token ids, that both models go on with as it stands; see `raw_prompt`."""

    content: str | tuple[int, ...]


def raw_prompt(messages: Messages | RawPrompt) -> RawPrompt:
    """Return the one text, or the token ids, that stand for a prompt without a frame.

    Raises:
        PromptError: It is something else, such as several messages.
    """
    if isinstance(messages, RawPrompt):
        return messages
    if isinstance(messages, list | tuple):
        numbers = [n for n in messages if isinstance(n, Integral) and not isinstance(n, bool)]
        if numbers and len(numbers) == len(messages):
            return RawPrompt(tuple(map(int, numbers)))
    first, *others = conversation(messages)
    if others or first["role"] != "user" or "tool_calls" in first:
        raise PromptError(
            "messages",
            "one text, one message of the user, or a list of token ids, where raw is set",
            messages,
            "Write the whole frame into one text, or leave raw out.",
        )
    return RawPrompt(first["content"])


def begun_answer(turns: Conversation) -> tuple[Conversation, str]:
    """Split a conversation into what comes before the assistant's last message, and its text.

    Raises:
        PromptError: The last message is not the assistant's, has no text or calls a tool, or
            nothing comes before it.
    """
    *before, last = turns
    said = last["role"] == "assistant" and last["content"].strip() and "tool_calls" not in last
    if not (said and before):
        raise PromptError(
            "messages",
            "a conversation whose last message, behind another, is the assistant's, with text and "
            "without tool calls, where continue_final_message is set",
            turns,
            "Let it end with the beginning of the answer, or leave continue_final_message out.",
        )
    return Conversation(before), last["content"]


def conversation(messages: Messages) -> Conversation:
    """Return a conversation as a list of role/content dicts; a string is one user message.

    One that has been checked is returned as it is.

    The arguments of a call may be a dict or JSON text, as in OpenAI's form. A call whose text is
    not that of a dict is no call, but it was said: it stays in its message as text.

    Raises:
        PromptError: There is no message, or one is malformed.
    """
    if isinstance(messages, Conversation):
        return messages
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    if not isinstance(turns, Sequence) or isinstance(turns, bytes) or not turns:
        raise PromptError(
            "messages", "a non-empty string or a non-empty list of messages", messages, _EXAMPLE
        )
    return Conversation(
        read_message(f"messages[{position}]", message) for position, message in enumerate(turns)
    )


def require_text(messages: Sequence[Message]) -> None:
    """Refuse a conversation without any text or tool call.

    Raises:
        PromptError: No message has text, or calls a tool.
    """
    if not any(message["content"].strip() or message.get("tool_calls") for message in messages):
        raise PromptError("messages", "a conversation with some text in it", messages, _EXAMPLE)


def read_message(where: str, message: object) -> Message:
    """Check a message and return a copy without what is None; `where` names it in errors."""
    if not isinstance(message, Mapping):
        raise PromptError(where, "a dict with 'role' and 'content'", message, _EXAMPLE)
    checked: Message = {k: v for k, v in plain(message, where).items() if v is not None}
    role, calls = checked.get("role"), checked.pop("tool_calls", [])
    if role not in ROLES:
        hint = nearest(role, ROLES) if isinstance(role, str) else ""
        allowed = f"one of {', '.join(ROLES)}"
        raise PromptError(f"{where}['role']", allowed, role, f"{hint}{_EXAMPLE}")
    # OpenAI's form has no content beside calls.
    content = checked.setdefault("content", "" if calls else None)
    if not isinstance(content, str):
        remedy = "Join multi-part content into one text."
        raise PromptError(f"{where}['content']", "a string", content, remedy)
    for name in ("name", "tool_call_id"):
        require_string(checked, name, where)
    if not isinstance(calls, list):
        raise PromptError(f"{where}['tool_calls']", "a list of calls", calls, _CALL)
    read = [read_call(f"{where}['tool_calls'][{index}]", call) for index, call in enumerate(calls)]
    texts = [call for call in read if isinstance(call, str)]
    if texts:
        checked["content"] = "\n".join(filter(None, (content, *texts)))
    if len(texts) < len(read):
        checked["tool_calls"] = [call for call in read if not isinstance(call, str)]
    return checked


def read_call(where: str, call: Any) -> Message | str:
    """Return a call with its arguments as a dict, or as text if they cannot be read."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise PromptError(where, "a dict with 'function', which is a dict", call, _CALL)
    if not (function.get("name") and isinstance(function["name"], str)):
        place = f"{where}['function']['name']"
        raise PromptError(place, "the name of a tool", function.get("name"), _CALL)
    require_string(call, "id", where)
    given = function.get("arguments")
    arguments: Any = {} if given is None or given == "" else given
    if isinstance(arguments, str):
        try:
            arguments = plain(parse_json(arguments), "arguments")
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            return f"{function['name']}({given})"
    if not isinstance(arguments, dict):
        place = f"{where}['function']['arguments']"
        raise PromptError(place, "a dict, or the JSON text of one", arguments, _CALL)
    identity = {"id": call["id"]} if call.get("id") is not None else {}
    written = {"name": function["name"], "arguments": arguments}
    return {"type": "function", **identity, "function": written}


def require_string(data: Message, name: str, where: str) -> None:
    """Refuse what is neither left out nor a string."""
    if not isinstance(data.get(name, ""), str | None):
        raise PromptError(f"{where}[{name!r}]", "a string", data[name], "Leave it out if unsure.")
