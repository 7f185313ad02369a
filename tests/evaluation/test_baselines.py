"""Rivals: what they ask, and that the ensemble is what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from baco_integrations import BacoError, SamplingParams
from baco_integrations.evaluation import Prompt
from baco_integrations.evaluation.baselines import (
    BE_VARIED,
    ensemble,
    ensemble_mix,
    in_context,
    mixture,
    once,
    paraphrased,
    seed_for,
    told_to_vary,
)
from baco_integrations.evaluation.models import Answer, PairModel, Results, open_decoder
from tests.conformance.definition import draw, full_logits, softmax, uniform_pair
from tests.evaluation.worlds import PROMPTS, cities
from tests.pairs import random_pair

PARAMS = SamplingParams(router="aligned", n=3, temperature=0.9, max_tokens=12)
TEXTS = ("Name a city.", "Hi")


class Recorder:
    """A model that answers with the number of its call, and fails where it is told to."""

    name = identity = "recorder"
    rows = 4

    def __init__(self, failing: str = "nothing") -> None:
        self.asked: list[tuple[list[Any], int, int | None]] = []
        self.failing = failing

    def answer(self, conversations: Any, params: Any) -> Results:
        results: Results = []
        for conversation, own in zip(conversations, params, strict=True):
            self.asked.append((list(conversation), own.n, own.seed))
            if conversation[-1]["content"] == self.failing:
                results.append(RuntimeError("no"))
            else:
                results.append([Answer(f"a{len(self.asked)}.{i}", 2) for i in range(own.n)])
        return results

    def spent(self) -> None:
        pass

    def close(self) -> None:
        pass


def said(conversation: list[Any]) -> list[str]:
    return [turn["content"] for turn in conversation]


def test_prompts_have_noise_of_their_own_and_methods_share_it() -> None:
    model = Recorder()
    once(model, PROMPTS, PARAMS, 7)
    seeds = [seed for _, _, seed in model.asked]
    assert seeds == [seed_for(7, prompt.id) for prompt in PROMPTS] and len(set(seeds)) == 4
    assert seed_for(7, "p0") != seed_for(8, "p0") and all(0 <= seed < 2**53 for seed in seeds)


def test_in_context_shows_the_earlier_answers() -> None:
    model = Recorder()
    prompts = [Prompt("a", "A?", again="Else?"), Prompt("b", "B?")]
    results = in_context(model, prompts, PARAMS, 1)
    assert [said(conversation) for conversation, n, _ in model.asked[::2] if n == 1] == [
        ["A?"],
        ["A?", "a1.0", "Else?"],
        ["A?", "a1.0", "Else?", "a3.0", "Else?"],
    ]
    assert [[each.text for each in got] for got in results] == [  # type: ignore[union-attr]
        ["a1.0", "a3.0", "a5.0"],
        ["a2.0", "a4.0", "a6.0"],
    ]
    assert len({seed for _, _, seed in model.asked}) == 6


def test_in_context_goes_on_without_what_failed() -> None:
    model = Recorder(failing="Else?")
    results = in_context(model, [Prompt("a", "A?", again="Else?"), Prompt("b", "B?")], PARAMS, 1)
    assert isinstance(results[0], RuntimeError) and len(results[1]) == 3  # type: ignore[arg-type]
    assert len(model.asked) == 5  # a twice, b three times
    alone = PairModel(cities())
    (failed,) = in_context(alone, [Prompt("long", "x" * 9000)], PARAMS, 1)
    alone.close()
    assert isinstance(failed, BacoError)


def test_paraphrases_of_the_file_or_of_templates() -> None:
    model = Recorder()
    prompts = [Prompt("a", "A?", paraphrases=("A, please?",)), Prompt("b", "B?")]
    results = paraphrased(model, prompts, PARAMS, 1)
    texts = [said(conversation)[-1] for conversation, _, _ in model.asked]
    assert texts[:3] == ["A?", "A, please?", "A?"]
    assert len(set(texts[3:])) == 3 and all("B?" in text for text in texts[3:])
    assert [len(got) for got in results] == [3, 3]  # type: ignore[arg-type]
    failed = paraphrased(Recorder(failing="A, please?"), prompts, PARAMS, 1)
    assert isinstance(failed[0], RuntimeError) and not isinstance(failed[1], Exception)


def test_the_system_prompt_stands_behind_the_prompts_own() -> None:
    model = Recorder()
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hm."})
    told_to_vary(model, [Prompt("a", "A?", before=turns), Prompt("b", "B?")], PARAMS, 1)
    first, second = (conversation for conversation, _, _ in model.asked)
    assert said(first) == [f"Be brief.\n\n{BE_VARIED}", "Hm.", "A?"]
    assert said(second) == [BE_VARIED, "B?"] and second[0]["role"] == "system"


# The ensemble.


def plain_mixture(pair: Any, text: str, tokens: list[int], weight: float) -> np.ndarray:
    """The ensemble's probabilities [tokens, size], from plain forwards and its definition."""
    sides = {
        "base": (pair.base, pair.render_base, pair.base_size),
        "aligned": (pair.aligned, pair.render_aligned, pair.aligned_size),
    }
    p = {
        name: np.apply_along_axis(
            softmax, 1, full_logits(model, render(text, tokenize=True), tokens, pair.size, real)
        )
        for name, (model, render, real) in sides.items()
    }
    is_text = pair.shared.copy()
    is_text[[*pair.base_eos, *pair.aligned_eos]] = False
    product = np.where(is_text, p["base"] ** weight * p["aligned"] ** (1 - weight), 0)
    left = 1 - np.where(is_text, 0, p["aligned"]).sum(1, keepdims=True)
    scaled = product / product.sum(1, keepdims=True) * left
    return np.where(is_text, scaled, p["aligned"])


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_ensemble_is_the_product_of_both(weight: float, temperature: float) -> None:
    pair = random_pair()
    params = PARAMS.replace(temperature=temperature, max_tokens=20, seed=3)
    with open_decoder(pair, 4, mix=ensemble_mix(pair, weight)) as decoder:
        batch = decoder.generate_batch(TEXTS, params)
    checked = 0
    for text, completions in zip(TEXTS, batch, strict=True):
        for completion in completions:
            tokens = [step.token_id for step in completion.steps]
            wanted = plain_mixture(pair, text, tokens, weight)
            with np.errstate(divide="ignore"):
                logits = np.log(wanted)
            for place, step in enumerate(completion.steps):
                u, _ = uniform_pair(3, completion.sample, place)
                assert step.token_id == draw(logits[place], params, u)
                assert step.p_aligned == pytest.approx(wanted[place][step.token_id], abs=1e-9)
                checked += 1
            ends = tokens[-1] in pair.aligned_eos
            assert (completion.finish_reason == "stop") is ends
    assert checked > 60


def test_weight_0_is_the_aligned_model_and_weight_1_is_not() -> None:
    model = PairModel(random_pair(), rows=4)
    prompts = [Prompt(str(place), text) for place, text in enumerate(TEXTS)]
    try:
        aligned = [[each.text for each in got] for got in once(model, prompts, PARAMS, 5)]  # type: ignore[union-attr]
        mixed = [
            [[each.text for each in got] for got in ensemble(weight)(model, prompts, PARAMS, 5)]  # type: ignore[union-attr]
            for weight in (0.0, 1.0)
        ]
    finally:
        model.close()
    assert mixed[0] == aligned != mixed[1]


def test_what_is_not_text_keeps_aligneds_probability() -> None:
    base, aligned = (torch.tensor(p).log() for p in ([[0.1, 0.9, 0.0]], [[0.2, 0.3, 0.5]]))
    text = torch.tensor([True, True, False])
    halves = mixture(base, aligned, text, 0.5).exp()[0]
    root = torch.tensor([0.02, 0.27]).sqrt()
    assert torch.allclose(halves, torch.cat([root / root.sum() * 0.5, torch.tensor([0.5])]))
    assert torch.allclose(mixture(base, aligned, text, 1).exp()[0], torch.tensor([0.05, 0.45, 0.5]))
    assert mixture(base, aligned, text, 0) is aligned


def test_an_ensemble_has_no_shares() -> None:
    model = PairModel(cities())
    try:
        (got,) = ensemble(0.5)(model, PROMPTS[:1], PARAMS, 0)
    finally:
        model.close()
    assert not isinstance(got, Exception)
    assert {(each.tokens, each.base, each.switches, each.runs) for each in got} == {
        (3, None, None, None)
    }
