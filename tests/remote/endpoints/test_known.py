"""What has not come of a distribution, and whether it could have changed a token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baco_integrations import SamplingParams, ScriptedPair
from baco_integrations.policy.params import BASE, PolicyParams, State
from baco_integrations.policy.step import decide
from baco_integrations.remote.endpoints.known import Known, fill, signals_of, uncertain


@pytest.mark.parametrize(
    ("words", "rest", "boundary", "expected"),
    [
        (0.0006, 0.0005, True, True),  # what has not come may be words enough: .001
        (0.0006, 0.0003, True, False),  # there are too few of them either way
        (0.0011, 0.0005, True, False),  # there are enough of them either way
        (0.0006, 0.0005, False, False),  # nobody asks
    ],
)
def test_whether_a_side_starts_words(
    words: float, rest: float, boundary: bool, expected: bool
) -> None:
    """Base's word has ended; aligned, which is asked for the next one, mostly goes on with it."""
    pair = ScriptedPair({}, {}, vocabulary=[" red", " fox", "es"])
    red, fox, es = range(3)
    classes = pair.token_space.classes("cpu")
    assert classes.starts_word[[red, fox, es]].tolist() == [True, True, False]

    base = Known(np.array([red, fox]), np.log([0.9, 0.1]), 0.0, 0.0, 0)
    aligned = Known(np.array([fox, es]), np.log([words, 1 - words - rest]), 0.0, rest, 1)
    every = np.arange(len(classes.starts_word))
    logits = [fill([side], every) for side in (base, aligned)]
    params = PolicyParams.build(
        SamplingParams(router="p", gamma=0.5, temperature=0, boundary=boundary)
    )
    one, half = torch.tensor([1]), torch.tensor([0.5], dtype=torch.float64)
    state = State(torch.tensor([BASE]), one, half, half)
    decision = decide(*logits, params, state, classes, signals=signals_of([base], logits[BASE]))
    known = [[base], [aligned]]
    assert uncertain(decision, params, state, classes, known).tolist() == [expected]
