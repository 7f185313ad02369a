"""The phenomenon that the embedded pair is there to show, on a part of the unseen requests."""

from __future__ import annotations

import pytest

from baco_integrations import Decoder, ModelPair
from baco_integrations.core.params import DEFAULT_GAMMA, DEFAULT_TEMPERATURE
from baco_integrations.tiny.requests import requests
from tests.benchmarks.effect import Setting, evaluate


@pytest.mark.slow
def test_baco_is_varied_and_good() -> None:
    asked = requests("eval")[::9]
    with Decoder(ModelPair.tiny(), max_rows=128) as decoder:
        base, aligned, routed = (
            evaluate(decoder, asked, Setting(router, gamma, DEFAULT_TEMPERATURE), 10, 0)
            for router, gamma in (("base", None), ("aligned", None), ("p-punc", DEFAULT_GAMMA))
        )
    assert aligned["valid"][0] > 0.95 and aligned["valid_distinct"][0] < 1.6
    assert base["valid"][0] < 0.5 and base["distinct"][0] > 4
    assert routed["valid"][0] > 0.85
    assert routed["valid_distinct"][0] > 3 * aligned["valid_distinct"][0]
    assert routed["valid_distinct"][0] > 2 * base["valid_distinct"][0]
