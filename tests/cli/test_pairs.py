"""`baco pairs` and `baco check`."""

import json
from pathlib import Path

import pytest

from baco_integrations.models.presets import PRESETS
from baco_integrations.tiny import WEIGHTS
from tests.commands import baco
from tests.families import make_pair_folder


def test_pairs_lists_all() -> None:
    listed = json.loads(baco("pairs", "--json").stdout)["pairs"]
    assert [pair["name"] for pair in listed] == list(PRESETS)
    shown = baco("pairs").stdout
    for preset in PRESETS.values():
        assert all(part in shown for part in (preset.name, preset.base, preset.aligned))


@pytest.mark.parametrize("width", ["40", "60", "80", "120"])
def test_names_of_pairs_are_whole_at_any_width(width: str) -> None:
    shown = baco("pairs", env={"COLUMNS": width}).stdout
    words = set(shown.split())
    for preset in PRESETS.values():
        assert {preset.name, preset.base, preset.aligned} <= words
    assert "…" not in shown
    assert "the weights of both together, in bfloat16" in " ".join(shown.split())


def test_check_says_by_its_exit_code_whether_two_models_make_a_pair(tmp_path: Path) -> None:
    base, aligned = str(WEIGHTS / "base"), str(WEIGHTS / "aligned")
    assert "make a pair" in baco("check", base, aligned).stdout
    assert json.loads(baco("check", base, aligned, "--json").stdout)["compatible"]
    _, other = make_pair_folder(tmp_path, "llama")
    assert "do not share one text vocabulary" in " ".join(
        baco("check", base, str(other), code=1).stdout.split()
    )
    assert not json.loads(baco("check", base, str(other), "--json", code=1).stdout)["compatible"]


def test_check_takes_the_name_of_a_pair() -> None:
    assert "make a pair" in baco("check", "tiny").stdout
    assert "make a pair" in baco("check", "Tiny").stdout


def test_check_says_what_one_model_is() -> None:
    base, aligned = str(WEIGHTS / "base"), str(WEIGHTS / "aligned")
    shown = " ".join(baco("check", aligned).stdout.split())
    assert "Weights, once: 5.9 MiB in float32" in shown and "chat template yes" in shown
    assert "base is shown the base prompt 'qa'" in shown and "✓ One model" in shown
    shown = " ".join(baco("check", base).stdout.split())
    assert "both are shown the same" in shown and "✓" not in shown
    told = json.loads(baco("check", aligned, aligned, "--json").stdout)
    assert told["compatible"] and told["kind"] == "one-model"
    assert "a folder or ORG/MODEL" in baco("check", "tinny", code=2).stderr
