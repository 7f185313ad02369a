"""Pairs in the shape that methods ask."""

from __future__ import annotations

import pytest

from baco_integrations import BacoError, Decoder, SamplingParams, ScriptedPair
from baco_integrations.evaluation.models import PairModel
from baco_integrations.models.scripted import Context
from tests.evaluation.worlds import PROMPTS, cities
from tests.pairs import random_pair

MESSAGES = [prompt.messages for prompt in PROMPTS]


@pytest.mark.parametrize("router", ["base", "aligned", "p-punc"])
def test_one_side_alone_says_what_the_pair_says(router: str) -> None:
    pair = random_pair()
    params = SamplingParams(router=router, n=3, temperature=0.8, max_tokens=12, seed=1)
    with Decoder(pair, max_rows=5) as decoder:
        wanted = [decoder.generate(messages, params) for messages in MESSAGES]
    model = PairModel(pair, rows=5)
    results = model.answer(MESSAGES, [params] * len(MESSAGES))
    forwards, tokens = model.spent()
    model.close()
    for completions, got in zip(wanted, results, strict=True):
        assert not isinstance(got, Exception)
        assert [each.text for each in got] == [completion.text for completion in completions]
        assert [each.base for each in got] == [
            round(completion.base_share * len(completion.steps)) for completion in completions
        ]
        for each in got:
            assert "".join(text for _, text in each.runs or ()) == each.text
    assert tokens == sum(each.tokens for got in results for each in got)  # type: ignore[union-attr]
    assert forwards <= 2 * tokens


def test_one_side_alone_does_not_ask_the_other() -> None:
    def never(context: Context) -> dict[str, float]:
        raise AssertionError("asked")

    script = {"": {" Rome": 1.0}}
    answers = {}
    for router, scripts in {"base": (script, never), "aligned": (never, script)}.items():
        model = PairModel(ScriptedPair(*scripts, vocabulary=[" Rome"]))
        for own in (router, "rand"):
            params = SamplingParams(router=own, seed=0, temperature=0)
            (answers[router, own],) = model.answer(MESSAGES[:1], [params])
        model.close()
    assert all(isinstance(got, list) is (own != "rand") for (_, own), got in answers.items())


def test_a_prompt_that_fails_leaves_the_others_alone() -> None:
    model = PairModel(cities())
    params = [SamplingParams(router="aligned", seed=0)] * 2
    failed, fine = model.answer([[{"role": "user", "content": "x" * 9000}], MESSAGES[0]], params)
    model.close()
    assert isinstance(failed, BacoError) and not isinstance(fine, Exception)
