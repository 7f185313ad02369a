"""What the engines of this process have in common: after a fault nobody is forgotten or held up."""

from __future__ import annotations

import time
from typing import Any

import pytest

from baco_integrations import Decoder, ScriptedPair
from baco_integrations.core.errors import DeadlineError
from baco_integrations.engines.base import EngineSettings
from baco_integrations.engines.local.scheduler import Scheduler
from baco_integrations.engines.open import open_engine
from baco_integrations.models.scripted import Context
from baco_integrations.policy.params import PolicyParams
from tests.engines.local.scripted_runner import local_decoder
from tests.scripted import WORDS, endless, eventually


def test_after_a_shortage_of_memory_as_many_run_as_before() -> None:
    short = [True]

    def words(context: Context) -> dict[str, float]:
        if short and context.tokens:
            short.clear()
            raise MemoryError
        return dict.fromkeys(WORDS, 0.2)

    pair = ScriptedPair(words, words, vocabulary=WORDS)
    engine: Any = open_engine(pair, EngineSettings(max_rows=6))
    with Decoder(pair, engine=engine) as decoder:
        decoder.generate("x", n=6, max_tokens=4)
        assert decoder.metrics.restarts == 1
        assert eventually(lambda: engine.most_rows == 6)


def test_who_is_late_is_told_even_if_a_slot_cannot_be_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, released = Scheduler.release, []

    def failing(scheduler: Scheduler, sequence: Any, *, keep: bool) -> None:
        released.append(sequence)
        if len(released) == 2:
            raise MemoryError
        release(scheduler, sequence, keep=keep)

    with local_decoder(endless(0.001)) as decoder:
        streams = [decoder.stream("x", max_tokens=4000, timeout=30) for _ in range(3)]
        for stream in streams:
            next(stream)
        monkeypatch.setattr(Scheduler, "release", failing)
        began = time.monotonic()
        for stream in streams:
            stream.mailbox.requests[0].deadline = began + 0.3
        for stream in streams:
            with pytest.raises(DeadlineError):
                list(stream)
        assert time.monotonic() - began < 15
    assert len(released) >= 2


def test_settings_are_stacked_only_when_sequences_come_or_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack, stacked = PolicyParams.stack, []

    def noting(parts: Any, *place: Any) -> PolicyParams:
        stacked.append(len(parts))
        return stack(parts, *place)

    monkeypatch.setattr(PolicyParams, "stack", noting)
    for opened in (Decoder, local_decoder):
        stacked.clear()
        with opened(endless()) as decoder:
            decoder.generate("x", n=3, max_tokens=9)
            decoder.generate("x", max_tokens=9)
        assert stacked in ([3, 1], [1, 3, 1])  # the first sample may be prefilled for all
        assert decoder.engine.policy is None  # type: ignore[attr-defined]
