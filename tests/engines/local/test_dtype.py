"""Nothing of a float32 pair is float64 on its device, for not all devices have it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from baco_integrations import Decoder, ModelPair
from baco_integrations.engines.local.engine import LocalEngine

ON_THE_HOST = {f"aten::{name}" for name in ("lift_fresh", "detach_", "unsqueeze", "cat", "stack")}
"""What settings are made and joined by, before they are made smaller and moved."""


def test_a_float32_pair_is_decided_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    made = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
        ) -> Any:
            result = function(*arguments, **keywords or {})
            if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
                made.add(function.name())
            return result

    take_turn = LocalEngine.take_turn

    def watched(self: LocalEngine) -> None:
        with Watch():
            take_turn(self)

    monkeypatch.setattr(LocalEngine, "take_turn", watched)
    with Decoder(ModelPair.tiny()) as decoder:
        decoder.generate("Name a meal.", n=3, seed=1, top_p=0.9, max_tokens=12)
    assert made <= ON_THE_HOST
