"""What a call asks: its prompt and its settings, checked, and until when it may take."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import ParameterError, PromptError
from ..core.messages import (
    Conversation,
    Messages,
    RawPrompt,
    begun_answer,
    conversation,
    raw_prompt,
    require_text,
)
from ..core.params import SamplingParams

Prompt = Conversation | RawPrompt
"""What was asked, checked."""


def checked_prompt(messages: Messages | RawPrompt, params: SamplingParams) -> Prompt:
    """Return what was asked, checked; what has been checked is returned as it is.

    Raises:
        PromptError: It is malformed, or not what the settings need.
    """
    if params.raw or isinstance(messages, RawPrompt):
        return raw_prompt(messages)
    turns = conversation(messages)
    require_text(turns)
    if params.continue_final_message:
        begun_answer(turns)
    return turns


def deadline_of(params: SamplingParams) -> float:
    """Return when a request fails that comes now, by `time.monotonic`."""
    return math.inf if params.timeout is None else time.monotonic() + params.timeout


def params_of_call(params: SamplingParams | None, settings: Mapping[str, Any]) -> SamplingParams:
    """Return the settings of a call: those of `params`, and single ones over them.

    Raises:
        ParameterError: A setting is not allowed.
    """
    if params is None:
        return SamplingParams(**settings)
    if not isinstance(params, SamplingParams):
        raise ParameterError(
            "params", "a SamplingParams", params, "For example SamplingParams(gamma=0.6)."
        )
    return params.replace(**settings) if settings else params


def params_of_each(
    conversations: Sequence[Messages], params: SamplingParams | Sequence[SamplingParams] | None
) -> Sequence[SamplingParams | None]:
    """Return the settings of each conversation of a batch.

    Raises:
        ParameterError: There are neither settings for all nor for each.
        PromptError: The conversations are no list.
    """
    if isinstance(conversations, str) or not isinstance(conversations, Sequence):
        raise PromptError(
            "conversations", "a list of conversations", conversations, "Use generate() for one."
        )
    if params is None or isinstance(params, SamplingParams):
        return [params] * len(conversations)
    if not isinstance(params, Sequence) or len(params) != len(conversations):
        raise ParameterError(
            "params",
            f"one SamplingParams, or a list of {len(conversations)}",
            params,
            "Give one for all, or one per conversation.",
        )
    return params
