"""The seam: what an engine cannot do is refused when it is asked, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from baco_integrations import Decoder, SamplingParams
from baco_integrations.core.errors import ParameterError
from baco_integrations.engines.base import Capabilities, EngineRequest, EngineSettings
from baco_integrations.engines.open import open_engine
from baco_integrations.policy.routers import GuardedRouter
from tests.scripted import cities


class Never:
    def route(self, inputs: Any) -> Any:
        return inputs.p_max < 0


def request(**settings: Any) -> EngineRequest:
    params = SamplingParams(**settings)
    router = None if isinstance(params.router, str) else GuardedRouter(params.router)
    nothing: Any = None
    return EngineRequest(((1,), (1,)), params, 0, 0, frozenset(), 9, 9, sink=nothing, router=router)


@pytest.mark.parametrize(
    ("lacking", "settings", "named"),
    [
        ("exact_seed", {"seed": 3}, "seed"),
        ("custom_router", {"router": Never()}, "router"),
        ("alternatives", {"alternatives": 2}, "alternatives"),
    ],
)
def test_what_an_engine_lacks_is_refused_by_name(
    lacking: str, settings: dict[str, Any], named: str
) -> None:
    Capabilities().require(request(**settings))
    Capabilities(**{lacking: False}).require(request())
    with pytest.raises(ParameterError, match=f"^{named} must be left out with this engine"):
        Capabilities(**{lacking: False}).require(request(**settings))


def test_a_request_that_is_refused_leaves_others_alone() -> None:
    pair = cities()
    engine: Any = open_engine(pair, EngineSettings())
    engine.capabilities = Capabilities(grammar=False)
    with Decoder(pair, engine=engine) as decoder:
        (sound,) = decoder.generate("x", seed=1)
        with pytest.raises(ParameterError, match=r"json_schema, regex, choices and tools"):
            decoder.generate("x", regex="[A-Za-z ]+", seed=1)
        refused, again = decoder.generate_batch(
            ["x", "x"],
            [SamplingParams(regex="[A-Za-z ]+"), SamplingParams(seed=1)],
            return_exceptions=True,
        )
        assert isinstance(refused, ParameterError)
        assert again == [sound]


def test_settings_of_an_engine_that_is_open_are_its_own() -> None:
    pair = cities()
    with Decoder(pair, engine=open_engine(pair, EngineSettings(max_rows=3))) as decoder:
        assert decoder.max_rows == 3
        assert (decoder.running, decoder.waiting) == (0, 0)
        with pytest.raises(ParameterError, match="^settings must be left out where an engine"):
            Decoder(pair, engine=decoder.engine, max_rows=4)


def test_a_pair_that_names_no_engine_is_refused() -> None:
    pair = cities()
    pair.engine = "abacus"
    with pytest.raises(ParameterError, match="^pair must be a pair whose engine is one of local,"):
        Decoder(pair)
