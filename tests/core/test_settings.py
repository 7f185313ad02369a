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
from baco_integrations.core.settings import Checked, stated
from baco_integrations.models.options import LoadOptions
from baco_integrations.remote.settings import RemoteOptions

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


@pytest.mark.parametrize("settings", [SamplingParams, SideSampling, LoadOptions, RemoteOptions])
def test_every_setting_has_a_help_which_stands_in_the_docstring(settings: type[Checked]) -> None:
    shown = " ".join((settings.__doc__ or "").split())
    for name, field in settings.model_fields.items():
        assert stated(field, "help").endswith(".") and stated(field, "remedy").endswith(".")
        default = stated(field, "unset") or repr(field.default)
        assert default != "None"
        assert f"{name}: {stated(field, 'help')} " in shown
        assert f"{stated(field, 'allowed')[1:]}; default: {default}." in shown


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"dtype": "float33"}, "auto' keeps"),
        ({"dtype": "bfloat"}, "got 'bfloat'. Did you mean 'bfloat16'? 'auto' keeps"),
        ({"quantization": "8bits"}, "got '8bits'. Did you mean '8bit'? '8bit' works"),
        ({"token": f"{SECRET}\n"}, "visible ASCII text, True, False or None, got <class 'str'>."),
        ({"token": [SECRET]}, "got <class 'list'>. Pass it without spaces."),
        ({"template_kwargs": SECRET}, "a dict of template variables by their names, got <class"),
        ({"device_map": {"base": "toaster"}}, "or a dict from base and aligned to one of these"),
        ({"device_map": {"base": "cpu", "middle": "cpu"}}, "a device such as 'cpu' or 'cuda:1'"),
    ],
)
def test_what_loading_does_not_take(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ParameterError) as raised:
        LoadOptions(**given)
    assert told in str(raised.value) and SECRET not in str(raised.value)
    assert str(raised.value).startswith(f"{next(iter(given))} must be ")
