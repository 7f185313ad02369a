"""What must hold of decoding whatever the models are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baco_integrations import Decoder, SamplingParams
from baco_integrations.core.routing import ROUTERS
from baco_integrations.policy.params import ALIGNED, BASE, NOBODY, PolicyParams, State
from baco_integrations.policy.step import step
from tests.conformance.definition import full_logits
from tests.families import FAMILIES
from tests.pairs import MAKERS, Maker, random_pair

PROMPT = "Name a city, then tell me why."


@torch.inference_mode()
def generate(model: Any, prompt: list[int], eos: frozenset[int], real: int) -> list[int]:
    rows = model.get_output_embeddings().weight.shape[0]
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=30,
        eos_token_id=sorted(eos),
        suppress_tokens=list(range(real, rows)),  # embedding rows that are no tokens
        disable_compile=True,
    )
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("make", MAKERS)
def test_gamma_0_is_the_aligned_models_generate(make: Maker, family: str) -> None:
    pair = make(family)
    expected = generate(
        pair.aligned,
        pair.render_aligned(PROMPT, tokenize=True),
        pair.aligned_eos,
        pair.aligned_size,
    )
    with Decoder(pair) as decoder:
        for router in (name for name, spec in ROUTERS.items() if spec.rule):
            params = SamplingParams(router=router, gamma=0, temperature=0, max_tokens=30)
            (completion,) = decoder.generate(PROMPT, params)
            assert [step.token_id for step in completion.steps] == expected, router
            assert completion.base_share == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("make", MAKERS)
def test_router_base_is_the_base_models_generate(make: Maker, family: str) -> None:
    pair = make(family)
    prompt = pair.render_base(PROMPT, tokenize=True)
    expected = generate(pair.base, prompt, pair.base_eos, pair.base_size)
    with Decoder(pair) as decoder:
        (completion,) = decoder.generate(PROMPT, router="base", temperature=0, max_tokens=30)
    assert [step.token_id for step in completion.steps] == expected[: len(completion.steps)]
    assert len(completion.steps) == len(expected) or "\nQ:" in pair.decode(expected)
    assert completion.base_share == 1


gammas = st.lists(st.floats(0, 1), min_size=2, max_size=8).map(sorted)


@settings(max_examples=25, deadline=None)
@given(gammas, st.sampled_from([n for n, s in ROUTERS.items() if s.rule]), st.booleans(), st.data())
def test_on_forced_text_a_larger_gamma_only_adds_base_tokens(
    values: list[float], router: str, boundary: bool, data: st.DataObject
) -> None:
    pair = random_pair("llama")
    forced = data.draw(st.lists(st.integers(0, pair.size - 1), min_size=5, max_size=25))
    base, aligned = (
        torch.from_numpy(full_logits(model, render(PROMPT, tokenize=True), forced, pair.size, real))
        for model, render, real in (
            (pair.base, pair.render_base, pair.base_size),
            (pair.aligned, pair.render_aligned, pair.aligned_size),
        )
    )
    classes = pair.token_space.classes("cpu")
    noise = torch.rand(len(forced), 2, generator=torch.Generator().manual_seed(1)).double()
    rows = PolicyParams.stack(
        [
            PolicyParams.build(SamplingParams(router=router, gamma=gamma, boundary=boundary))
            for gamma in values
        ]
    )
    owner = torch.full((len(values),), NOBODY)
    for position in range(len(forced)):
        u_token, u_route = noise[position].expand(len(values), 2).unbind(-1)
        state = State(owner, torch.full_like(owner, position), u_token, u_route)
        both = (logits[position].expand(len(values), -1) for logits in (base, aligned))
        owner = step(*both, rows, state, classes).source
        assert (owner.diff() <= 0).all(), "a larger gamma lost a token"
    assert {BASE, ALIGNED} >= set(owner.tolist())


def test_same_seed_same_text_and_another_seed_another() -> None:
    pair = random_pair("llama")
    with Decoder(pair) as decoder:
        texts = [decoder.generate(PROMPT, seed=seed, max_tokens=20)[0].text for seed in (1, 1, 2)]
        unseeded = {decoder.generate(PROMPT, max_tokens=20)[0].seed for _ in range(3)}
    assert texts[0] == texts[1] != texts[2]
    assert len(unseeded) == 3


@pytest.mark.parametrize("make", MAKERS)
def test_samples_do_not_depend_on_how_many_there_are(make: Maker) -> None:
    pair = make("llama")
    with Decoder(pair, max_rows=3) as decoder:
        many = decoder.generate(PROMPT, seed=5, n=7, max_tokens=16)
        few = decoder.generate(PROMPT, seed=5, n=2, max_tokens=16)
    assert [c.text for c in few] == [c.text for c in many[:2]]
    assert len({c.text for c in many}) > 1


@pytest.mark.parametrize("make", MAKERS)
def test_joined_stream_is_the_whole_text(make: Maker) -> None:
    pair = make("gemma3", "sentencepiece")
    with Decoder(pair) as decoder:
        for seed in range(5):
            params = SamplingParams(seed=seed, max_tokens=30, stop=["e", "ab"])
            (whole,) = decoder.generate(PROMPT, params)
            stream = decoder.stream(PROMPT, params)
            steps = tuple(stream)
            assert "".join(step.text for step in steps) == whole.text
            assert steps == whole.steps
            assert stream.completions == [whole]
