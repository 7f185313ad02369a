"""Extraction: full rank is the other model, an interrupted run ends with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from baco_integrations import ModelPair
from baco_integrations.core.errors import PairError, ParameterError
from baco_integrations.models.lora import extract as extraction
from baco_integrations.models.lora.extract import extract
from tests.families import FAMILIES, make_model, make_pair_folder, make_tokenizer
from tests.lora import peft_logits

NAN = float("nan")
IDS = torch.arange(40)[None] * 7 % 300


def move_everything(folder: Path) -> None:
    """Change norms and biases too, which `make_pair_folder` leaves alike."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    model.save_pretrained(folder)


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model(IDS, use_cache=False).logits


def require_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Norms are in float32 even in a float64 model: now and then a rounding flips there."""
    error = (found - expected).abs()
    assert error.median() < 1e-10 and error.max() < 1e-3


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_full_rank_is_the_other_model(family: str, tied: bool, tmp_path: Path) -> None:
    base, aligned = make_pair_folder(tmp_path, family, tie_word_embeddings=tied)
    move_everything(aligned)
    exact = ("base", "aligned")[tied]
    made = extract(base, aligned, tmp_path / "adapter", energy=1.0, exact=exact)
    pair = ModelPair.from_adapter((base, aligned)[tied], made.folder)
    assert pair.exact == exact and made.error < 1e-12
    for side, folder in (("base", base), ("aligned", aligned)):
        require_same(logits(getattr(pair, side)), logits(plain(folder)))
    off, on = peft_logits((base, aligned)[tied], made.folder, IDS)
    require_same(on, logits(plain((aligned, base)[tied])))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return make_pair_folder(tmp_path, "qwen2", dtype=torch.float32)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class Interrupted(Exception):
    """Stands for a key that was pressed, or a machine that went off."""


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(*folders, tmp_path / "whole", rank=3)

    def stop(done: int, total: int) -> None:
        if done == 7:
            raise Interrupted

    out = tmp_path / "parts"
    with pytest.raises(Interrupted):
        extract(*folders, out, rank=5, progress=stop)  # of another rank: of no use later
    with pytest.raises(Interrupted):
        extract(*folders, out, rank=3, progress=stop)
    assert not out.exists()
    worked = []
    change = extraction.Extractor.change
    monkeypatch.setattr(
        extraction.Extractor, "change", lambda job, name: worked.append(name) or change(job, name)
    )
    totals = []
    made = extract(*folders, out, rank=3, progress=lambda done, total: totals.append(total))
    assert len(worked) == totals[0] - 7
    assert contents(out) == contents(whole.folder)
    assert (made.ranks, made.error, made.bytes) == (whole.ranks, whole.error, whole.bytes)
    assert not list(tmp_path.glob("*.partial"))


def test_shards_are_read_like_one_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    one = extract(*folders, tmp_path / "one", rank=2)
    model, sharded = plain(folders[0]), tmp_path / "sharded"
    model.save_pretrained(sharded, max_shard_size="40KB")
    make_tokenizer("byte-level").save_pretrained(sharded)
    assert len(list(sharded.glob("*.safetensors"))) > 3
    many = extract(sharded, folders[1], tmp_path / "many", rank=2)
    assert (
        contents(many.folder)["adapter_model.safetensors"]
        == (contents(one.folder)["adapter_model.safetensors"])
    )


def test_more_is_kept_at_a_higher_rank_or_energy(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    made = {
        name: extract(*folders, tmp_path / name, **asked)
        for name, asked in {
            "2": {"rank": 2},
            "12": {"rank": 12},
            "half": {"energy": 0.5},
            "most": {"energy": 0.95},
        }.items()
    }
    assert set(made["2"].ranks.values()) == {2}
    assert made["12"].error < made["2"].error
    assert made["most"].error < 0.05**0.5 + 1e-6 < made["half"].error < 0.5**0.5 + 1e-6
    assert len(set(made["half"].ranks.values())) > 1  # a rank for each matrix
    pair = ModelPair.from_adapter(folders[1], made["half"].folder)  # PEFT's patterns are read
    assert pair.approximate and "of the difference left out" in pair.notes[-1]
    _, on = peft_logits(folders[1], made["half"].folder, IDS)
    torch.testing.assert_close(logits(pair.base), on, rtol=1e-4, atol=1e-4)


def test_the_best_of_a_rank_and_nearly_so_of_big_matrices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(300, 200, generator=generator, dtype=torch.float64)
    matrix *= torch.logspace(0, -2, 200)
    values = torch.linalg.svdvals(matrix)
    best = values[6:].square().sum().sqrt()

    def left(matrix: torch.Tensor) -> torch.Tensor:
        up, down = extraction.factors(matrix, 6)
        assert up.shape[1] == down.shape[0] == 6
        return (matrix - up @ down).norm()

    torch.testing.assert_close(left(matrix), best, rtol=1e-10, atol=0)
    torch.testing.assert_close(left(matrix.T), best, rtol=1e-10, atol=0)
    monkeypatch.setattr(extraction, "BIG", 64)
    state = torch.random.get_rng_state()
    assert best < left(matrix) < 1.005 * best
    assert left(matrix) == left(matrix) and torch.equal(state, torch.random.get_rng_state())


def test_rows_that_only_one_model_has(tmp_path: Path) -> None:
    """Padding that the plain model lacks is left out, and its own padding stays as it is."""
    base, aligned = make_pair_folder(tmp_path, "llama")
    wide = make_model("llama", len(make_tokenizer("byte-level")), seed=5, padded=30)
    wide.save_pretrained(base)
    for exact, model in (("base", base), ("aligned", aligned)):
        made = extract(base, aligned, tmp_path / f"by {exact}", energy=1.0, exact=exact)
        pair = ModelPair.from_adapter(model, made.folder)
        for side, folder in (("base", base), ("aligned", aligned)):
            expected = logits(plain(folder))
            shared = min(expected.shape[-1], logits(plain(model)).shape[-1])
            found = logits(getattr(pair, side))[..., :shared]
            require_same(found, expected[..., :shared])
    narrow = make_model("llama", len(make_tokenizer("byte-level")))
    narrow.resize_token_embeddings(300)
    narrow.save_pretrained(base)
    with pytest.raises(PairError, match="tokens, but .* only 300 rows.*as the exact side"):
        extract(base, aligned, tmp_path / "short", rank=1, exact="base")


def test_what_comes_with_the_adapter(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, aligned = folders
    made = extract(base, aligned, tmp_path / "one", rank=2)
    pair = ModelPair.from_adapter(aligned, made.folder)
    expected = ModelPair.from_pretrained(base, aligned)
    assert pair.exact == "aligned" and not pair.base_tokenizer.chat_template
    made = extract(base, aligned, tmp_path / "two", rank=2, exact="base")
    other = ModelPair.from_adapter(base, made.folder)
    assert other.exact == "base"
    for found in (pair, other):
        assert (found.base_eos, found.aligned_eos) == (expected.base_eos, expected.aligned_eos)
        assert found.render_aligned("Hi") == expected.render_aligned("Hi")
        assert found.render_base("Hi") == expected.render_base("Hi")
    with pytest.raises(ParameterError, match="exact must be 'base', as .* says, got 'aligned'"):
        ModelPair.from_adapter(base, made.folder, exact="aligned")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "rank must be given, or else energy"),
        ({"rank": 2, "energy": 0.5}, "rank must be given, or else energy"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"energy": 1.5}, "energy must be above 0 and at most 1"),
        *(({"rank": rank}, "rank must be at least 1") for rank in (True, 2.5, "2", torch.ones(2))),
        *(({"energy": energy}, "energy must be above 0") for energy in (NAN, "all", torch.ones(2))),
        *(({"rank": 2, "exact": side}, "exact must be 'base' or") for side in ("both", [], IDS)),
        ({"rank": 2, "progress": True}, "progress must be a function"),
        ({"rank": 2, "dtype": "int3"}, "dtype must be one of"),
    ],
)
def test_what_is_asked_wrongly(
    asked: dict[str, Any], message: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match=message):
        extract(*folders, tmp_path / "out", **asked)


@pytest.mark.parametrize("out", [None, 3, b"out", "", ".", "base", "base/config.json"])
def test_folders_that_are_none_or_not_new(
    out: Any, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders[0].parent)
    with pytest.raises(ParameterError, match="out must be (a|the path of a) new folder"):
        extract(*folders, out, rank=2)


@pytest.mark.parametrize("out", ["a" * 300, "a\0b", "/dev/null/out"])
def test_folders_that_cannot_be_made(out: str, folders: tuple[Path, Path]) -> None:
    with pytest.raises(ParameterError, match="out must be a folder that can be made"):
        extract(*folders, out, rank=2)


def test_a_rank_of_another_library(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert set(extract(*folders, tmp_path / "out", rank=torch.tensor(2)).ranks.values()) == {2}


def test_models_that_cannot_be_compared(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, aligned = folders
    with pytest.raises(PairError, match="are the same"):
        extract(base, base, tmp_path / "out", rank=2)
    config = json.loads((aligned / "config.json").read_text())
    (aligned / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    with pytest.raises(PairError, match="differ not only in their weights, but in rms_norm_eps"):
        extract(base, aligned, tmp_path / "out", rank=2)
    (aligned / "config.json").write_text(json.dumps(config | {"hidden_size": 16}))
    with pytest.raises(PairError, match="but in hidden_size"):
        extract(base, aligned, tmp_path / "out", rank=2)
    (aligned / "config.json").write_text(json.dumps(config))
    weights = aligned / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PairError, match="weights of .* could not be read"):
        extract(base, aligned, tmp_path / "out", rank=2)
