from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from baco_integrations import SamplingParams
from baco_integrations.engines.base import EngineRequest
from baco_integrations.engines.sequence import FIRST_UNIFORMS, SequenceState
from baco_integrations.models.scripted import ScriptedPair
from baco_integrations.policy.noise import uniforms

seeds = st.integers(0, 2**64 - 1)


@given(seeds, st.integers(0, 4096), st.integers(1, 40), st.integers(1, 40))
def test_a_draw_does_not_depend_on_how_many_are_made(seed: int, index: int, a: int, b: int) -> None:
    shorter, longer = sorted((a, b))
    np.testing.assert_array_equal(
        uniforms(seed, index, shorter), uniforms(seed, index, longer)[:shorter]
    )


@given(seeds, st.integers(0, 4096))
def test_draws_are_uniform_enough_and_below_one(seed: int, index: int) -> None:
    draws = uniforms(seed, index, 500)
    assert draws.min() >= 0 and draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.06  # 6.5 standard deviations of 1,000 uniforms
    assert len(np.unique(draws)) == 1000


def test_seeds_and_samples_have_streams_of_their_own() -> None:
    streams = {uniforms(seed, index, 1).tobytes() for seed in range(50) for index in range(50)}
    assert len(streams) == 2500


def test_known_values() -> None:
    """The stream is a promise: a seed written down today gives the same text tomorrow."""
    expected = [[0.4821286018761155, 0.724135572624844], [0.05025403948627161, 0.31612687235830483]]
    np.testing.assert_allclose(uniforms(7, 3, 2), expected, rtol=0, atol=0)


def test_a_row_draws_as_far_as_it_has_come_whatever_its_limit() -> None:
    params, end = SamplingParams(), frozenset[int]()
    request = EngineRequest(((1,), (1,)), params, 7, 3, end, 10**20, 10**20, sink=None)  # type: ignore[arg-type]
    row = SequenceState(request, ScriptedPair({"": {" a": 1}}, {}).token_space, 0.0)
    expected = uniforms(7, 3, 3000)
    for position in (
        0,
        1,
        FIRST_UNIFORMS - 1,
        FIRST_UNIFORMS,
        FIRST_UNIFORMS + 8,
        FIRST_UNIFORMS,
        2999,
    ):
        np.testing.assert_array_equal(row.noise_at(position), expected[position])
        assert len(row.noise) <= 2 * position + FIRST_UNIFORMS + 16
