from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from baco_integrations.core.errors import DecoderError, ParameterError
from baco_integrations.evaluation.quality import (
    ChatJudge,
    ConstraintQuality,
    OracleQuality,
    RewardQuality,
    SequenceClassifier,
    rating,
)
from baco_integrations.evaluation.similarity import Question

ASKED = Question("q1", "Name a city.")


def judge_of(replies: Sequence[str]) -> tuple[Any, list[str]]:
    asked: list[str] = []
    stream = iter(replies)

    def reply(prompt: str) -> AIMessage:
        asked.append(prompt)
        return AIMessage(next(stream))

    return RunnableLambda(reply), asked


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("7", 7),
        (" 10.\n", 10),
        ("7/10", 7),
        ("Rating: 7.5", 7.5),
        ("**Score:** 8/10. It names 3 cities.", 8),
        ("I would say 6 out of 10 because of 2 slips.", 6),
        ("<think>1? 2? 3?</think>9", 9),
        ("0", None),
        ("11", None),
        ("between 6 and 8", None),
        ("No idea.", None),
        ("1,000", None),
        ({"rating": 4}, 4),
        (AIMessage("3"), 3),
        ("Rating (1-10): 8", 8),
        ("On a scale of 1 to 10 I give it a 7.", 7),
        (ValueError("overloaded, retry in 7 s"), None),
    ],
)
def test_rating(reply: Any, expected: float | None) -> None:
    assert rating(reply) == expected


def test_a_judge_scores_each_answer_once_in_a_batch() -> None:
    model, asked = judge_of(["10", "1"])
    assert ChatJudge(model)(ASKED, ["Oslo", "Oslo"]) == [1, 1]
    assert len(asked) == 1 and "Name a city." in asked[0] and "Oslo" in asked[0]
    assert ChatJudge(GenericFakeChatModel(messages=iter(["4"])))(ASKED, ["Oslo"]) == [3 / 9]


def test_an_answer_cannot_fill_the_judges_form() -> None:
    model, asked = judge_of(["5"])
    ChatJudge(model, "{prompt}|{answer}")(ASKED, ["{prompt} {answer} {"])
    assert asked == ["Name a city.|{prompt} {answer} {"]


def test_a_judge_is_asked_again_for_what_it_left_out() -> None:
    model, asked = judge_of(["hm", "10", "1"])
    assert sorted(ChatJudge(model)(ASKED, ["a", "b"])) == [0, 1]
    assert len(asked) == 3
    model, asked = judge_of(["hm"] * 3)
    with pytest.raises(DecoderError, match="no number from 1 to 10 for 1 answers"):
        ChatJudge(model, retries=2)(ASKED, ["a"])


def test_a_judge_with_structured_output() -> None:
    class Model:
        def with_structured_output(self, schema: Any) -> Any:
            return RunnableLambda(lambda prompt: schema(rating=10 if "Oslo" in prompt else 1))

    assert ChatJudge(Model(), structured=True)(ASKED, ["Oslo", "x"]) == [1, 0]


def test_a_reward_is_squashed() -> None:
    quality = RewardQuality(
        lambda prompt, answers: [float(len(a)) for a in answers], midpoint=2, scale=1
    )
    low, middle, high, huge = quality(ASKED, ["", "ab", "abc", "a" * 5000])
    assert middle == 0.5 and high == pytest.approx(0.7310586) and low < 0.2 and huge == 1
    with pytest.raises(ParameterError, match="scale must be greater than 0"):
        RewardQuality(lambda prompt, answers: [], scale=0)


def test_constraints_are_shares() -> None:
    quality = ConstraintQuality({"q1": [str.istitle, lambda text: len(text) < 5]})
    assert quality(ASKED, ["Oslo", "oslo", "trondheim"]) == [1, 0.5, 0]
    assert quality(Question("q2", "?"), ["anything"]) == [1]


def test_the_oracle() -> None:
    assert OracleQuality(lambda question, answer: answer in question.prompt)(
        ASKED, ["city", "x"]
    ) == [1, 0]


def test_a_sequence_classifier_scores_in_batches_as_one_by_one() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from baco_integrations.models.pair import ModelPair

    tokenizer = ModelPair.tiny().aligned_tokenizer
    size = len(tokenizer)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    reward = SequenceClassifier(LlamaForSequenceClassification(config).eval(), tokenizer, 2)
    answers = ["Oslo.", "I would go with Bergen. It is quiet.", "Rome"]
    together = reward(ASKED.prompt, answers)
    alone = [reward(ASKED.prompt, [answer])[0] for answer in answers]
    assert together == pytest.approx(alone, abs=1e-5) and len(set(alone)) == 3
    config.num_labels = 2
    with pytest.raises(ParameterError, match="one output"):
        SequenceClassifier(LlamaForSequenceClassification(config), tokenizer)
