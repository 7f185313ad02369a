"""Every step of the decoder is recomputed from plain full-context forwards, in float64."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baco_integrations import Decoder, SamplingParams
from baco_integrations.core.router import ROUTERS
from tests.conformance.definition import check
from tests.pairs import random_pair

FAMILIES = ("llama", "qwen2", "qwen3", "olmo2", "mistral", "gemma3")
KINDS = ("byte-level", "sentencepiece")
PROMPTS = (
    "Name a city.",
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A story, please."}],
    [
        {"role": "user", "content": "Name a city, then tell me why you'd like to visit it."},
        {"role": "assistant", "content": "The sea."},
        {"role": "user", "content": "And you?"},
    ],
    "Hi",
)
CHECKED = {"steps": 0}


def quiet(**values: object) -> SamplingParams:
    """Parameters without a gamma where the router has no use for one."""
    if ROUTERS[str(values.get("router", "p-punc"))].rule is None:
        values.pop("gamma", None)
    return SamplingParams(**values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_router_in_one_mixed_batch(family: str, kind: str) -> None:
    pair = random_pair(family, kind)
    params = [
        quiet(router=router, gamma=gamma, temperature=temperature, seed=seed, max_tokens=24)
        for seed, router in enumerate(ROUTERS)
        for gamma, temperature in ((0.35, 0.0), (0.7, 1.0), (0.9, 0.6))
    ]
    prompts = [PROMPTS[place % len(PROMPTS)] for place in range(len(params))]
    with Decoder(pair, max_rows=24) as decoder:
        batch = decoder.generate_batch(prompts, params)
        for messages, own, (completion,) in zip(prompts, params, batch, strict=True):
            CHECKED["steps"] += check(pair, messages, own, completion)
            assert completion.steps or completion.finish_reason == "stop"
        # A row decoded in a batch equals the row decoded alone.
        for place in range(0, len(params), 5):
            (alone,) = decoder.generate(prompts[place], params[place])
            assert alone.text == batch[place][0].text
            assert [s[:3] for s in alone.steps] == [s[:3] for s in batch[place][0].steps]
    both = {step.source for (completion,) in batch for step in completion.steps}
    assert both == {"base", "aligned"}


request = st.fixed_dictionaries(
    {
        "router": st.sampled_from(list(ROUTERS)),
        "gamma": st.floats(0, 1),
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 0, 1, 7, 10_000]),
        "top_p": st.sampled_from([1.0, 1.0, 0.9, 0.2]),
        "min_p": st.sampled_from([0.0, 0.0, 0.1, 1.0]),
        "base": st.sampled_from([None, {"temperature": 0.5}, {"top_k": 3, "min_p": 0.05}]),
        "aligned": st.sampled_from([None, {"temperature": 0.0}, {"top_p": 0.5}]),
        "signal_model": st.sampled_from(["base", "aligned"]),
        "first": st.sampled_from(["routed", "aligned"]),
        "boundary": st.booleans(),
        "line_breaks": st.sampled_from(["aligned", "routed"]),
        "seed": st.integers(0, 2**64 - 1),
        "n": st.integers(1, 3),
        "max_tokens": st.integers(1, 20),
    }
)
messages = st.text(min_size=1, max_size=60).filter(str.strip)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(messages, request), min_size=1, max_size=5), st.sampled_from(KINDS))
def test_random_requests_in_random_batches(batch: list, kind: str) -> None:
    pair = random_pair("llama", kind)
    params = [quiet(**values) for _, values in batch]
    with Decoder(pair, max_rows=4) as decoder:
        results = decoder.generate_batch([text for text, _ in batch], params)
    for (text, _), own, completions in zip(batch, params, results, strict=True):
        assert [completion.sample for completion in completions] == list(range(own.n))
        for completion in completions:
            CHECKED["steps"] += check(pair, text, own, completion)


def test_enough_steps_were_checked(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """The suite's promise: at least 10,000 steps, none of which differed."""
    with capsys.disabled():
        print(f" {CHECKED['steps']:,} steps recomputed, 0 mismatches ", end="")
    whole_suite = sum(item.path == request.path for item in request.session.items) == 14
    assert CHECKED["steps"] >= 10_000 or not whole_suite
