"""The files in a model's folder: its safetensors, what their headers say, and a fingerprint.

Invariant: whatever an index names, only safetensors of the folder itself are opened.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field
from safetensors import safe_open

from ..core.errors import ModelNotFoundError, PairError, UnsafeWeightsError

WHOLE = "model.safetensors"
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
CONTENT = {".json", ".jinja", ".model", ".txt", ".tiktoken", ".py", ".safetensors"}
LONGEST_HEADER = 100_000_000
"""Most bytes that the safetensors format allows for a header."""
PIECE, PIECES = 4096, 256
"""Bytes of one sample of a long file, and number of samples."""
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


class ModelFiles(NamedTuple):
    """Where a model or an adapter is: its id or path as given, and its local folder.

    `revision` is the commit of a hub model, and the fingerprint of a local folder or GGUF file;
    `gguf` is the name of such a file in the folder, which then is all that is read.
    """

    name: str
    folder: Path
    revision: str
    remote: bool = False
    gguf: str = ""

    @property
    def path(self) -> Path:
        """The folder, or the GGUF file in it."""
        return self.folder / self.gguf

    @property
    def config(self) -> Path:
        """The file that the model's configuration is read from."""
        return self.path if self.gguf else self.folder / CONFIG

    @property
    def key(self) -> tuple[Path, str]:
        """Path and revision, which no other contents have."""
        return self.path, self.revision

    @property
    def label(self) -> str:
        """Its name for a pair's identity: the id, or the path's last part."""
        return self.name if self.remote else self.path.name


class ShardIndex(BaseModel):
    """The index of a sharded checkpoint: which file holds which weight."""

    metadata: dict[str, Any]
    weight_map: Annotated[dict[str, str], Field(min_length=1)]


class StoredTensor(NamedTuple):
    """The file that a tensor is in, and its shape."""

    file: Path
    shape: tuple[int, ...]


def weight_files(source: ModelFiles) -> list[Path]:
    """Return the safetensors that transformers reads a model's weights from; empty if none.

    Raises:
        PairError: The index is damaged, a shard is missing, other files would be read, or it is a
            GGUF file.
    """
    if source.gguf:
        raise PairError(
            f"{source.name} is a GGUF file, and safetensors are needed here. Save it as a folder: "
            f"baco dequantize {source.name} FOLDER."
        )
    if others := sorted(source.folder.glob("shard-*-model-*.safetensors")):
        raise UnsafeWeightsError(
            f"{source.name} has a distributed checkpoint ({others[0].name}), which would be read "
            f"in place of {WHOLE}. Load it with transformers and save it again by "
            "save_pretrained(folder)."
        )
    index, names = source.folder / INDEX, [WHOLE]
    if not (source.folder / WHOLE).is_file():
        if not index.is_file():
            return []
        try:
            weight_map = ShardIndex.model_validate_json(index.read_bytes(), strict=True).weight_map
        except (OSError, ValueError) as error:
            raise PairError(
                f"{index} does not say which file holds which weight. Fetch it again, or load the "
                "model with transformers and save it again by save_pretrained(folder)."
            ) from error
        names = sorted(set(weight_map.values()))
    for name in names:
        require_own_file(source, name)
    return [source.folder / name for name in names]


def require_own_file(source: ModelFiles, name: str) -> None:
    """Refuse a file of weights that is not safetensors, or not in the model's own folder.

    A link is allowed only into the blobs of a hub cache, where a snapshot's files are kept.
    """
    file = source.folder / name
    if Path(name).name != name or file.suffix != ".safetensors":
        raise UnsafeWeightsError(
            f"{source.folder / INDEX} names {name!r}, and only safetensors in the folder itself "
            "are read. Load weights that you trust with transformers, and save them again by "
            "save_pretrained(folder)."
        )
    if not file.is_file():
        raise ModelNotFoundError(
            f"{source.name} lacks {file}, which its index names. Fetch the model again."
        )
    real = file.resolve()
    cached = real.parent.name == "blobs" and real.parent.parent.name.startswith("models--")
    if real.parent != source.folder.resolve() and not cached:
        raise UnsafeWeightsError(
            f"{file} is a link to {real}, and only safetensors in the folder itself are read. "
            "Copy the file to where the link is."
        )


def read_headers(source: ModelFiles) -> dict[str, StoredTensor]:
    """Return where a model's tensors are stored, by name; empty if it has no weights.

    Raises:
        PairError: A file is damaged or of another format, or as for `weight_files`.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(source):
        try:
            with safe_open(file, "pt") as opened:
                for key in opened.keys():  # noqa: SIM118, for it is no dict
                    tensors[key] = StoredTensor(file, tuple(opened.get_slice(key).get_shape()))
        except Exception as error:  # Of safetensors and of the disk.
            raise PairError(
                f"The weights of {source.name} could not be read: {file} is not in the format of "
                f"safetensors, or damaged ({error}). Fetch it again."
            ) from error
    return tensors


def count_layers(names: Iterable[str]) -> int | None:
    """Return how many layers the names of weights number; None if they number none."""
    return max((int(found[1]) + 1 for name in names if (found := LAYER.search(name))), default=None)


def fingerprint(path: Path) -> str:
    """Return 12 hex digits that depend on the contents and names of a model's files alone.

    Of safetensors and GGUF files longer than `PIECES` times `PIECE` bytes (1 MiB), the header (of
    GGUF, the first 100 MB) and `PIECES` evenly spaced pieces are read: fine-tuning changes them, a
    few numbers changed in between do not.

    Args:
        path: A model's folder, or one GGUF file.
    """
    found = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        weights = file == path or file.suffix == ".safetensors"
        if not (weights or file.suffix in CONTENT) or not file.is_file():
            continue
        size = file.stat().st_size
        found.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as opened:
            if not weights or size <= PIECES * PIECE:
                found.update(hashlib.sha256(opened.read()).digest())
                continue
            header = int.from_bytes(opened.read(8), "little")
            found.update(opened.read(min(header, LONGEST_HEADER)))
            for piece in range(PIECES):
                opened.seek((size - PIECE) * piece // (PIECES - 1))
                found.update(opened.read(PIECE))
    return found.hexdigest()[:12]


def tokenizer_fingerprint(folder: Path) -> str:
    """Return what depends on all that a tokenizer may be read from, and on little else.

    That is every file of a model's folder but weights, their index and the configurations of model
    and generation; of the model's, what decides which kind of tokenizer it is.
    """
    found = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in CONTENT - {".safetensors"} or not file.is_file():
            continue
        if file.name not in {INDEX, CONFIG, "generation_config.json"}:
            found.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    config = json.loads((folder / CONFIG).read_bytes()) if (folder / CONFIG).is_file() else {}
    kind = [config.get(name) for name in ("model_type", "tokenizer_class", "auto_map")]
    found.update(json.dumps(kind).encode())
    return found.hexdigest()
