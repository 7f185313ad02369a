"""What is known about a token arrives as it was sent."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baco_integrations.engines.base import TokenOutput
from baco_integrations.engines.vllm.channel import LOGPROBS, decode, encode
from baco_integrations.policy.step import StepOutput

probability = st.floats(0, 1, width=32)
rows = st.lists(
    st.tuples(
        st.integers(0, 39),
        st.sampled_from([0, 1]),
        *(probability,) * 4,
        st.floats(0, 20, width=32),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


def output_of(told: list[tuple]) -> StepOutput:
    token, source, *numbers, sound = zip(*told, strict=True)
    columns = [torch.tensor(column, dtype=torch.float64) for column in numbers]
    return StepOutput(
        torch.tensor(token), torch.tensor(source), *columns, torch.tensor(sound), None
    )


@settings(deadline=None)
@given(rows, st.sampled_from([1.0, 0.1, 100.0]))
def test_numbers_survive_vllms_softmax_and_any_temperature(told: list, temperature: float) -> None:
    logits = encode(output_of(told), 40)
    assert (logits / temperature).softmax(-1).amax(-1).min() == 1
    top = logits.log_softmax(-1).topk(LOGPROBS, -1)
    for (token, source, *numbers, sound), values, ids in zip(told, *map(list, top), strict=True):
        assert ids[0] == token
        # vLLM's server cuts everything below -9999.
        found = decode(token, [max(value, -9999.0) for value in values.tolist()[::-1]])
        assert found == (TokenOutput(token, source, *numbers, False) if sound else None)


def test_missing_numbers_are_noticed() -> None:
    told = [(3, 1, 0.5, 0.5, 0.5, 0.5, 1.0, True)]
    values = encode(output_of(told), 40).log_softmax(-1).topk(LOGPROBS, -1).values[0].tolist()
    with pytest.raises(ValueError, match="10 of 11 marks came: ask for 12 logprobs"):
        decode(3, values[:-1])
    with pytest.raises(ValueError, match="0 of 11"):
        decode(3, [-0.1, -2.0])
