"""The slot cache against plain forwards: rows of different ages, copies, rollback, chunks."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from baco_integrations.engines.local.runner import ModelRunner
from tests.families import FAMILIES, make_model

VOCABULARY = 80
# transformers' eager attention takes its softmax in float32, whatever the model's dtype.
TOLERANCE = {"sdpa": 1e-11, "eager": 1e-4}
CASES = [
    (family, attention)
    for family in FAMILIES
    for attention in TOLERANCE
    if (family, attention) != ("gemma2", "sdpa")  # soft-capped scores have no sdpa
]


@pytest.mark.parametrize(("family", "attention"), CASES)
def test_rows_of_different_ages(family: str, attention: str) -> None:
    model = make_model(family, VOCABULARY)
    model.set_attn_implementation(attention)
    texts = torch.randint(0, VOCABULARY, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = [model(text[None], use_cache=False).logits[0] for text in texts]
    side = ModelRunner(model)
    at = [13, 6, 9]
    for start in (0, 5, 10):  # in pieces
        side.prefill(0, [texts[0, start : min(start + 5, 13)].tolist()], [start])
    side.prefill(1, [texts[1, :2].tolist(), texts[2, :6].tolist()], [0, 0])  # together, padded
    side.prefill(1, [texts[1, 2:6].tolist(), texts[2, 6:9].tolist()], [2, 6])

    def advance() -> None:
        tokens = [int(texts[row, at[row]]) for row in range(3)]
        logits = side.forward([[token] for token in tokens], at)[:, 0]
        for row in range(3):
            wanted = expected[row][at[row]]
            torch.testing.assert_close(logits[row], wanted, rtol=0, atol=TOLERANCE[attention])
            at[row] += 1

    for _ in range(12):
        advance()
    at[1] -= 4  # rolling back is moving the position back
    advance()
    side.copy(0, 2, at[0])  # row 2 becomes row 0
    texts[2], expected[2], at[2] = texts[0], expected[0], at[0]
    for _ in range(5):
        advance()
    at[1] = at[0] = at[2]
    side.copy(0, 1, at[0])
    texts[1], expected[1] = texts[0], expected[0]
    advance()  # all rows at one position: the slice path
    saved = side.save(2, at[2])
    side.copy(1, 2, at[1])  # what was kept does not change with its slot
    side.load(saved, 2, at[2] - 3)
    at[2] -= 3
    advance()


def test_memory_grows_as_needed_and_keeps_what_it_holds() -> None:
    model = make_model("llama", VOCABULARY)
    ids = list(range(60))
    with torch.inference_mode():
        expected = model(torch.tensor([ids]), use_cache=False).logits[0]
    side = ModelRunner(model)
    side.prefill(0, [ids[:2]], [0])
    first = side.cache.slots, side.cache.length
    side.prefill(1, [ids[:40], ids[:30]], [0, 0])
    logits = side.forward([[ids[2]], [ids[40]], [ids[30]]], [2, 40, 30])[:, 0]
    torch.testing.assert_close(logits, expected[[2, 40, 30]], rtol=0, atol=1e-11)
    assert side.cache.slots > first[0] and side.cache.length > first[1]


def test_a_token_beyond_the_models_rows_is_fed_as_its_last() -> None:
    model = make_model("llama", VOCABULARY)
    side = ModelRunner(model)
    side.prefill(0, [[1, 2, 3]], [0])
    beyond = side.forward([[VOCABULARY + 7]], [3])
    torch.testing.assert_close(beyond, side.forward([[VOCABULARY - 1]], [3]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision(dtype: torch.dtype) -> None:
    model = make_model("llama", VOCABULARY, dtype=dtype)
    side = ModelRunner(model)
    side.prefill(0, [[1, 2, 3]], [0])
    assert side.forward([[4]], [3]).dtype == dtype


def test_the_cache_goes_by_the_name_that_the_model_has() -> None:
    model = make_model("llama", VOCABULARY)
    forward = model.forward
    (now,) = {"cache", "past_key_values"} & {*inspect.signature(forward).parameters}

    def newer(*, cache: Any, **inputs: Any) -> Any:
        return forward(**inputs, **{now: cache})

    def older(*, past_key_values: Any, **inputs: Any) -> Any:
        return forward(**inputs, **{now: past_key_values})

    told = []
    for model.forward in (newer, older):
        side = ModelRunner(model)
        side.prefill(0, [[1, 2, 3]], [0])
        told.append(side.forward([[4]], [3]))
    with torch.inference_mode():
        plain = forward(torch.tensor([[1, 2, 3, 4]]), use_cache=False).logits[:, -1:]
    torch.testing.assert_close(told, [plain, plain], rtol=0, atol=TOLERANCE["sdpa"])
