"""Scripted pairs and a bounded wait, for the tests of the adapters."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from baco_integrations import ScriptedPair
from baco_integrations.engines.open import ENGINES
from baco_integrations.engines.scripted import ScriptedEngine
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


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait until a condition holds, for a bounded time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


class Meeting(ScriptedPair):
    """An endless pair whose first token waits until so many requests have been submitted."""

    engine = "meeting"

    def __init__(self, requests: int) -> None:
        self.requests = requests
        likely = dict.fromkeys(WORDS, 0.2)
        super().__init__(lambda _: likely, lambda _: likely, vocabulary=WORDS)


class MeetingEngine(ScriptedEngine):
    """Decodes nothing before all requests are here; the samples of one share their prompts."""

    met = False

    def iterate(self) -> None:
        self.met = self.met or eventually(self.all_here)
        assert self.met, f"not all of {self.pair.requests} requests came"  # type: ignore[attr-defined]
        super().iterate()

    def all_here(self) -> bool:
        with self.changed:
            sequences = [*self.queue, *self.admitted]
        prompts = {id(sequence.request.prompts) for sequence in sequences}
        return len(prompts) >= self.pair.requests  # type: ignore[attr-defined, no-any-return]


ENGINES["meeting"] = "tests.scripted:MeetingEngine"


def idle(decoder: Any) -> bool:
    """Tell whether the decoder stops decoding before long."""

    def still() -> bool:
        before = decoder.metrics.tokens
        time.sleep(0.1)
        return bool(decoder.metrics.tokens == before)

    return eventually(still)
