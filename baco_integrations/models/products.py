"""Faster products of two to four rows with the large weights of a layer, on a CPU.

Weights are read from memory once for all rows, which is what takes the time, so a few rows should
take hardly longer than one. BLAS takes up to three times as long to multiply rows by transposed
weights, as layers do; with the weights in front it does not (`tests/benchmarks/products.py`).
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

MAX_ROWS = 4
"""For more rows the usual way is as fast or faster."""


def product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Apply a linear layer, ``(..., in)`` to ``(..., out)``."""
    if not 1 < x.shape[:-1].numel() <= MAX_ROWS:
        return linear(x, weight, bias)
    y = (weight @ x.flatten(0, -2).T).T.contiguous()
    return (y if bias is None else y + bias).view(*x.shape[:-1], -1)


def use_fast_products(model: Any) -> None:
    """Let all plain linear layers of a model use `product` from now on."""
    for module in model.modules():
        if is_plain_linear(module) and "forward" not in vars(module):
            module.forward = MethodType(forward, module)


def is_plain_linear(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer on a CPU in full precision, not quantised."""
    return (
        type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and module.weight.device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.float64)
    )


def forward(self: nn.Linear, x: Tensor) -> Tensor:
    """Replace a layer's ``forward``, and have its name so that the model can be pickled."""
    return product(self.weight, self.bias, x)
