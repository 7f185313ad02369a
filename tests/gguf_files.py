"""Saved tiny models as GGUF files, as llama.cpp's converter would write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file
from transformers import AutoTokenizer

SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "head_count": "num_attention_heads",
    "head_count_kv": "num_key_value_heads",
    "key_length": "head_dim",
    "value_length": "head_dim",
    "sliding_window": "sliding_window",
    "layer_norm_rms_eps": "rms_norm_eps",
}
"""Methods ``add_...`` of a `GGUFWriter` by the field of a configuration that they write."""
NORMAL, CONTROL = 1, 3


def write_gguf(folder: Path, file: Path, *, quantised: bool = False, **metadata: Any) -> Path:
    """Write a model's folder as one GGUF file; more `metadata` are numbers by their keys."""
    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"].removesuffix("_text")
    writer = gguf.GGUFWriter(file, kind)
    for method, field in SIZES.items():
        if config.get(field) is not None:
            getattr(writer, f"add_{method}")(config[field])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if kind == "llama":
        writer.add_rope_dimension_count(config["head_dim"])
    add_tokenizer(writer, folder, config["vocab_size"])
    for key, value in metadata.items():
        writer.add_uint32(key, value)
    names = gguf.get_tensor_name_map(
        {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[kind],
        config["num_hidden_layers"],
    )
    for name, tensor in load_file(folder / "model.safetensors").items():
        place = names.get_name(name, (".weight", ".bias"))
        stored = as_stored(kind, name, tensor.astype(np.float32), config)
        if quantised and stored.ndim == 2 and stored.shape[1] % 32 == 0:
            q8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(place, gguf.quants.quantize(stored, q8), raw_dtype=q8)
        else:
            writer.add_tensor(place, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def as_stored(kind: str, name: str, tensor: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Return a weight as llama.cpp does: Gemma's norms plus 1, Llama's rotary pairs in turn."""
    if kind.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    found = next((field for part, field in heads.items() if part in name), None)
    if kind != "llama" or found is None:
        return tensor
    halves = tensor.reshape(config[found], 2, -1, *tensor.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(tensor.shape))


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    """Write a folder's tokenizer and chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    pieces = tokenizer.convert_ids_to_tokens(range(size))
    control = {*tokenizer.all_special_tokens}
    byte_level = "<0x00>" not in pieces
    writer.add_tokenizer_model("gpt2" if byte_level else "llama")
    writer.add_token_list(pieces)
    writer.add_token_types([CONTROL if piece in control else NORMAL for piece in pieces])
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_token_scores([-float(place) for place in range(size)])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(not byte_level)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
