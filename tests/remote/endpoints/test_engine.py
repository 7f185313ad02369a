"""Pairs over two endpoints give what the definition gives, whatever their servers tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.core.errors import ParameterError
from baco_integrations.core.routing import ROUTERS
from baco_integrations.engines.base import EngineSettings
from baco_integrations.models.options import SIDES
from baco_integrations.remote import RemotePair
from baco_integrations.remote.endpoints import engine
from tests.conformance.definition import check
from tests.conformance.test_definition import PROMPTS, quiet
from tests.pairs import random_pair
from tests.remote.endpoints.pairs import ServedSides, files_of, served_sides
from tests.server.serving import serving

EXACT = ("p", "p-punc", "punc", "fc", "p-fc", "p-punc-fc", "rand", "nudge", "aligned", "base")
"""Routers that read nothing of base but its most probable token."""


def told(completion: Any) -> list[tuple[int, str]]:
    return [(step.token_id, step.source) for step in completion.steps]


@pytest.mark.parametrize(
    ("family", "kind", "lookahead"),
    [
        ("llama", "byte-level", "auto"),
        ("gemma3", "sentencepiece", "off"),
        ("qwen2", "byte-level", 3),
    ],
)
def test_every_step_is_the_definitions(family: str, kind: str, lookahead: Any) -> None:
    pair = random_pair(family, kind)
    params = [
        quiet(
            router=router,
            gamma=gamma,
            temperature=temperature,
            seed=seed,
            max_tokens=10,
            alternatives=seed % 3,
            **({"top_k": 7, "min_p": 0.05} if seed % 2 else {}),
        )
        for seed, router in enumerate(ROUTERS)
        for gamma, temperature in ((0.35, 0.0), (0.9, 0.6))
    ]
    prompts = [PROMPTS[place % len(PROMPTS)] for place in range(len(params))]
    with (
        served_sides(pair) as served,
        Decoder(served.remote, max_rows=8, lookahead=lookahead) as decoder,
    ):
        batch = decoder.generate_batch(prompts, params)
        steps = decoder.metrics.tokens
    for messages, own, (completion,) in zip(prompts, params, batch, strict=True):
        check(pair, messages, own, completion)
    sources = {step.source for (completion,) in batch for step in completion.steps}
    assert sources == {"base", "aligned"}
    assert (sum(served.calls) == 2 * steps) == (lookahead == "off")
    assert decoder.metrics.truncated == 0


@pytest.fixture(scope="module")
def tiny() -> Iterator[ServedSides]:
    """The embedded pair over servers that tell twenty tokens at most, as vLLM does."""
    with served_sides(ModelPair.tiny(), logprobs=20, most=20) as served:
        yield served


@pytest.fixture(scope="module")
def local(tiny: ServedSides) -> Iterator[Decoder]:
    with Decoder(tiny.local, lookahead="off") as decoder:
        yield decoder


@pytest.fixture(scope="module")
def remote(tiny: ServedSides) -> Iterator[Decoder]:
    with Decoder(tiny.remote) as decoder:
        yield decoder


@pytest.mark.parametrize("router", EXACT)
def test_greedy_decoding_needs_few_tokens_of_each_position(
    router: str, local: Decoder, remote: Decoder
) -> None:
    for prompt in ("Name a place to visit.", "Suggest a gift for a friend."):
        params = quiet(router=router, gamma=0.7, temperature=0, seed=3, max_tokens=24)
        (here,), (there,) = (each.generate(prompt, params) for each in (local, remote))
        assert told(there) == told(here)
        assert (there.text, there.finish_reason) == (here.text, here.finish_reason)


def test_sampling_that_keeps_few_tokens_is_exact(local: Decoder, remote: Decoder) -> None:
    params = SamplingParams(gamma=0.8, temperature=1.0, top_k=4, seed=5, n=6, max_tokens=20)
    here, there = (each.generate("Name a place to visit.", params) for each in (local, remote))
    assert [told(each) for each in there] == [told(each) for each in here]
    assert len({each.text for each in there}) > 1
    assert remote.metrics.truncated == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"router": "h", "temperature": 0}, "the entropy that router h reads"),
        ({"temperature": 1.5}, "drawn from the 20 most probable ones"),
    ],
)
def test_what_is_approximate_is_said_once(
    settings: dict[str, Any], said: str, tiny: ServedSides, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.warn_approximate.cache_clear()
    with Decoder(tiny.remote) as decoder:
        with pytest.warns(UserWarning, match=said):
            decoder.generate("Name a place.", gamma=0.9, max_tokens=8, seed=1, **settings)
        decoder.generate("Name a place.", gamma=0.9, max_tokens=8, seed=1, **settings)
        assert bool(decoder.metrics.truncated) == bool(settings["temperature"])


@pytest.mark.filterwarnings("ignore:decoding over endpoints")
@pytest.mark.parametrize("logprobs", [2, 8, 20])
def test_what_is_not_labelled_approximate_is_exact(logprobs: int, local: Decoder) -> None:
    """Greedy, with filters and without any; more is approximate, the less is told."""
    settings: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 0.7, "min_p": 0.2},
        {"temperature": 1.3},
        {"temperature": 1.0, "top_p": 0.9},
    ]
    params = [
        quiet(router=router, gamma=gamma, seed=3, max_tokens=16, **own)
        for own in settings
        for router in ("p", "h", "h-punc", "p-punc-fc")
        for gamma in (0.4, 0.85)
    ]
    prompts = ["Name a place to visit.", "Suggest a gift."] * (len(params) // 2)
    with served_sides(local.pair, logprobs=logprobs) as few, Decoder(few.remote) as decoder:
        there = [each for (each,) in decoder.generate_batch(prompts, params)]
    here = [each for (each,) in local.generate_batch(prompts, params)]
    for one, other in zip(there, here, strict=True):
        assert one.approximate or told(one) == told(other)
    assert not any(each.approximate for each in here)
    labelled = [
        {each.approximate for each, own in zip(there, params, strict=True) if chosen(own)}
        for chosen in (
            lambda own: own.temperature == 0 and "h" not in own.router,
            lambda own: own.temperature == 1.3,
        )
    ]
    assert labelled == [{False}, {True}]


def test_entropy_is_never_overestimated(tiny: ServedSides, local: Decoder) -> None:
    params = SamplingParams(router="p", gamma=0.9, temperature=0, max_tokens=16)
    with served_sides(tiny.local, logprobs=3) as few, Decoder(few.remote) as decoder:
        (there,), (here,) = (each.generate("Name a place.", params) for each in (decoder, local))
    assert told(there) == told(here)
    pairs = [(a.entropy, b.entropy) for a, b in zip(there.steps, here.steps, strict=True)]
    assert all(low <= true + 1e-6 for low, true in pairs)
    assert any(low < true - 1e-3 for low, true in pairs)


@pytest.mark.parametrize("form", ["content", "text"])
def test_other_forms_of_answers(form: str, local: Decoder) -> None:
    params = SamplingParams(gamma=0.7, temperature=0, max_tokens=24)
    with served_sides(local.pair, logprobs=5, form=form) as served, Decoder(served.remote) as one:
        (there,), (here,) = (each.generate("Name a city.", params) for each in (one, local))
    assert told(there) == told(here)


def test_what_cannot_be_done_is_refused(remote: Decoder) -> None:
    for settings in ({"regex": "a+"}, {"router": Contrary()}):
        with pytest.raises(ParameterError, match="left out with this engine"):
            remote.generate("Hi", **settings)
    with pytest.raises(ParameterError, match="a ModelPair where one side is measured"):
        engine.RemotePairEngine(remote.pair, EngineSettings(), only="base")


class Contrary:
    def route(self, inputs: Any) -> Any:
        return inputs.p_max > 0.5


def test_this_packages_own_server_is_an_endpoint_for_either_side(local: Decoder) -> None:
    files = files_of(local.pair)
    with serving({"tiny": local.pair}) as running:
        pair = RemotePair.connect(*({"url": running.api, "files": files[s]} for s in SIDES))
        params = SamplingParams(gamma=0.7, temperature=0, max_tokens=16)
        with Decoder(pair) as decoder:
            (there,), (here,) = (each.generate("Name a city.", params) for each in (decoder, local))
    assert told(there) == told(here)
    assert {step.source for step in there.steps} == {"base", "aligned"}
