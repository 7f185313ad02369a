"""Scripted and local engine are equals: the same scripts give the same tokens on both."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from baco_integrations import Completion, Decoder, ScriptedPair
from baco_integrations.core.routing import ROUTERS
from baco_integrations.engines.base import EngineSettings
from baco_integrations.engines.open import open_engine
from baco_integrations.models.scripted import Context
from tests.engines.local.scripted_runner import local_decoder

TOKENS = (" a", " b", "c", ".", " d", "<end>")


def noisy(salt: int) -> Any:
    """A script whose weights depend on all that has been decoded, in no simple way."""

    def script(context: Context) -> dict[str, float]:
        key = sum(map(ord, context.text + context.prompt[-3:])) * 31 + salt
        return {token: (key * (place + 7)) % 11 + 0.01 for place, token in enumerate(TOKENS)}

    return script


PAIR = ScriptedPair(noisy(1), noisy(5), vocabulary=TOKENS)


def told(completion: Completion) -> Any:
    return completion.text, completion.finish_reason, completion.steps


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(ROUTERS)),
    st.floats(0, 1),
    st.integers(0, 2**32),
    st.sampled_from([None, "[ abcd.]{3,9}"]),
    st.sampled_from(["off", 3]),
)
def test_both_engines_decode_alike(
    router: str, gamma: float, seed: int, regex: str | None, lookahead: Any
) -> None:
    asked: dict[str, Any] = {"router": router, "seed": seed, "n": 3, "max_tokens": 12}
    asked |= {"regex": regex, "alternatives": 2, "top_p": 0.9}
    if ROUTERS[router].rule:
        asked["gamma"] = gamma
    with Decoder(PAIR) as scripted, local_decoder(PAIR, lookahead=lookahead) as local:
        assert list(map(told, scripted.generate("Go.", **asked))) == list(
            map(told, local.generate("Go.", **asked))
        )


def test_one_side_alone_and_a_mixture() -> None:
    with Decoder(PAIR) as both:
        expected = both.generate("Go.", router="aligned", seed=2, n=4)
    alone = open_engine(PAIR, EngineSettings(), only="aligned")
    with Decoder(PAIR, engine=alone) as decoder:
        texts = [each.text for each in decoder.generate("Go.", router="aligned", seed=2, n=4)]
    assert texts == [each.text for each in expected]
    base = open_engine(PAIR, EngineSettings(), mix=lambda base, aligned: base)
    with Decoder(PAIR, engine=base) as mixed, Decoder(PAIR) as both:
        (replaced,) = mixed.generate("Go.", router="aligned", seed=2)
        assert all(step.p_aligned == step.p_base for step in replaced.steps)
