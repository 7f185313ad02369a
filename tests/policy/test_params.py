"""Settings as tensors: those of single rows are put together where the logits meet."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from baco_integrations import SamplingParams
from baco_integrations.policy.params import PolicyParams
from baco_integrations.policy.routers import GuardedRouter


class Never:
    def route(self, inputs: Any) -> Any:
        return inputs.p_max < 0


def tensors(policy: PolicyParams) -> list[Tensor]:
    plain = [each for each in policy if isinstance(each, Tensor)]
    return [*plain, *(rows for _, rows in policy.custom)]


def test_rows_move_to_the_device_together() -> None:
    router = GuardedRouter(Never())
    parts = [
        PolicyParams.build(SamplingParams(gamma=0.3, alternatives=2)),
        PolicyParams.build(SamplingParams(top_k=3, router=router.router), router),
        PolicyParams.build(SamplingParams(router=router.router), router),
    ]
    assert {each.device.type for part in parts for each in tensors(part)} == {"cpu"}
    both = PolicyParams.stack(parts)
    assert len(both.gamma) == 3 and both.gamma[0] == 0.3
    assert both.sampling[0, 2].tolist() == [math.inf, 2, math.inf]
    assert both.filters == (3, False, False) and both.alternatives == 2
    ((asked, rows),) = both.custom
    assert asked is router and rows.tolist() == [1, 2]
    moved = PolicyParams.stack(parts, torch.device("meta"))
    assert {each.device.type for each in tensors(moved)} == {"meta"}
