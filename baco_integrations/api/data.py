"""Answers and parts of messages as plain data, in OpenAI's form where it has one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.errors import PromptError
from ..core.outputs import Completion, TokenStep


def call_data(call_id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    """Return a tool call as an OpenAI-style dict of ``type``, ``id`` and ``function``."""
    function = {"name": name, "arguments": arguments}
    return {"type": "function", "id": call_id, "function": function}


def not_text(place: str, kind: object) -> PromptError:
    """Return the error of a part of a message that is no text.

    Args:
        place: Where it stands, such as ``messages[0].content``.
        kind: What it is.
    """
    remedy = "The models of a pair read text only: leave it out, or describe it in words."
    return PromptError(place, "text", f"a block of type {kind}", remedy)


def plain_tool_choice(asked: Any) -> Any:
    """Return what `SamplingParams` calls a ``tool_choice``.

    Args:
        asked: ``auto``, ``any``, ``required``, ``none``, a bool, the name of a tool, or OpenAI's
            or Anthropic's dict that holds one. None leaves it to the model.
    """
    for name in ("function", "name", "type"):
        if isinstance(asked, Mapping):
            asked = asked.get(name, asked)
    common = {None: "auto", True: "any", False: "none", "required": "any"}
    return common.get(asked, asked) if isinstance(asked, str | bool | None) else asked


def summary(completion: Completion) -> dict[str, Any]:
    """Return how a completion came about, as plain data."""
    names = ("finish_reason", "gamma", "router", "base_share", "switches", "seed")
    label = {"approximate": True} if completion.approximate else {}
    return {name: getattr(completion, name) for name in names} | label


def text_sources(completion: Completion) -> list[list[str]]:
    """Return a completion's text in pieces, each with who gave it, as plain data."""
    return [[*piece] for piece in completion.sources]


def token_usage(completions: Iterable[Completion]) -> dict[str, int]:
    """Return the numbers of tokens of one request's samples; their prompt counts once."""
    usages = [completion.usage for completion in completions]
    prompt = usages[0].prompt_tokens if usages else 0
    decoded = sum(usage.completion_tokens for usage in usages)
    return {"prompt_tokens": prompt, "completion_tokens": decoded, "total_tokens": prompt + decoded}


def provenance(step: TokenStep) -> dict[str, Any]:
    """Return the fields of a step but ``sample``, as plain data; without what is not known."""
    known = {name: value for name, value in step._asdict().items() if value == value}
    data = {**known, "calls": [piece._asdict() for piece in step.calls]}
    del data["sample"]
    alternatives = data.pop("alternatives")
    if alternatives is not None:
        data["alternatives"] = {
            source: [offered._asdict() for offered in each] for source, each in alternatives.items()
        }
    return data
