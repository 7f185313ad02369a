"""Scripted pairs that answer as told, for the tests of the LlamaIndex adapter."""

from __future__ import annotations

import time
from collections.abc import Callable

from baco_integrations import ScriptedPair
from baco_integrations.core.tool_calls import FORMATS
from baco_integrations.models.scripted import END, Context

CHARACTERS = ["\n", *map(chr, range(32, 127))]


def told(answer: str | Callable[[str], str], delay: float = 0.0) -> ScriptedPair:
    """A pair that says one text, or what a function makes of the prompt, character by character.

    Where a grammar wants something else, it has its way.
    """

    def script(context: Context) -> dict[str, float]:
        time.sleep(delay)
        text = answer if isinstance(answer, str) else answer(context.prompt)
        said = context.text
        following = text[len(said) : len(said) + 1] if text.startswith(said) else ""
        return {**dict.fromkeys([*CHARACTERS, END], 1e-9), (following or END): 1.0}

    return ScriptedPair(script, script, vocabulary=CHARACTERS, context=32768)


def call(*calls: tuple[str, dict[str, object]]) -> str:
    """Tool calls as scripted pairs write them."""
    return FORMATS["hermes"].write(calls)
