"""The local engine runs what it is asked to run, and no more."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from baco_integrations import Decoder
from baco_integrations.engines.base import EngineSettings
from baco_integrations.engines.local.runner import ModelRunner
from baco_integrations.engines.open import open_engine
from tests.pairs import random_pair


@pytest.mark.parametrize("side", ["base", "aligned"])
def test_one_side_alone_never_runs_the_other(
    monkeypatch: pytest.MonkeyPatch, side: Literal["base", "aligned"]
) -> None:
    pair, ran = random_pair(), set()
    call_model = ModelRunner.call_model

    def noting(runner: ModelRunner, *given: Any) -> Any:
        ran.add(id(runner.model))
        return call_model(runner, *given)

    monkeypatch.setattr(ModelRunner, "call_model", noting)
    asked: dict[str, Any] = {"router": side, "seed": 3, "n": 2, "max_tokens": 8}
    with Decoder(pair, lookahead="off") as both:
        expected = [each.text for each in both.generate("Name a city.", **asked)]
    assert ran == {id(pair.base), id(pair.aligned)}
    ran.clear()
    engine = open_engine(pair, EngineSettings(lookahead="off"), only=side)
    with Decoder(pair, engine=engine) as alone:
        assert [each.text for each in alone.generate("Name a city.", **asked)] == expected
    assert ran == {id(getattr(pair, side))}
