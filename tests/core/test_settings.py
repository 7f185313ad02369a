"""Settings: what is no value of theirs is refused in our words, and secrets are not repeated."""

from __future__ import annotations

import pickle
import traceback
from typing import Any

import numpy as np
import pytest
import torch

from baco_integrations import SamplingParams
from baco_integrations.core.errors import ParameterError
from baco_integrations.core.params import SideSampling
from baco_integrations.models.options import LoadOptions

SECRET = "hf_SECRET"


@pytest.mark.parametrize("five", [np.int64(5), np.uint8(5), np.array(5), torch.tensor(5)])
def test_scalars_of_other_libraries_are_integers(five: Any) -> None:
    params = SamplingParams(seed=five, top_k=five)
    assert (params.seed, params.top_k) == (5, 5)
    assert type(params.seed) is int


class Unwilling:
    """An integer, until it is asked for one."""

    def __index__(self) -> int:
        raise LookupError


@pytest.mark.parametrize(
    "value",
    [
        *(True, np.True_, np.array(True), torch.tensor(True)),
        *(torch.tensor(0.5), np.array(5.0), np.array([1, 2]), torch.tensor([1, 2])),
        *(torch.tensor(5, device="meta"), int, Unwilling()),
    ],
)
@pytest.mark.parametrize("name", ["seed", "n", "top_k"])
def test_what_is_no_integer(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=f"^{name} must be a whole number"):
        SamplingParams(**{name: value})


def test_settings_are_named_by_strings() -> None:
    with pytest.raises(ParameterError, match="base must be a SideSampling or a dict"):
        SamplingParams(base={1: 2})


@pytest.mark.parametrize("name", ["hf_token", "use_auth_token", "api_key", "tokn"])
@pytest.mark.parametrize(
    "make",
    [
        lambda given: LoadOptions(**given),
        lambda given: LoadOptions().replace(**given),
        lambda given: SamplingParams(**given),
        lambda given: SamplingParams(base=given),
        lambda given: SamplingParams().replace(aligned=given),
        lambda given: SideSampling(**given),
    ],
)
def test_the_value_of_an_unknown_setting_is_not_told(name: str, make: Any) -> None:
    with pytest.raises(ParameterError, match=f"^{name} must be one of the settings") as raised:
        make({name: SECRET})
    error = raised.value
    told = [str(error), repr(error), str(vars(error)), str(pickle.dumps(error))]
    told.append("".join(traceback.format_exception(error)))
    assert not any(SECRET in text for text in told)
    assert "<class 'str'>" in str(error)
    assert error.__context__ is None  # pydantic's own error holds the values
