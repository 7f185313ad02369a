"""Pairs to measure speed with: of random weights, or the embedded pair made heavy."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from baco_integrations import ModelPair

SMOLLM2_135M = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
"""Shape of SmolLM2-135M."""
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def random_pair(
    shape: dict[str, Any] = SMOLLM2_135M,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    name: str = "random-135m",
) -> ModelPair:
    """Make a pair of two random Llama models of one shape, with a byte-level tokenizer of its size.

    Args:
        shape: Settings of a ``LlamaConfig``.
        dtype: Name of the weights' dtype.
        device: Where the models are made, and stay.
        name: What to call it.
    """
    base, aligned = (random_model(shape, seed, dtype, device) for seed in (0, 1))
    plain, chatty = (word_tokenizer(shape["vocab_size"], text) for text in (None, TEMPLATE))
    return ModelPair(base, aligned, plain, chatty, name=name)


def random_model(shape: dict[str, Any], seed: int, dtype: str, device: str) -> Any:
    config = LlamaConfig(**shape, bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))


def word_tokenizer(size: int, template: str | None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer; its words w0, w1, ... make up the wanted size."""
    pieces = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [f"Ġw{number}" for number in range(size - len(pieces))]
    vocabulary = {piece: token_id for token_id, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    tokenizer.chat_template = template
    return tokenizer


def widened_pair(width: int = 8192) -> ModelPair:
    """Make the embedded pair heavy: its layers get hidden units of zeros, which change no logit.

    So a pair that agrees as trained pairs do can be measured where a forward is bound by reading
    weights.

    Args:
        width: Hidden units of each layer.
    """
    pair = ModelPair.tiny(progress=False)
    base, aligned = (widened_model(model, width) for model in (pair.base, pair.aligned))
    tokenizers = pair.base_tokenizer, pair.aligned_tokenizer
    return ModelPair(base, aligned, *tokenizers, name=f"tiny-{width}")


def widened_model(model: Any, width: int) -> Any:
    config = type(model.config)(**{**model.config.to_dict(), "intermediate_size": width})
    heavy = type(model)(config).to(model.dtype).eval()
    with torch.no_grad():
        for name, target in heavy.state_dict().items():
            weight = model.state_dict()[name]
            target.zero_()
            target[tuple(slice(size) for size in weight.shape)] = weight
    return heavy
