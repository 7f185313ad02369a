"""Every step of the decoder is recomputed from plain full-context forwards, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baco_integrations import Decoder, SamplingParams
from baco_integrations.core.routing import ROUTERS
from baco_integrations.engines.base import Lookahead
from tests.conformance.definition import check, check_end, full_logits, softmax
from tests.pairs import MAKERS, Maker, cases, random_pair

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
CHECKED = {"steps": 0, "batches": 0}


def quiet(**values: object) -> SamplingParams:
    """Parameters without a gamma where the router has no use for one."""
    if ROUTERS[str(values.get("router", "p-punc"))].rule is None:
        values.pop("gamma", None)
    return SamplingParams(**values)


@pytest.mark.parametrize(("make", "family", "kind"), cases(FAMILIES, KINDS))
def test_every_router_in_one_mixed_batch(make: Maker, family: str, kind: str) -> None:
    pair = make(family, kind)
    params = [
        quiet(
            router=router,
            gamma=gamma,
            temperature=temperature,
            seed=seed,
            max_tokens=24,
            alternatives=seed % 3,
        )
        for seed, router in enumerate(ROUTERS)
        for gamma, temperature in ((0.35, 0.0), (0.7, 1.0), (0.9, 0.6))
    ]
    prompts = [PROMPTS[place % len(PROMPTS)] for place in range(len(params))]
    assert pair.base_stop  # ends router base, besides its own end of text
    with Decoder(pair, max_rows=24, lookahead=3 if kind == KINDS[0] else "off") as decoder:
        batch = decoder.generate_batch(prompts, params)
        for messages, own, (completion,) in zip(prompts, params, batch, strict=True):
            CHECKED["steps"] += check(pair, messages, own, completion)
        # A row decoded in a batch equals the row decoded alone.
        for place in range(0, len(params), 5):
            (alone,) = decoder.generate(prompts[place], params[place])
            assert alone.text == batch[place][0].text
            assert [s[:3] for s in alone.steps] == [s[:3] for s in batch[place][0].steps]
    CHECKED["batches"] += 1
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
        "alternatives": st.sampled_from([0, 3, 64]),
    }
)
messages = st.text(min_size=1, max_size=60).filter(str.strip)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(messages, request), min_size=1, max_size=5),
    st.sampled_from(MAKERS),
    st.sampled_from(KINDS),
    st.sampled_from(["off", "auto", 1, 4]),
)
@pytest.mark.slow
def test_random_requests_in_random_batches(
    batch: list, make: Maker, kind: str, lookahead: Lookahead
) -> None:
    pair = make("llama", kind)
    params = [quiet(**values) for _, values in batch]
    with Decoder(pair, max_rows=4, lookahead=lookahead) as decoder:
        results = decoder.generate_batch([text for text, _ in batch], params)
    for (text, _), own, completions in zip(batch, params, results, strict=True):
        assert [completion.sample for completion in completions] == list(range(own.n))
        for completion in completions:
            CHECKED["steps"] += check(pair, text, own, completion)


def test_enough_steps_were_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """The suite's promise: at least 10,000 steps, none of which differed."""
    if CHECKED["batches"] < len(FAMILIES) * len(KINDS):
        pytest.skip("only a part of the suite was run")
    with capsys.disabled():
        print(f" {CHECKED['steps']:,} steps recomputed, 0 mismatches ", end="")
    assert CHECKED["steps"] >= 10_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_decodes_what_it_says(dtype: torch.dtype) -> None:
    """Rounding may move a token; what is told of it must still be near what plain forwards say."""
    pair = random_pair("llama", dtype=dtype)
    params = [SamplingParams(seed=seed, max_tokens=20, gamma=0.7) for seed in range(12)]
    with Decoder(pair) as decoder:
        results = decoder.generate_batch(["Name a city."] * 12, params)
    near = []
    for own, (completion,) in zip(params, results, strict=True):
        check_end(pair, own, completion)
        tokens = [step.token_id for step in completion.steps]
        prompt = pair.render_aligned("Name a city.", tokenize=True)
        plain = full_logits(pair.aligned, prompt, tokens, pair.size, pair.aligned_size)
        told = [step.p_aligned for step in completion.steps]
        wanted = [softmax(logits)[token] for logits, token in zip(plain, tokens, strict=True)]
        near += list(np.isclose(told, wanted, rtol=0.2 if dtype == torch.bfloat16 else 1e-3))
    assert np.mean(near) > 0.95
