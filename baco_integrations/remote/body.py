"""Requests as a server takes them: settings as the body of ``/v1/chat/completions``."""

from __future__ import annotations

import json
import secrets
from typing import Any

from ..core.messages import Conversation, Message
from ..core.params import SamplingParams
from .settings import require_named_router

SEEDS = 53
"""Bits of a seed that is drawn here."""


def chat_body(messages: Conversation, params: SamplingParams) -> dict[str, Any]:
    """Return a request without its model; tokens are asked for, since completions have them.

    Settings that are left out are the server's. A seed is drawn here where there is none.

    Raises:
        ParameterError: There is a router that cannot go over the network.
    """
    require_named_router(params)
    given = params.model_dump(include=params.model_fields_set, exclude_none=True)
    given["tool_choice"] = written_choice(params)
    return {
        "seed": secrets.randbits(SEEDS),
        **{name: value for name, value in given.items() if value not in (None, (), [])},
        "messages": [written_message(message) for message in messages],
        "logprobs": True,
    }


def written_choice(params: SamplingParams) -> Any:
    """Return ``tool_choice`` as OpenAI writes it; None where no tool is offered."""
    choice = params.tool_choice
    if not params.tools or choice in ("auto", "none"):
        return choice if params.tools else None
    named = {"type": "function", "function": {"name": choice}}
    return "required" if choice == "any" else named


def written_message(message: Message) -> Message:
    """Return a message with the arguments of its calls as JSON text."""
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**message, "tool_calls": calls}
