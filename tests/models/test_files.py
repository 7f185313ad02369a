"""Files of weights: safetensors of the model's own folder, told apart by what is in them."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from baco_integrations import ModelPair
from baco_integrations.core.errors import ModelNotFoundError, PairError, UnsafeWeightsError
from baco_integrations.models.files import (
    INDEX,
    WHOLE,
    ModelFiles,
    count_layers,
    fingerprint,
    read_headers,
    weight_files,
)
from baco_integrations.tiny import WEIGHTS as TINY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in two shards."""
    folder = tmp_path / "model"
    folder.mkdir()
    names = {}
    for part in ("one", "two"):
        save_file({part: torch.zeros(2, 3)}, folder / f"model-{part}.safetensors")
        names[part] = f"model-{part}.safetensors"
    _index(folder, names)
    return folder


def _index(folder: Path, names: Any, metadata: Any = {"total_size": 48}) -> None:  # noqa: B006
    (folder / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": names}))


def _source(folder: Path) -> ModelFiles:
    return ModelFiles("mine", folder, "now")


def test_shapes_are_read_from_all_shards(folder: Path) -> None:
    files = weight_files(_source(folder))
    assert [file.name for file in files] == ["model-one.safetensors", "model-two.safetensors"]
    stored = read_headers(_source(folder))
    assert stored == {"one": (files[0], (2, 3)), "two": (files[1], (2, 3))}


def test_one_file_comes_before_shards_as_for_the_loader(folder: Path) -> None:
    save_file({"whole": torch.zeros(1)}, folder / WHOLE)
    assert weight_files(_source(folder)) == [folder / WHOLE]
    assert weight_files(_source(folder.parent)) == []


@pytest.mark.parametrize(
    "name",
    [
        *("weights.bin", "../elsewhere.safetensors", "/etc/passwd", "inner/model.safetensors"),
        *("..", "", ".safetensors"),
    ],
)
def test_an_index_names_safetensors_of_its_folder(folder: Path, name: str) -> None:
    (folder / "inner").mkdir()
    for other in (folder.parent / "elsewhere.safetensors", folder / "inner" / WHOLE):
        save_file({"one": torch.zeros(1)}, other)
    (folder / "weights.bin").write_bytes(b"never read")
    _index(folder, {"one": name})
    with pytest.raises(UnsafeWeightsError, match=re.escape(f"names {name!r}, and only")):
        weight_files(_source(folder))


@pytest.mark.parametrize(
    "told",
    [
        *("not json", "[]", "{}", '{"weight_map": {}}', '{"weight_map": [], "metadata": {}}'),
        *('{"weight_map": {"a": 1}, "metadata": {}}', '{"weight_map": {"a": []}, "metadata": {}}'),
        *('{"weight_map": {}, "metadata": {}}', '{"weight_map": {"a": "b"}, "metadata": 1}'),
        "[" * 100_000,
    ],
    ids=lambda told: told[:40],
)
def test_a_damaged_index(folder: Path, told: str) -> None:
    (folder / INDEX).write_text(told)
    with pytest.raises(PairError, match="does not say which file holds which weight"):
        weight_files(_source(folder))


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model-two.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=f"mine lacks {folder / 'model-two.safetensors'}"):
        weight_files(_source(folder))


def test_a_distributed_checkpoint_would_be_read_first(folder: Path) -> None:
    save_file({"one": torch.zeros(1)}, folder / "shard-00001-model-00001-of-00001.safetensors")
    with pytest.raises(UnsafeWeightsError, match="distributed checkpoint"):
        weight_files(_source(folder))


def test_links_lead_into_the_cache_of_the_hub_alone(tmp_path: Path) -> None:
    repo = tmp_path / "models--org--model"
    snapshot = repo / "snapshots" / "c0ffee"
    for part in (repo / "blobs", snapshot):
        part.mkdir(parents=True)
    save_file({"one": torch.zeros(1)}, repo / "blobs" / "0123")
    (snapshot / WHOLE).symlink_to(Path("../../blobs/0123"))
    assert read_headers(_source(snapshot)) == {"one": (snapshot / WHOLE, (1,))}
    shutil.copy(repo / "blobs" / "0123", tmp_path / "0123")
    (snapshot / WHOLE).unlink()
    (snapshot / WHOLE).symlink_to(tmp_path / "0123")
    with pytest.raises(UnsafeWeightsError, match="is a link to .*Copy the file"):
        weight_files(_source(snapshot))
    (snapshot / WHOLE).unlink()
    (snapshot / WHOLE).symlink_to("nowhere")
    assert weight_files(_source(snapshot)) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle's archive", b"\xff" * 100])
def test_what_is_no_safetensors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / WHOLE).write_bytes(content)
    with pytest.raises(PairError, match=f"weights of mine .*{tmp_path / WHOLE} is not in the form"):
        read_headers(_source(tmp_path))


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (["model.layers.0.q.weight", "model.layers.11.q.weight", "model.norm.weight"], 12),
        (["h.3.attn.weight"], 4),
        (["transformer.blocks.0.w", "vision.layers.1.w"], 2),
        (["lm_head.weight", "expert.7.weight"], None),
    ],
)
def test_layers_are_counted_by_name(names: list[str], layers: int | None) -> None:
    assert count_layers(names) == layers


# -- fingerprints ----------------------------------------------------------------------------------


def test_a_copy_of_another_time_is_the_same(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("what people read")
    copied = shutil.copytree(folder, tmp_path / "copied", copy_function=shutil.copyfile)
    (copied / "README.md").unlink()
    for file in copied.iterdir():
        os.utime(file, (1, 1))
    assert fingerprint(copied) == fingerprint(folder)
    # In a snapshot of the hub files are links.
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    assert fingerprint(linked) == fingerprint(folder)


def test_fingerprints_need_nothing_that_older_pythons_lack(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(folder)
    monkeypatch.delattr("hashlib.file_digest", raising=False)  # new in 3.11
    assert fingerprint(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "chat_template.jinja").write_text(""),
        lambda folder: (folder / "model-one.safetensors").rename(folder / "model-1.safetensors"),
        lambda folder: save_file({"one": torch.ones(2, 3)}, folder / "model-one.safetensors"),
    ],
)
def test_other_contents_are_another(folder: Path, change: Any) -> None:
    before = fingerprint(folder)
    change(folder)
    assert fingerprint(folder) != before


def test_long_files_are_sampled(folder: Path) -> None:
    file = folder / "model-one.safetensors"
    many = torch.arange(400_000, dtype=torch.float32)
    save_file({"one": many}, file)
    before = fingerprint(folder)
    file.write_bytes(b"\xff" * 2**21)  # a header longer than memory
    assert fingerprint(folder) != before
    save_file({f"weight {number:0100}": many[:4000] + number for number in range(99)}, file)
    named, content = fingerprint(folder), file.read_bytes()
    file.write_bytes(content.replace(b'98"', b'99"'))  # a name, far into the header
    assert fingerprint(folder) != named
    save_file({"one": many * 1.001}, file)
    assert fingerprint(folder) != before
    many[-1] = 0
    save_file({"one": many}, file)
    assert fingerprint(folder) != before  # and the end


def test_a_pair_is_the_same_wherever_it_is_installed(tmp_path: Path) -> None:
    copied = shutil.copytree(TINY, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    pair = ModelPair.from_pretrained(copied / "base", copied / "aligned", dtype="float32")
    assert pair.identity == ModelPair.tiny().identity
    assert pair.identity["base_revision"] == fingerprint(TINY / "base")
    assert pair.identity["aligned_revision"] != pair.identity["base_revision"]
