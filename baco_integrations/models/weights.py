"""A model's safetensors: which files are read, what their headers say, and what tells them apart.

Invariant: whatever an index or a configuration names, only safetensors of the model's own folder
are opened. None of this reads the weights themselves, but for the samples of a fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..core.errors import ModelNotFoundError, PairError, UnsafeWeightsError

if TYPE_CHECKING:
    from .loading import ModelFiles

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHAPES = dict[str, tuple[int, ...]]

_CONTENT = {".json", ".jinja", ".model", ".txt", ".tiktoken", ".py", ".safetensors"}
_LONGEST_HEADER = 100_000_000  # of safetensors itself
_PIECE = 4096
_PIECES = 256
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def weight_files(source: ModelFiles) -> list[Path]:
    """Return the files that a model's weights are read from; none where it has none.

    Raises:
        UnsafeWeightsError: Something else than safetensors of the folder would be read.
        ModelNotFoundError: A shard is missing.
        PairError: The index is damaged.
    """
    if others := sorted(source.folder.glob("shard-*-model-*.safetensors")):
        raise UnsafeWeightsError(
            f"{source.name} has a distributed checkpoint ({others[0].name}), which would be read "
            f"in place of {WHOLE}. Load it with transformers and save it again by "
            "save_pretrained(folder)."
        )
    if (source.folder / WHOLE).is_file():
        names = [WHOLE]
    else:
        names = _shards(source) if (source.folder / INDEX).is_file() else []
    for name in names:
        require_own_file(source, name)
    return [source.folder / name for name in names]


def _shards(source: ModelFiles) -> list[str]:
    try:
        index = json.loads((source.folder / INDEX).read_text())
        shards, metadata = {*index["weight_map"].values()}, index["metadata"]
    except Exception:  # It may be anything.
        shards, metadata = set(), None
    named = shards and all(isinstance(name, str) for name in shards)
    if not named or not isinstance(metadata, dict):
        raise PairError(
            f"{source.folder / INDEX} does not say which file holds which weight. Fetch it again, "
            "or load the model with transformers and save it again by save_pretrained(folder)."
        )
    return sorted(shards)


def require_own_file(source: ModelFiles, name: str) -> None:
    """Refuse what is no safetensors file of a model's folder.

    A file may be a link into a cache of the hub, as all are in the hub's own snapshots.

    Raises:
        UnsafeWeightsError: It is of another kind, or lies elsewhere.
        ModelNotFoundError: There is none.
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


def read_shapes(name: str, files: Iterable[Path]) -> SHAPES:
    """Return the shapes of the tensors in safetensors files, by their names.

    Args:
        name: The model's name, for the message.
        files: The files.

    Raises:
        PairError: A file is damaged, or of another format.
    """
    from safetensors import safe_open

    shapes: SHAPES = {}
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                for key in opened.keys():  # noqa: SIM118, for it is no dict
                    shapes[key] = tuple(opened.get_slice(key).get_shape())
        except Exception as error:  # Of safetensors and of the disk.
            raise PairError(
                f"The weights of {name} could not be read: {file} is not in the format of "
                f"safetensors, or damaged ({error}). Fetch it again."
            ) from error
    return shapes


def count_layers(shapes: SHAPES) -> int | None:
    """Return how many layers the names of weights number; None where they number none."""
    found = [int(layer[1]) + 1 for name in shapes if (layer := _LAYER.search(name))]
    return max(found, default=None)


def fingerprint(folder: Path) -> str:
    """Tell the contents of a model's folder apart, wherever they lie and whenever they came.

    Files up to `_PIECES` pieces of `_PIECE` bytes (1 MiB) are read whole, as are all that hold no
    weights; of longer safetensors, the header and so many pieces, evenly spaced. Tuning moves
    nearly every weight, so that shows; a few changed numbers in between do not.
    """
    found = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in _CONTENT and file.is_file():
            size = file.stat().st_size
            found.update(f"{file.name}\0{size}\0".encode())
            with file.open("rb") as opened:
                if file.suffix == ".safetensors" and size > _PIECES * _PIECE:
                    for piece in _samples(opened, size):
                        found.update(piece)
                else:
                    found.update(hashlib.sha256(opened.read()).digest())
    return found.hexdigest()[:12]


def _samples(opened: IO[bytes], size: int) -> Iterable[bytes]:
    header = int.from_bytes(opened.read(8), "little")
    yield opened.read(min(header, _LONGEST_HEADER))
    for piece in range(_PIECES):
        opened.seek((size - _PIECE) * piece // (_PIECES - 1))
        yield opened.read(_PIECE)
