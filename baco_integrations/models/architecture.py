"""Which models can be decoded, judged by their configurations before any weight is read."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from ..core.errors import PairError, UnsafeWeightsError, shorten
from .quantization import quiet_torchao

ATTENTION = ("sdpa", "eager")
LAYER_TYPES = {"full_attention", "sliding_attention"}
ROPE_TYPES = {"dynamic", "longrope"}
"""Kinds of rotary positions that cannot be decoded in batches."""

# Well beyond every published model. Layers and experts may be built one by one; a window may be
# said to have no end, and is cut down to so many positions.
MAX_LAYERS, MAX_EXPERTS, MAX_SIZE, MAX_WINDOW = 1024, 4096, 2**24, 2**30
LIMITS = (
    (re.compile(r"(?:.*_)?layers?"), MAX_LAYERS),
    (re.compile(r"(?:.*_)?experts"), MAX_EXPERTS),
    (re.compile(r"(?:.*_)?(?:size|dim|heads?|embd|inner|d_model|d_ff|rank)"), MAX_SIZE),
)
"""The largest value allowed in fields whose names match."""
SIZES = {
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "head_dim"), MAX_SIZE),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads"), MAX_SIZE),
    "num_hidden_layers": MAX_LAYERS,
    "max_position_embeddings": 2**63,
}
"""The sizes that transformers gives every model, by these names, and their largest values."""


def require_plausible(file: Path, fields: Mapping[str, Any], text: bool = True) -> None:
    """Refuse a config.json with sizes that no model has, before transformers makes use of it.

    Args:
        file: The file, for the message.
        fields: The fields of the file, or of a part of it.
        text: Whether they are those of the text model, whose sizes must be at least 1.

    Raises:
        PairError: A size is out of range, or a field names another file of weights.
    """
    if fields.get("transformers_weights") is not None:
        raise UnsafeWeightsError(
            f"{file} names weights of its own (transformers_weights). Take that out, and call the "
            "weights model.safetensors."
        )
    for field, value in fields.items():
        if isinstance(value, Mapping):
            require_plausible(file, value, field == "text_config")
        elif isinstance(value, int | float):
            most = next((most for names, most in LIMITS if names.fullmatch(field)), None)
            least = 1 if text and field in SIZES else -math.inf
            if most is not None and not least <= value <= most:
                refuse(file, field, f"a whole number from 1 to {most:,}", value)


def require_sizes(file: Path, config: Any) -> None:
    """Refuse a configuration in which a field of `SIZES` is no whole number in its range."""
    text = config.get_text_config()
    if isinstance(text, dict):  # of a kind that has no such part
        refuse(file, "text_config", "left out", text)
    for field, most in SIZES.items():
        value = getattr(text, field, None)
        if isinstance(value, int | float | str) and not (type(value) is int and 0 < value <= most):
            refuse(file, field, f"a whole number from 1 to {most:,}", value)


def refuse(file: Path, field: str, allowed: str, value: object) -> NoReturn:
    """Raise a `PairError` about a field of a configuration."""
    raise PairError(
        f"{file} says {field} is {shorten(value)}, which must be {allowed}. Fetch the file again, "
        "or choose another model."
    )


def architecture_problems(config: Any) -> list[str]:
    """Return why a model cannot be decoded, as phrases that follow its name; empty if it can."""
    if config.is_encoder_decoder:
        return ["is an encoder-decoder model; a pair needs decoder-only models"]
    text = config.get_text_config()
    layers = sorted(set(getattr(text, "layer_types", None) or ()) - LAYER_TYPES)
    problems = [
        f"has {layer} layers; rows can be taken back only in full and sliding attention"
        for layer in layers
    ]
    # There may be one table of rotary positions, or one for each kind of layer.
    rope = getattr(text, "rope_parameters", None) or {}
    tables = [rope, *(table for table in rope.values() if isinstance(table, dict))]
    problems += [
        f"uses {kind} rotary positions, which depend on the longest row of a batch"
        for kind in sorted({str(table.get("rope_type")) for table in tables} & ROPE_TYPES)
    ]
    with quiet_torchao():  # imported with the first model class
        model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None:
        if not getattr(config, "auto_map", None):
            problems.append(f"is of type {config.model_type!r}, which is no causal language model")
    elif model_class._is_stateful:
        problems.append("keeps a recurrent state, which cannot be taken back token by token")
    elif "position_ids" not in inspect.signature(model_class.forward).parameters:
        problems.append("takes no position ids, so its rows cannot be of different ages")
    return problems


def require_decodable(name: str, config: Any) -> None:
    """Raise a `PairError` with all reasons why a model cannot be decoded, if there are any."""
    if problems := architecture_problems(config):
        raise PairError(
            f"{name} {'; it '.join(problems)}. Choose a pair of decoder-only transformers, for "
            "example from PRESETS."
        )
    attention = getattr(config, "_attn_implementation", None)
    if attention is not None and attention.removeprefix("baco_") not in ATTENTION:
        raise PairError(
            f"{name} was loaded with attention {attention!r}, which takes no masks for rows of "
            "different ages. Load it with attn_implementation='sdpa' or 'eager'."
        )


def context_window(config: Any, tokenizer: Any) -> int:
    """Return how many tokens a model can read, by its configuration or else its tokenizer."""
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    window = min(window or tokenizer.model_max_length, MAX_WINDOW)
    if not window >= 1:
        raise PairError(
            f"A tokenizer has model_max_length={window}, and its model tells no other. Set "
            "max_position_embeddings in config.json to the model's context window."
        )
    return int(window)
