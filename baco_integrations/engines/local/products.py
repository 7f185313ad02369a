"""Products of few rows with large weights, which a CPU can do much faster than it does.

A forward for two to four rows, or for so many tokens of one, should take hardly longer than for
one: the weights are read from memory once, and that is what takes the time. BLAS takes up to three
times as long when rows are multiplied by transposed weights, as layers do it; with the weights in
front it does not (`tests/benchmarks/products.py`).
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

FEW = 4
"""For more rows the common way is as fast or faster."""


def product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Apply a linear layer on a CPU, ``(..., in)`` to ``(..., out)``."""
    if not 1 < x.shape[:-1].numel() <= FEW:
        return linear(x, weight, bias)
    y = (weight @ x.flatten(0, -2).T).T.contiguous()
    return (y if bias is None else y + bias).view(*x.shape[:-1], -1)


def use_fast_products(model: Any) -> None:
    """Let a model's linear layers on a CPU multiply few rows the faster way, from now on."""
    for module in model.modules():
        if suits(module) and "forward" not in vars(module):
            module.forward = MethodType(forward, module)


def suits(module: nn.Module) -> bool:
    """Tell whether a module is a plain linear layer on a CPU, neither quantised nor hooked."""
    return (
        type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and module.weight.device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.float64)
    )


def forward(self: nn.Linear, x: Tensor) -> Tensor:
    """Stand in for a layer's own method, whose name it has so that models can be pickled."""
    return product(self.weight, self.bias, x)
