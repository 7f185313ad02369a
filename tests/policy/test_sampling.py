"""Four-token distributions with exact answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from baco_integrations import SamplingParams
from baco_integrations.policy.sampling import Filters, Sampling, filtered, sample
from tests.conformance.definition import distribution


def draw(
    probabilities: list[float],
    u: float,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    alternatives: int = 0,
) -> Any:
    logits = torch.tensor(
        [[math.log(p) if p else -math.inf for p in probabilities]], dtype=torch.float64
    )
    side = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p).side(
        "base"
    )
    uniform = torch.tensor([u], dtype=torch.float64)
    every = Filters(max(top_k, 1), True, True)
    drawn = sample(logits, uniform, Sampling.build(side), every, alternatives)
    if drawn.likeliest is None:
        return int(drawn.token)
    (ids,), (chances,) = (each.tolist() for each in drawn.likeliest)
    return float(drawn.probability), {i: p for i, p in zip(ids, chances, strict=True) if p}


ABOVE_HALF = 0.5 + 1e-9
LAST = 1 - 2**-52


@pytest.mark.parametrize(
    ("u", "token"), [(0.0, 0), (0.0999, 0), (0.1001, 1), (0.2999, 1), (0.3001, 2), (LAST, 3)]
)
def test_inverse_cdf(u: float, token: int) -> None:
    assert draw([0.1, 0.2, 0.3, 0.4], u) == token


@pytest.mark.parametrize("u", [0.0, 0.3, LAST])
def test_impossible_tokens_are_never_drawn(u: float) -> None:
    assert draw([0.0, 0.0, 1.0, 0.0], u) == 2
    assert draw([0.0, 1.0, 0.0, 0.0], u) == 1


def test_greedy_takes_the_lowest_of_equals() -> None:
    assert draw([0.2, 0.4, 0.4, 0.0], LAST, temperature=0) == 1


def test_temperature_sharpens_and_flattens() -> None:
    # At T = 1/2 the odds 1:3 become 1:9, at T = 2 they become 1:sqrt(3).
    assert draw([0.25, 0.75, 0, 0], 0.0999, temperature=0.5) == 0
    assert draw([0.25, 0.75, 0, 0], 0.1001, temperature=0.5) == 1
    edge = 1 / (1 + math.sqrt(3))
    assert draw([0.25, 0.75, 0, 0], edge - 1e-6, temperature=2) == 0
    assert draw([0.25, 0.75, 0, 0], edge + 1e-6, temperature=2) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-300, 1e-50, 1e-6, 100.0])
def test_extreme_temperatures(dtype: torch.dtype, temperature: float) -> None:
    logits = torch.tensor([[-90.0, 40.0, 39.9, -torch.inf]], dtype=dtype)
    settings = Sampling.build(SamplingParams(temperature=temperature).side("base"))
    settings = Sampling(*(each.to(dtype) for each in settings))
    uniform = torch.tensor([1 - 2**-20], dtype=dtype)
    token = int(sample(logits, uniform, settings, Filters()).token)
    assert token == (2 if temperature == 100 else 1)


def test_top_k_keeps_ties() -> None:
    assert draw([0.1, 0.4, 0.4, 0.1], ABOVE_HALF, top_k=1) == 2
    assert draw([0.1, 0.4, 0.4, 0.1], LAST, top_k=2) == 2


def test_top_p_keeps_the_token_that_crosses() -> None:
    assert draw([0.1, 0.2, 0.3, 0.4], LAST, top_p=0.4) == 3
    assert draw([0.1, 0.2, 0.3, 0.4], 0.0, top_p=0.39) == 3
    assert draw([0.1, 0.2, 0.3, 0.4], 0.0, top_p=0.41) == 2
    assert draw([0.1, 0.2, 0.3, 0.4], 0.0, top_p=1e-9) == 3


def test_top_p_at_a_boundary_keeps_no_more() -> None:
    # Halves are exact in binary: what comes before the second token is all of top-p.
    assert draw([0.5, 0.5, 0, 0], LAST, top_p=0.5) == 0
    assert draw([0.25, 0.25, 0.25, 0.25], LAST, top_p=0.75) == 2
    assert draw([0.5, 0.5, 0, 0], LAST, top_p=0.5 + 2**-53) == 1


def test_min_p_is_relative_to_the_best() -> None:
    assert draw([0.1, 0.2, 0.3, 0.4], 0.0, min_p=0.49) == 1
    assert draw([0.1, 0.2, 0.3, 0.4], 0.0, min_p=0.51) == 2
    assert draw([0.1, 0.2, 0.3, 0.4], 0.0, min_p=1.0) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [2, 1000])  # with many ties, and with few
def test_filters_leave_what_a_sorted_list_leaves(dtype: torch.dtype, steps: int) -> None:
    generator = np.random.default_rng(steps)
    for _ in range(50):
        logits = np.round(generator.normal(size=60) * 3 * steps) / steps
        logits[generator.random(60) < 0.1] = -np.inf
        sides = [
            SamplingParams(
                temperature=float(generator.choice([0.5, 1, 2])),
                top_k=int(generator.choice([0, 1, 7, 59, 60, 1000])),
                top_p=float(generator.choice([1e-6, 0.3, 0.77, 0.95, 1])),
                min_p=float(generator.choice([0, 0.01, 0.3])),
            ).side("base")
            for _ in range(3)
        ]
        rows = [torch.cat(each).to(dtype) for each in zip(*map(Sampling.build, sides), strict=True)]
        several = torch.from_numpy(logits).to(dtype).expand(3, -1)
        scaled = (several - several.amax()) / rows[0][:, None]
        left = filtered(scaled, scaled.softmax(-1), Sampling(*rows), Filters.of(sides))
        for found, side in zip(left, sides, strict=True):
            wanted = distribution(logits, side)
            assert (found > 0).tolist() == (wanted > 0).tolist(), side
            np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_filters_apply_in_order() -> None:
    # top-k leaves .4 and .3 (of .7); of these top-p = .5 keeps only the first.
    assert draw([0.1, 0.2, 0.3, 0.4], 0.0, top_k=2, top_p=0.5) == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}),
        ({"temperature": 0.5}, {0: 1 / 30, 1: 4 / 30, 2: 9 / 30, 3: 16 / 30}),
        ({"temperature": 0}, {3: 1}),
        ({"top_k": 2}, {2: 3 / 7, 3: 4 / 7}),
        ({"top_p": 0.71}, {1: 2 / 9, 2: 3 / 9, 3: 4 / 9}),
        ({"min_p": 0.7}, {2: 3 / 7, 3: 4 / 7}),
    ],
)
def test_what_was_drawn_from(settings: dict, expected: dict) -> None:
    for u in (0.0, 0.5, LAST):
        token = draw([0.1, 0.2, 0.3, 0.4], u, **settings)
        p, likeliest = draw([0.1, 0.2, 0.3, 0.4], u, **settings, alternatives=9)
        assert likeliest == pytest.approx(expected)
        assert p == likeliest[token]
        assert list(likeliest.values()) == sorted(likeliest.values(), reverse=True)


def test_greedy_offers_the_lowest_of_equals() -> None:
    assert draw([0.2, 0.4, 0.4, 0.0], LAST, temperature=0, alternatives=3) == (1, {1: 1})
