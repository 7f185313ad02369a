"""The paged cache against plain forwards: rows of different ages, copies, rollback, chunks."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from baco_integrations.engines.local.kv_cache import KVCacheFullError
from baco_integrations.engines.local.paged_attention import PAGE
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
    rows = [side.share([], 0) for _ in range(3)]
    at = [13, 6, 9]
    for start in (0, 5, 10):  # in pieces
        side.prefill(rows[:1], [texts[0, start : min(start + 5, 13)].tolist()], [start])
    side.prefill(rows[1:], [texts[1, :2].tolist(), texts[2, :6].tolist()], [0, 0])  # padded
    last = side.prefill(rows[1:], [texts[1, 2:6].tolist(), texts[2, 6:9].tolist()], [2, 6])
    wanted = torch.stack([expected[1][5], expected[2][8]])
    torch.testing.assert_close(last, wanted, rtol=0, atol=TOLERANCE[attention])

    def advance(width: int = 1) -> None:
        tokens = [texts[row, at[row] : at[row] + width].tolist() for row in range(3)]
        logits = side.forward(rows, tokens, at)
        wanted = torch.stack([expected[row][at[row] : at[row] + width] for row in range(3)])
        torch.testing.assert_close(logits, wanted, rtol=0, atol=TOLERANCE[attention])
        at[:] = [position + width for position in at]

    def become(row: int, other: int) -> None:
        side.release(rows[row])
        rows[row] = side.share(rows[other], at[other])
        texts[row], expected[row], at[row] = texts[other], expected[other], at[other]

    for _ in range(6):
        advance()
    advance(6)
    at[1] -= 4  # rolling back is moving the position back
    advance()
    become(2, 0)
    for _ in range(5):
        advance()
    become(1, 0)
    advance()
    saved = side.share(rows[2], at[2])
    became = at[2]
    become(2, 1)  # what was kept does not change with the row
    advance()
    side.release(rows[2])
    rows[2], at[2] = side.share(saved, became - 3), became - 3
    advance()


@pytest.mark.parametrize("width", [1, 3])
def test_short_rows_beside_a_long_one(width: int) -> None:
    model = make_model("gemma3", VOCABULARY)
    model.set_attn_implementation("sdpa")
    texts = torch.randint(0, VOCABULARY, (4, 700), generator=torch.Generator().manual_seed(1))
    side, lengths = ModelRunner(model), [5, 690, 30, 3]
    rows = [side.share([], 0) for _ in lengths]
    for row, text, length in zip(rows, texts, lengths, strict=True):
        side.prefill([row], [text[:length].tolist()], [0])
    tokens = [text[at : at + width].tolist() for text, at in zip(texts, lengths, strict=True)]
    logits = side.forward(rows, tokens, lengths)
    assert len(side.cache.groups) == 2
    with torch.inference_mode():
        for text, at, found in zip(texts, lengths, logits, strict=True):
            wanted = model(text[None, : at + width], use_cache=False).logits[0, at:]
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


def test_memory_follows_what_is_held() -> None:
    model = make_model("llama", VOCABULARY)
    side, text = ModelRunner(model), [number % VOCABULARY for number in range(900)]
    with torch.inference_mode():
        expected = model(torch.tensor([text[:41]]), use_cache=False).logits[:, -1]
    rows = [side.share([], 0) for _ in range(33)]
    side.prefill(rows[:32], [text[:40]] * 32, [0] * 32)
    side.prefill(rows[32:], [text], [0])
    held = (32 * 48 + 912) // PAGE * side.page_bytes
    assert held <= side.cache.bytes <= 1.3 * held
    many = [side.share(rows[32], 890) for _ in range(100)]
    assert side.cache.bytes <= 1.3 * held
    for row in (*many, *rows[:5], *rows[6:]):
        side.release(row)
    torch.testing.assert_close(side.forward(rows[5:6], [[text[40]]], [40])[:, 0], expected)
    assert side.cache.bytes < 24 * side.page_bytes
    side.release(rows[5])
    assert len(side.cache.rows) == 0


def test_what_does_not_fit_is_refused() -> None:
    side = ModelRunner(make_model("llama", VOCABULARY), most_pages=4)
    row, other = side.share([], 0), side.share([], 0)
    side.prefill([row], [[1] * 30], [0])
    with pytest.raises(KVCacheFullError, match=r"need .* MiB of .* MiB"):
        side.prefill([other], [[1] * 30], [0])
    side.release(row)
    side.prefill([other], [[1] * 30], [0])


def test_a_token_beyond_the_models_rows_is_fed_as_its_last() -> None:
    model = make_model("llama", VOCABULARY)
    side = ModelRunner(model)
    row = [side.share([], 0)]
    side.prefill(row, [[1, 2, 3]], [0])
    beyond = side.forward(row, [[VOCABULARY + 7]], [3])
    torch.testing.assert_close(beyond, side.forward(row, [[VOCABULARY - 1]], [3]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision(dtype: torch.dtype) -> None:
    model = make_model("llama", VOCABULARY, dtype=dtype)
    side = ModelRunner(model)
    row = [side.share([], 0)]
    side.prefill(row, [[1, 2, 3]], [0])
    assert side.forward(row, [[4]], [3]).dtype == dtype


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
        row = [side.share([], 0)]
        side.prefill(row, [[1, 2, 3]], [0])
        told.append(side.forward(row, [[4]], [3]))
    with torch.inference_mode():
        plain = forward(torch.tensor([[1, 2, 3, 4]]), use_cache=False).logits[:, -1:]
    torch.testing.assert_close(told, [plain, plain], rtol=0, atol=TOLERANCE["sdpa"])


@pytest.mark.parametrize(("family", "attention"), CASES)
def test_elsewhere_the_model_does_what_it_did(family: str, attention: str) -> None:
    model = make_model(family, VOCABULARY)
    model.set_attn_implementation(attention)
    ids = torch.randint(1, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0  # padded in front

    def said() -> list[torch.Tensor]:
        given = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
        with torch.inference_mode():
            logits = model(ids, attention_mask=mask).logits[mask.bool()]
            return [logits, model(ids).logits, model.generate(ids, **given)]

    before = said()
    side = ModelRunner(model)
    side.prefill([side.share([], 0)], [[1, 2, 3]], [0])
    # Eager attention in float64 is not finite for padding.
    torch.testing.assert_close(
        said(), before, rtol=0, atol=TOLERANCE[attention], equal_nan=attention == "eager"
    )
