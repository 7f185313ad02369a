"""Products of few rows are the products that layers give, for whatever layer."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from baco_integrations.models.products import MAX_ROWS, is_plain_linear, product, use_fast_products
from tests.families import make_model


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 3), (2, 2), (4,), (5, 1), (3, 7), (1,)])
@pytest.mark.parametrize("bias", [False, True])
def test_products(shape: tuple[int, ...], bias: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    weight, more, x = (
        torch.randn(*size, generator=generator, dtype=torch.float64)
        for size in ((6, 5), (6,), (*shape, 5))
    )
    own = more if bias else None
    y = product(weight, own, x)
    torch.testing.assert_close(y, linear(x, weight, own), rtol=0, atol=1e-13)
    assert y.is_contiguous()
    some_rows = torch.randn(2, 2 * 5, generator=generator, dtype=torch.float64)[:, ::2]
    torch.testing.assert_close(product(weight, own, some_rows), linear(some_rows, weight, own))


def test_a_faster_model_and_its_copies_give_the_same() -> None:
    model = make_model("qwen2", 80)  # with biases
    ids = torch.arange(MAX_ROWS)[None]
    expected = model(ids).logits
    use_fast_products(model)
    use_fast_products(model)
    torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-12)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    assert not torch.allclose(other(ids).logits, expected)
    torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-12)
    again = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(again(ids).logits, expected, rtol=0, atol=1e-12)
    assert model.state_dict().keys() == other.state_dict().keys()


def test_only_plain_layers_are_changed() -> None:
    class Mine(nn.Linear):
        pass

    plain, half = nn.Linear(3, 3), nn.Linear(3, 3, dtype=torch.bfloat16)
    assert is_plain_linear(plain) and not is_plain_linear(half) and not is_plain_linear(Mine(3, 3))
    assert not is_plain_linear(nn.Linear(3, 3, device="meta")) and not is_plain_linear(nn.ReLU())
    hooked = nn.Linear(3, 3)
    hooked.forward = lambda x: x  # as accelerate does it
    use_fast_products(nn.Sequential(hooked))
    assert hooked(1) == 1
