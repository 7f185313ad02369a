"""Random pairs in memory, one per family and kind of tokenizer, made once per test run."""

from __future__ import annotations

import copy
from functools import cache

import torch

from baco_integrations import ModelPair
from tests.families import make_model, make_tokenizer, perturb


@cache
def random_pair(
    family: str = "llama", kind: str = "byte-level", dtype: torch.dtype = torch.float64
) -> ModelPair:
    """A pair whose sides agree often, with certain and uncertain steps and spare embedding rows."""
    base_tokenizer = make_tokenizer(kind)
    aligned_tokenizer = make_tokenizer(kind, chat_template=True, extra_specials=("<|extra|>",))
    base = make_model(family, len(aligned_tokenizer), seed=3, dtype=dtype, padded=5)
    aligned = copy.deepcopy(base)
    perturb(aligned, seed=4, noise=0.15)
    return ModelPair(base, aligned, base_tokenizer, aligned_tokenizer, name=f"{family}-{kind}")
