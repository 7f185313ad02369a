"""GGUF files: what the metadata of one says, checked before transformers reads the rest.

transformers keeps no block of such a file as it is stored: all weights are dequantised on loading.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..core.errors import PairError, shorten


def read_metadata(file: Path) -> dict[str, Any]:
    """Return the metadata of a GGUF file; of an array of strings, such as all tokens, its length.

    Raises:
        PairError: It is no GGUF file, damaged, a part of one, or of an unknown architecture.
    """
    from transformers.integrations.gguf.reader import read_gguf_metadata

    try:
        metadata, _ = read_gguf_metadata(str(file))
    except Exception as error:  # transformers stumbles in any way over what is no such file
        said = str(error).removeprefix(f"{file} ").removesuffix(".")
        raise PairError(
            f"{file} is not a GGUF file, or is damaged ({said}). Fetch it again."
        ) from error
    parts, architecture = metadata.get("split.count", 1), metadata["general.architecture"]
    if parts != 1:
        raise PairError(
            f"{file} is one of {parts} parts of a model. Join them by llama.cpp's "
            "`llama-gguf-split --merge`, or give a model in one file."
        )
    known = known_architectures()
    if re.sub("[_-]", "", str(architecture)) not in known:
        raise PairError(
            f"{file} holds a model of architecture {shorten(architecture)}, which transformers "
            f"does not read from GGUF files. It reads {', '.join(sorted(known))}. Give the model's "
            "original folder."
        )
    return metadata


def known_architectures() -> set[str]:
    """Return the architectures that transformers reads from GGUF files, without _ and -."""
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    names = (*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS)
    # The first table has groups of metadata too, and names as in qwen2_moe for qwen2moe.
    return {re.sub("[_-]", "", name) for name in names} - {"general", "tokenizer"}


def context_length(file: Path) -> Any:
    """Return how many tokens the model in a GGUF file can read; None if it does not say."""
    metadata = read_metadata(file)
    return metadata.get(f"{metadata['general.architecture']}.context_length")


def end_ids(file: Path) -> list[int]:
    """Return the ids that end a text, a turn or a message, as a GGUF file says."""
    metadata = read_metadata(file)
    names = (f"tokenizer.ggml.{kind}_token_id" for kind in ("eos", "eot", "eom"))
    return [metadata[name] for name in names if name in metadata]
