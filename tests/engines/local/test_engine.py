"""The local engine runs what it is asked to run, and no more."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from baco_integrations import Decoder, SamplingParams
from baco_integrations.engines.base import EngineSettings
from baco_integrations.engines.local.runner import ModelRunner
from baco_integrations.engines.open import open_engine
from tests.pairs import random_pair


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Each forward that runs: its model, and how many rows it reads."""
    calls: list[tuple[int, int]] = []
    call_model = ModelRunner.call_model

    def noting(runner: ModelRunner, inputs: Any, *given: Any) -> Any:
        calls.append((id(runner.model), len(inputs)))
        return call_model(runner, inputs, *given)

    monkeypatch.setattr(ModelRunner, "call_model", noting)
    return calls


@pytest.mark.parametrize("side", ["base", "aligned"])
def test_one_side_alone_never_runs_the_other(
    ran: list[tuple[int, int]], side: Literal["base", "aligned"]
) -> None:
    pair = random_pair()
    asked: dict[str, Any] = {"router": side, "seed": 3, "n": 2, "max_tokens": 8}
    with Decoder(pair, lookahead="off") as both:
        # Alternatives are those of both models.
        wanted = both.generate("Name a city.", **asked, alternatives=1)
        assert {model for model, _ in ran} == {id(pair.base), id(pair.aligned)}
        ran.clear()
        found = both.generate("Name a city.", **asked)
    engine = open_engine(pair, EngineSettings(lookahead="off"), only=side)
    with Decoder(pair, engine=engine) as alone:
        assert [each.text for each in alone.generate("Name a city.", **asked)] == [
            each.text for each in found
        ]
    assert {model for model, _ in ran} == {id(getattr(pair, side))}
    unknown = ("p_aligned",) if side == "base" else ("p_base", "p_max", "entropy")
    for one, other in zip(wanted, found, strict=True):
        assert [step[:2] for step in one.steps] == [step[:2] for step in other.steps]
        for step in other.steps:
            nan = {name for name, value in step._asdict().items() if value != value}
            assert nan == {*unknown}


@pytest.mark.parametrize("lookahead", ["off", 3])
def test_each_row_runs_only_the_sides_that_it_needs(
    ran: list[tuple[int, int]], lookahead: Any
) -> None:
    pair, texts = random_pair(), ["Name a city.", "Tell me a story.", "Count.", "What is it?"]
    routers = ("aligned", "p-punc", "base", "rand")
    params = [
        SamplingParams(router=router, seed=row, max_tokens=12) for row, router in enumerate(routers)
    ]
    with Decoder(pair, lookahead=lookahead) as decoder:
        together = decoder.generate_batch(texts, params)
        # Base reads three of the rows, aligned three others.
        assert max(rows for _, rows in ran) == 3
        for text, each, (beside,) in zip(texts, params, together, strict=True):
            (alone,) = decoder.generate(text, each)
            assert [step[:3] for step in alone.steps] == [step[:3] for step in beside.steps]


def test_what_one_side_has_read_is_not_taken_for_the_other() -> None:
    pair, text = random_pair(), "Name a city by the sea that few people know."
    params = SamplingParams(seed=1, max_tokens=8)
    with Decoder(pair, prefix_bytes=0) as decoder:
        (alone,) = decoder.generate(text, params)
        with decoder.stream(text, router="aligned", seed=2, max_tokens=200) as running:
            next(running)
            (beside,) = decoder.generate(text, params)
    assert [step[:3] for step in alone.steps] == [step[:3] for step in beside.steps]
