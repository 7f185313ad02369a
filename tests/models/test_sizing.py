"""What is reckoned on paper, against models that are really made."""

from __future__ import annotations

import pytest
import torch

from baco_integrations import ModelPair
from baco_integrations.core.errors import NotEnoughMemoryError, ParameterError
from baco_integrations.models.checkpoint import Checkpoint
from baco_integrations.models.hub import locate
from baco_integrations.models.memory import measure_bytes
from baco_integrations.models.options import SIDES, LoadOptions
from baco_integrations.models.sizing import GPUS, Gpu, Plan, Shape, smallest_plan
from baco_integrations.tiny import WEIGHTS

LLAMA_8B = Shape(2 * 8_030_261_248, 32, 32, 8, 128, 131072)
PAIR = (LLAMA_8B, LLAMA_8B)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shapes_are_those_of_loaded_models(dtype: str) -> None:
    pair, options = ModelPair.tiny(dtype=dtype), LoadOptions(dtype=dtype)
    for side in SIDES:
        shape = Shape.of(Checkpoint(locate(WEIGHTS / side, side, options), options))
        model = getattr(pair, side)
        buffers = sum(buffer.nbytes for buffer in model.buffers())
        assert shape.weights == measure_bytes(model) - buffers
        with torch.inference_mode():
            cache = model(torch.zeros(1, 7, dtype=torch.long), use_cache=True).past_key_values
        kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert shape.cache_bytes(1) * 7 == kept
        assert shape.window == 1024


def test_heads_that_cannot_be_split_are_on_all_gpus() -> None:
    assert [LLAMA_8B.cache_bytes(1) / LLAMA_8B.cache_bytes(n) for n in (4, 8, 16)] == [4, 8, 8]


def test_an_8b_pair() -> None:
    plan = Plan(PAIR, GPUS["H100"], 1, 1, 64, 8192)
    assert plan.cache == 2 * 2 * 32 * 8 * 128 * 2
    assert plan.cache * plan.rows * plan.context == 128 * 2**30
    assert not plan.fits
    said = (
        r"would need 29\.9 GiB for weights and 128\.0 GiB for the keys and values of 64 rows of "
        r"8,192 tokens, but of its 79\.0 GiB only 71\.1 GiB .* room for 20 rows\."
    )
    with pytest.raises(NotEnoughMemoryError, match=said):
        plan.require()
    assert Plan(PAIR, GPUS["H100"], 1, 1, 20, 8192).fits
    assert not Plan(PAIR, GPUS["H100"], 1, 1, 21, 8192).fits


def test_speed_is_bandwidth_over_bytes() -> None:
    plan = Plan(PAIR, GPUS["H200"], 1, 1, 1, 2)
    assert plan.speed(1) == pytest.approx(1 / (plan.weights / (4.8e12 * 0.9)), rel=1e-3)
    assert 120 < plan.speed(1) < 140  # 7.5 ms for both models
    assert plan.speed(8) == pytest.approx(8 * plan.speed(1), rel=1e-3)
    double = Plan(PAIR, GPUS["H200"], 2, 2, 1, 2)
    assert double.speed(1) == pytest.approx(4 * plan.speed(1), rel=1e-3)


@pytest.mark.parametrize(
    ("gpu", "gpus", "replicas", "rows", "expected"),
    [
        ("H100", 4, None, 16, (1, 4)),
        ("H100", 4, 2, 16, (2, 2)),
        ("L4", 4, None, 16, (2, 2)),
        ("L4", 4, None, 64, (4, 1)),
        ("H100", 1, None, 16, (1, 1)),
        ("H100", 6, None, 16, (1, 6)),
    ],
)
def test_the_fewest_gpus_that_hold_a_replica(
    gpu: str, gpus: int, replicas: int | None, rows: int, expected: tuple[int, int]
) -> None:
    plan = smallest_plan(PAIR, GPUS[gpu], gpus, replicas, rows, 1024)
    assert (plan.tensor, plan.replicas) == expected
    assert plan.tensor * plan.replicas == gpus


@pytest.mark.parametrize(("gpus", "replicas"), [(4, 3), (6, 2), (2, 4)])
def test_gpus_that_cannot_be_shared_out(gpus: int, replicas: int) -> None:
    with pytest.raises(ParameterError, match=f"replicas must be such that {gpus} GPUs make"):
        smallest_plan(PAIR, GPUS["H100"], gpus, replicas, 1, 1024)


def test_nothing_fits() -> None:
    with pytest.raises(NotEnoughMemoryError, match=r"Each of 8 x 1 GPUs .* Use more GPUs"):
        smallest_plan(PAIR, Gpu(2**30), 8, None, 1, 1024)
