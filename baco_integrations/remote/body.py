"""Requests as a server takes them."""

from __future__ import annotations

import json
import secrets
from typing import Any

from ..core.messages import Message, RawPrompt
from ..core.params import SamplingParams
from ..decoder.settings import Prompt
from .settings import require_named_router

SEEDS = 53
"""Bits of a seed that is drawn here."""


def request_of(prompt: Prompt, params: SamplingParams) -> tuple[str, dict[str, Any]]:
    """Return the path and the body of a request, without its model.

    Tokens are asked for, since completions have them. Settings that are left out are the server's,
    but for ``n``, as so many samples are waited for, and a seed, which is drawn here.

    Raises:
        ParameterError: There is a router that cannot go over the network.
    """
    require_named_router(params)
    given = params.model_dump(include=params.model_fields_set, exclude_none=True)
    given["tool_choice"] = written_choice(params)
    settings = {name: value for name, value in given.items() if value not in (None, ())}
    settings = {"n": params.n, "seed": secrets.randbits(SEEDS), **settings}
    if isinstance(prompt, RawPrompt):
        return "/completions", {**settings, "prompt": prompt.content, "logprobs": 0}
    messages = [written_message(message) for message in prompt]
    return "/chat/completions", {**settings, "messages": messages, "logprobs": True}


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
