"""What a request may ask of the fused model, and how it says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from baco_integrations.core.errors import ParameterError
from baco_integrations.engines.vllm.admission import REFUSED, Row, admit, row_of
from baco_integrations.policy.params import ALIGNED, BASE


def request(prompt: tuple[int, ...] = (1, 2, 3), **params: Any) -> Any:
    """What vLLM's admission passes on: the fields that are read and changed."""
    own = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "seed": None}
    fields = {**REFUSED, **own, "extra_args": None, **params}
    return SimpleNamespace(
        sampling_params=SimpleNamespace(**fields), prompt_token_ids=list(prompt), cache_salt=None
    )


def admitted(**params: Any) -> tuple[Any, Row]:
    made = request(**params)
    admit(made, window=16)
    row = row_of(made.sampling_params)
    assert row is not None
    return made, row


def test_settings_are_vllms_own_fields_and_extra_arguments() -> None:
    extra = {"router": "h", "gamma": 0.3, "boundary": 0, "base": '{"top_k": 3}', "index": 2}
    made, row = admitted(temperature=0.5, seed=7, extra_args=extra)
    own = {"temperature": 0.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7}
    more = {"router": "h", "gamma": 0.3, "boundary": False, "base": {"top_k": 3}}
    assert row == Row({**own, **more}, sample=2, scheduled=3)
    params = made.sampling_params
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0, 1, 0, 0)
    assert params.seed == 7
    assert made.cache_salt is None


def test_without_a_seed_each_request_has_one_of_its_own() -> None:
    assert len({admitted()[0].sampling_params.seed for _ in range(5)}) == 5


@pytest.mark.parametrize(
    ("base", "side", "own", "scheduled"),
    [((9, 8), BASE, (9, 8), (1, 2, 3)), ((9, 8, 7, 6), ALIGNED, (1, 2, 3), (9, 8, 7, 6))],
)
def test_the_longer_prompt_is_scheduled_and_nobody_shares_it(
    base: tuple, side: int, own: tuple, scheduled: tuple
) -> None:
    made, row = admitted(extra_args={"base_prompt_ids": list(base)})
    assert (row.side, tuple(row.prompt), row.offset) == (side, own, len(scheduled) - len(own))
    assert made.prompt_token_ids == list(scheduled)
    again, _ = admitted(extra_args={"base_prompt_ids": list(base)})
    assert made.cache_salt != again.cache_salt


def test_the_same_prompt_for_both_is_shared() -> None:
    made, row = admitted(extra_args={"base_prompt_ids": [1, 2, 3]})
    assert (made.cache_salt, row.side) == (None, None)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"extra_args": {"gama": 0.5}}, "gama must be one of .* Did you mean 'gamma'"),
        ({"extra_args": {"gamma": 2}}, "gamma must be a number from 0"),
        ({"extra_args": {"base": "{"}}, "base must be a dict of settings, or one as JSON"),
        ({"extra_args": {"router": "q"}}, "router must be"),
        ({"extra_args": {"base_prompt_ids": []}}, "base_prompt_ids must be a list of token ids"),
        ({"extra_args": {"base_prompt_ids": [1] * 16}}, "shorter than the window of 16"),
        ({"extra_args": {"base_prompt_ids": "ab"}}, "base_prompt_ids must be a list"),
        ({"presence_penalty": 1.0}, "presence_penalty must be 0.0 with this model"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids must be None with this model"),
        ({"structured_outputs": object()}, "structured_outputs must be None"),
        ({"prompt_logprobs": 0}, "prompt_logprobs must be None"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(params: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        admitted(**params)
