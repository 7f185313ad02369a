"""A GGUF file saved as an ordinary folder, which loads in a fraction of the time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..core.errors import ParameterError
from .checkpoint import Checkpoint, load_tokenizer
from .hub import locate
from .loading import LOADING, progress_bars, quiet_transformers
from .memory import require_memory, target_devices
from .options import LoadOptions


def dequantize(file: str | Path, folder: str | Path, **options: Any) -> Path:
    """Save the model in a GGUF file, with its tokenizer, as a folder of safetensors.

    Args:
        file: The file, or one on the hub as ``org/model:file.gguf``.
        folder: The folder to make.
        options: Settings of `LoadOptions`, such as ``dtype``, which is float32 unless given.

    Returns:
        The folder.

    Raises:
        ParameterError: It is no GGUF file, the folder exists, or a setting is not allowed.
        PairError: As in `ModelPair.from_pretrained`.
        MissingExtraError: The extra ``gguf`` is not installed.
    """
    checked, made = LoadOptions(**options), Path(folder).expanduser()
    if made.exists():
        raise ParameterError("folder", "a new folder", str(folder), "Choose another name.")
    files = locate(file, "aligned", checked)
    if not files.gguf:
        remedy = "A folder is loaded as it is."
        raise ParameterError("file", "a GGUF file", str(file), remedy)
    checkpoint = Checkpoint(files, checked)
    checkpoint.require_decodable()
    tokenizer = load_tokenizer(files, checked)
    if checked.check_memory:
        devices = target_devices(checked.placement)
        require_memory(checkpoint.load_bytes(), devices, files.name)
    with progress_bars(checked) as add_bar:
        bar = add_bar(f"Loading {files.name}")
        model = checkpoint.load(checkpoint.quantizer(), bar)
    partial = made.with_name(f"{made.name}.partial")  # which an interrupted run leaves behind
    shutil.rmtree(partial, ignore_errors=True)
    with LOADING, quiet_transformers(None):
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return partial.rename(made)
