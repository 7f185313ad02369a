"""What a step asks of a device: how many kernels, and of which types; nothing waits for them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baco_integrations import SamplingParams
from baco_integrations.policy.params import PolicyParams, State
from baco_integrations.policy.step import step
from baco_integrations.policy.token_classes import TokenClasses

SIZE, ROWS = 301, 4

VIEWS = {"alias", "detach", "expand", "select", "slice", "squeeze", "t", "transpose", "unbind"}
VIEWS |= {"_unsafe_view", "empty", "unsqueeze", "view"}
"""Operators that launch no kernel."""

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal"}
"""Operators whose result, or its size, the host has to know."""

FILTERS = [
    ({}, 50),
    ({"min_p": 0.05}, 55),
    ({"top_k": 50}, 58),
    ({"top_p": 0.9}, 84),
    ({"top_k": 50, "top_p": 0.9, "min_p": 0.05}, 96),
]


class Operators(TorchDispatchMode):
    """Counts operators by name, and notes the types of what they return."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names[func.overloadpacket.__name__] += 1
        self.dtypes |= {each.dtype for each in tree_leaves(result) if isinstance(each, Tensor)}
        return result

    @property
    def kernels(self) -> int:
        return sum(count for name, count in self.names.items() if name not in VIEWS)


def some_step(
    dtype: torch.dtype, settings: dict[str, Any], rows: int = ROWS, size: int = SIZE
) -> tuple[Any, ...]:
    """Return the arguments of a step with owners of every kind."""
    generator = np.random.default_rng(1)
    kinds = {
        name: generator.random(size) < share
        for name, share in {"starts_word": 0.6, "punctuation": 0.1, "function_word": 0.1}.items()
    }
    classes = TokenClasses.build(
        **kinds,
        line_break=np.zeros(size, bool),
        text=generator.random(size) < 0.99,
        token_bytes=[b"x"] * size,
        base_size=size,
        aligned_size=size,
    )
    parts = [PolicyParams.build(SamplingParams(gamma=0.6, **settings))] * rows
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    logits = [torch.from_numpy(3 * generator.normal(size=(rows, size))).to(dtype) for _ in range(2)]
    uniforms = torch.from_numpy(generator.random((2, rows))).to(wide)
    state = State(torch.arange(rows) % 3, torch.arange(rows), uniforms[0], uniforms[1])
    return (*logits, PolicyParams.stack(parts, "cpu", wide), state, classes)


@pytest.mark.parametrize(("settings", "most"), FILTERS)
def test_a_step_launches_few_kernels(settings: dict[str, Any], most: int) -> None:
    arguments = some_step(torch.float32, settings)
    with Operators() as seen:
        step(*arguments)
    assert seen.kernels <= most, seen.names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "settings", [{}, {"top_k": 9, "top_p": 0.9, "min_p": 0.1}, {"alternatives": 3}]
)
def test_a_step_needs_no_float64_and_waits_for_nothing(
    dtype: torch.dtype, settings: dict[str, Any]
) -> None:
    arguments = some_step(dtype, settings)
    with Operators() as seen:
        step(*arguments)
    assert torch.float64 not in seen.dtypes and torch.float32 in seen.dtypes
    assert not WAITS & set(seen.names)


@pytest.mark.parametrize("settings", [{}, {"top_k": 9, "top_p": 0.9, "min_p": 0.1}])
def test_a_step_compiles_whole(settings: dict[str, Any]) -> None:
    arguments = some_step(torch.float64, settings)
    torch.compiler.reset()
    compiled = torch.compile(step, backend="eager", fullgraph=True)
    for found, expected in zip(compiled(*arguments)[:8], step(*arguments)[:8], strict=True):
        assert torch.equal(found, expected)
