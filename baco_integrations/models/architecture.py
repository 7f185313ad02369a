"""Which architectures can be decoded, told from a configuration before any weight is read."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..core.errors import PairError, UnsafeWeightsError, shorten
from .quantization import quiet_torchao

_ATTENTION = ("sdpa", "eager")
_LAYERS = {"full_attention", "sliding_attention"}
_ROPE = {"dynamic", "longrope"}

# Well beyond every published model. Layers and experts may be built one by one; a window may be
# said to have no end, and is cut down to so many positions.
_LAYERS_MOST, _EXPERTS_MOST, _MOST, _WINDOW_MOST = 1024, 4096, 2**24, 2**30
_LIMITS = (
    (re.compile(r"(?:.*_)?layers?"), _LAYERS_MOST),
    (re.compile(r"(?:.*_)?experts"), _EXPERTS_MOST),
    (re.compile(r"(?:.*_)?(?:size|dim|heads?|embd|inner|d_model|d_ff|rank)"), _MOST),
)
# What every model has, whatever its configuration calls them.
_SIZES = {
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "head_dim"), _MOST),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads"), _MOST),
    "num_hidden_layers": _LAYERS_MOST,
    "max_position_embeddings": 2**63,
}


def require_plausible(folder: Path, told: Mapping[str, Any], text: bool = True) -> None:
    """Refuse a configuration that asks for more than any model has, before it is believed.

    Args:
        folder: Where it is, for the message.
        told: What its file says.
        text: Whether this part is that of the text, whose main sizes are none of them 0.

    Raises:
        PairError: The field, its value and what is allowed.
        UnsafeWeightsError: It names weights of its own.
    """
    if told.get("transformers_weights") is not None:
        raise UnsafeWeightsError(
            f"{folder / 'config.json'} names weights of its own (transformers_weights). Take that "
            "out, and call the weights model.safetensors."
        )
    for field, value in told.items():
        if isinstance(value, Mapping):
            require_plausible(folder, value, field == "text_config")
        elif isinstance(value, int | float):
            most = next((most for names, most in _LIMITS if names.fullmatch(field)), None)
            least = 1 if text and field in _SIZES else -math.inf
            if most is not None and not least <= value <= most:
                _refuse(folder, field, f"a whole number from 1 to {most:,}", value)


def require_sizes(folder: Path, config: Any) -> None:
    """Refuse a configuration whose main sizes are no sizes.

    Raises:
        PairError: The field, its value and what is allowed.
    """
    text = config.get_text_config()
    if isinstance(text, dict):  # of a kind that has no such part
        _refuse(folder, "text_config", "left out", text)
    for field, most in _SIZES.items():
        value = getattr(text, field, None)
        if isinstance(value, int | float | str) and not (type(value) is int and 0 < value <= most):
            _refuse(folder, field, f"a whole number from 1 to {most:,}", value)


def _refuse(folder: Path, field: str, allowed: str, value: object) -> NoReturn:
    raise PairError(
        f"{folder / 'config.json'} says {field} is {shorten(value)}, which must be {allowed}. "
        "Fetch the file again, or choose another model."
    )


def architecture_problems(config: Any) -> list[str]:
    """Return why a model cannot be decoded, as phrases that follow its name; empty if it can."""
    return list(_problems(config))


def require_decodable(name: str, config: Any) -> None:
    """Refuse a model that cannot be decoded.

    Raises:
        PairError: With all reasons.
    """
    if problems := architecture_problems(config):
        raise PairError(
            f"{name} {'; it '.join(problems)}. Choose a pair of decoder-only transformers, for "
            "example from PRESETS."
        )
    attention = getattr(config, "_attn_implementation", None)
    if attention is not None and attention not in _ATTENTION:
        raise PairError(
            f"{name} was loaded with attention {attention!r}, which takes no masks for rows of "
            "different ages. Load it with attn_implementation='sdpa' or 'eager'."
        )


def _problems(config: Any) -> Iterator[str]:
    if config.is_encoder_decoder:
        yield "is an encoder-decoder model; a pair needs decoder-only models"
        return
    text = config.get_text_config()
    for layer in sorted(set(getattr(text, "layer_types", None) or ()) - _LAYERS):
        yield f"has {layer} layers; rows can be taken back only in full and sliding attention"
    for rope in sorted(_rope_types(text) & _ROPE):
        yield f"uses {rope} rotary positions, which depend on the longest row of a batch"
    model_class = _model_class(config)
    if model_class is None:
        if not getattr(config, "auto_map", None):
            yield f"is of type {config.model_type!r}, which is no causal language model"
        return
    if model_class._is_stateful:
        yield "keeps a recurrent state, which cannot be taken back token by token"
    elif "position_ids" not in inspect.signature(model_class.forward).parameters:
        yield "takes no position ids, so its rows cannot be of different ages"


def _rope_types(config: Any) -> set[str]:
    """Return the kinds of rotary positions, of which there may be one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    tables = [rope, *(table for table in rope.values() if isinstance(table, dict))]
    return {str(table["rope_type"]) for table in tables if "rope_type" in table}


def _model_class(config: Any) -> Any:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    with quiet_torchao():  # the first that asks for a model's class imports torchao too
        return MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)


def context_window(config: Any, tokenizer: Any) -> int:
    """Return how many tokens a model was made to read.

    Raises:
        PairError: Neither the configuration nor the tokenizer tells a length.
    """
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    window = min(window or tokenizer.model_max_length, _WINDOW_MOST)
    if not window >= 1:
        raise PairError(
            f"A tokenizer has model_max_length={window}, and its model tells no other. Set "
            "max_position_embeddings in config.json to the model's context window."
        )
    return int(window)
