"""Random pairs in memory, one per family and kind of tokenizer, made once per test run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
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


@cache
def one_model_pair(family: str = "llama", kind: str = "byte-level") -> ModelPair:
    """A pair of one model, with spare embedding rows."""
    tokenizer = make_tokenizer(kind, chat_template=True, extra_specials=("<|extra|>",))
    model = make_model(family, len(tokenizer), seed=3, padded=5)
    return ModelPair.from_model(model, tokenizer, name=f"{family}-{kind}-one")


Maker = Callable[..., ModelPair]
"""What makes a pair of a family and a kind of tokenizer."""
MAKERS: tuple[Maker, ...] = (random_pair, one_model_pair)


def cases(families: Sequence[str], kinds: Sequence[str]) -> list[tuple[Maker, str, str]]:
    """Pairs of two models of each family and kind, and of one model of each family."""
    two = [(random_pair, family, kind) for family in families for kind in kinds]
    return two + [
        (one_model_pair, family, kinds[place % 2]) for place, family in enumerate(families)
    ]
