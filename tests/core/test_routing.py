from __future__ import annotations

import math
import subprocess
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco_integrations import SamplingParams
from baco_integrations.core.params import DEFAULT_GAMMA, warn_unused_gamma
from baco_integrations.core.routing import ROUTERS


def test_names() -> None:
    assert set(ROUTERS) >= {
        *("p", "h", "rand", "punc", "fc", "p-punc", "h-punc", "p-fc", "h-fc"),
        *("p-punc-fc", "h-punc-fc", "rand-punc", "base", "aligned", "nudge"),
    }
    assert SamplingParams().spec.name == "p-punc"
    assert SamplingParams(router="P-Punc").spec is ROUTERS["p-punc"]


@given(st.sampled_from([s for s in ROUTERS.values() if s.rule]), st.floats(1e-6, 1))
def test_threshold_and_gamma_are_inverse(spec: object, gamma: float) -> None:
    assert math.isclose(spec.gamma(spec.threshold(gamma)), gamma, abs_tol=1e-12)
    params = SamplingParams(router=spec.name, threshold=spec.threshold(gamma))
    assert math.isclose(params.effective_gamma, gamma, abs_tol=1e-12)


def test_thresholds_of_the_extremes() -> None:
    assert ROUTERS["h"].threshold(0) == math.inf
    assert ROUTERS["h"].threshold(1) == 0
    assert ROUTERS["nudge"].threshold(0) == 1
    assert SamplingParams().effective_gamma == DEFAULT_GAMMA


def test_an_unused_gamma_warns_once() -> None:
    warn_unused_gamma.cache_clear()
    with pytest.warns(UserWarning, match="'punc' has no logit rule"):
        SamplingParams(router="punc", gamma=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SamplingParams(router="punc", gamma=0.5)
        SamplingParams(router="punc")


def test_the_warning_points_at_the_caller() -> None:
    code = "from baco_integrations import SamplingParams\nSamplingParams(router='fc', gamma=0.5)\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.startswith("<string>:2: UserWarning: router 'fc'")


def test_sides_inherit_what_they_do_not_say() -> None:
    params = SamplingParams(temperature=0.7, top_k=9, base={"temperature": 1.2})
    assert params.side("base").model_dump() == {
        "temperature": 1.2,
        "top_k": 9,
        "top_p": 1.0,
        "min_p": 0.0,
    }
    assert params.side("aligned").temperature == 0.7


def test_replace_keeps_the_rest_and_checks() -> None:
    params = SamplingParams(gamma=0.3, stop="x", seed=5)
    changed = params.replace(gamma=0.4)
    assert (changed.gamma, changed.stop, changed.seed) == (0.4, ("x",), 5)
    assert params.gamma == 0.3
