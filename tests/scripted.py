"""Scripted pairs and a bounded wait, for the tests of the adapters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from baco_integrations import ScriptedPair
from baco_integrations.models.scripted import Context

WORDS = [" red", " fox", " the", " sea", " and"]


def endless(delay: float = 0.0) -> ScriptedPair:
    """A pair that never ends its turn; each forward takes at least `delay` seconds."""

    def words(context: Context) -> dict[str, float]:
        time.sleep(delay)
        return dict.fromkeys(WORDS, 0.2)

    return ScriptedPair(words, words, vocabulary=WORDS)


def cities() -> ScriptedPair:
    """Base is torn between two cities, aligned always says Rome; then a full stop, then the end."""
    end = {city: {".": 1.0} for city in (" Rome", " Oslo", " Bergen")}
    return ScriptedPair(
        {"": {" Oslo": 0.5, " Bergen": 0.5}, **end}, {"": {" Rome": 1.0}, **end}, context=2048
    )


class Meeting(ScriptedPair):
    """An endless pair whose first token waits until so many requests have come."""

    def __init__(self, requests: int) -> None:
        self.missing = requests
        self._all_here = threading.Event()
        self._counting = threading.Lock()

        def words(context: Context) -> dict[str, float]:
            assert self._all_here.wait(20), f"{self.missing} requests never came"
            return dict.fromkeys(WORDS, 0.2)

        super().__init__(words, words, vocabulary=WORDS)

    def render_aligned(self, messages: Any, *, tokenize: bool = False) -> Any:
        with self._counting:
            self.missing -= 1
            if self.missing == 0:
                self._all_here.set()
        return super().render_base(messages, tokenize=tokenize)


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait until a condition holds, for a bounded time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def idle(decoder: Any) -> bool:
    """Tell whether the decoder stops decoding before long."""

    def still() -> bool:
        before = decoder.metrics.tokens
        time.sleep(0.1)
        return bool(decoder.metrics.tokens == before)

    return eventually(still)
