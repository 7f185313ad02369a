"""What one forward for both sides gives is what two forwards give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from baco_integrations import Decoder, ModelPair
from baco_integrations.engines.base import EngineSettings
from baco_integrations.engines.open import open_engine
from tests.families import make_pair_folder
from tests.lora import save_adapter

TEXTS = ["Name a city.", "Hi", "Tell me why."]


def test_a_mixture_needs_one_forward(tmp_path: Path) -> None:
    base, _ = make_pair_folder(tmp_path, "llama")
    pair = ModelPair.from_adapter(base, save_adapter(base, tmp_path / "adapter"), dtype="float64")

    def mean(base: Any, aligned: Any) -> Any:
        return (base + aligned) / 2

    said = []
    for lookahead in ("off", 3):
        settings = EngineSettings(lookahead=lookahead)  # type: ignore[arg-type]
        with Decoder(pair, engine=open_engine(pair, settings, mix=mean)) as decoder:
            batch = decoder.generate_batch(TEXTS, router="aligned", seed=1, max_tokens=20)
            metrics = decoder.metrics
            # The first token comes with the prompt.
            assert (metrics.forwards < metrics.iterations) == (lookahead == "off")
        said.append([[step.token_id for step in each.steps] for (each,) in batch])
    assert said[0] == said[1]
