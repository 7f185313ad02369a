"""The report: nothing is lost at full rank, and what is lost is what the numbers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.cli import app
from baco_integrations.evaluation.fidelity import fidelity
from baco_integrations.models.lora.extract import extract
from tests.families import make_pair_folder
from tests.lora import merged_model

PROMPTS = ["Name a city.", "And you?"]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return make_pair_folder(tmp_path, "llama", noise=0.15)


@pytest.mark.parametrize("exact", ["base", "aligned"])
def test_full_rank_loses_nothing(
    exact: Literal["base", "aligned"], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    made = extract(*folders, tmp_path / "full", energy=1.0, exact=exact)
    found = fidelity(*folders, made.folder, exact=exact, prompts=PROMPTS, max_tokens=16)
    assert abs(found.kl) < 1e-9 and found.top1 == found.routes == 1
    assert found.side != exact and 2 <= found.tokens <= 32
    made = extract(*folders, tmp_path / "one", rank=1, exact=exact)
    found = fidelity(*folders, made.folder, exact=exact, prompts=PROMPTS, max_tokens=16)
    assert found.kl > 0.01 and found.top1 < 1
    assert found.error == made.error > 0.3
    assert 0 < found.adapter_bytes < 0.3 * found.model_bytes


@torch.inference_mode()
def test_the_divergence_is_from_exact_to_approximate(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    base, aligned = folders
    made = extract(base, aligned, tmp_path / "one", rank=2)
    found = fidelity(base, aligned, made.folder, prompts=PROMPTS[:1], max_tokens=16, seed=3)
    pair = ModelPair.from_pretrained(base, aligned)
    with Decoder(pair) as decoder:
        (answer,) = decoder.generate(PROMPTS[0], SamplingParams(max_tokens=16, seed=3))
    prompt = pair.render_base(PROMPTS[0], tokenize=True)
    ids = torch.tensor([[*prompt, *(step.token_id for step in answer.steps)]])
    exact = AutoModelForCausalLM.from_pretrained(base)
    p, q = (
        model(ids).logits[0, len(prompt) - 1 : -1, : pair.base_size].log_softmax(-1)
        for model in (exact, merged_model(aligned, made.folder))
    )
    kl = (p.exp() * (p - q)).sum(-1).mean()
    assert found.tokens == len(answer.steps)
    assert found.kl == pytest.approx(float(kl), rel=1e-4)
    assert found.top1 == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))


def run(*args: Any, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*map(str, args)], env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return result.output


def test_on_the_command_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    asked = tmp_path / "prompts.txt"
    asked.write_text("Name a city.\n\nHi\n")
    told = run("extract", *folders, "--out", tmp_path / "a", "--rank", 2, "--prompts", asked)
    for word in ("2, in 16 matrices", "difference left out", "nats", "same side chosen"):
        assert word in told
    assert f"ModelPair.from_adapter({str(folders[1])!r}" in told
    told = run("extract", *folders, "--out", tmp_path / "b", "--energy", 0.9, "--exact", "base",
               "--no-report", "--json")  # fmt: skip
    content = json.loads(told)
    assert content["exact"] == "base" and content["report"] is None
    assert content["error"] < 0.1**0.5 and Path(content["folder"]).is_dir()
    told = run("extract", *folders, "--out", tmp_path / "b", code=2)
    assert "out must be a new folder" in told
    told = run("extract", *folders, "--out", tmp_path / "c", "--prompts", tmp_path, code=2)
    assert f"{tmp_path} could not be read: Is a directory" in told
