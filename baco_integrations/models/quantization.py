"""Quantised weights: what the short words mean, and what they ask of the machine.

Invariant: a row's logits do not depend on the other rows of its batch. That is why ``8bit`` is
weight-only everywhere; bitsandbytes' int8 looks for outliers over the whole batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..core.errors import MissingExtraError, ParameterError
from .options import SPREAD, WORDS, LoadOptions, plain

if TYPE_CHECKING:
    from .loading import ModelFiles

_LIBRARIES = {"8bit": "torchao", "4bit": "bitsandbytes"}


def quantizer(source: ModelFiles, config: Any, options: LoadOptions) -> Any:
    """Make what transformers is given to quantise a model while it is read; None if nothing.

    Args:
        source: Where the model is.
        config: The model's configuration.
        options: How to load this model.

    Raises:
        ParameterError: The model is quantised already, or cannot be on this device or in this
            dtype.
        MissingExtraError: The library that quantises is not installed.
    """
    asked, dtype = options.quantization, options.dtype_of(config)
    stored = getattr(config, "quantization_config", None)
    if asked in WORDS and stored is not None:
        remedy = "Leave it out, or choose the model's original."
        allowed = f"left out for {source.name}, whose weights are quantised already"
        raise ParameterError("quantization", allowed, asked, remedy)
    if asked in WORDS and dtype == "float64":
        remedy = "For example 'bfloat16'."
        raise ParameterError("dtype", "another where weights are quantised", dtype, remedy)
    if asked == "4bit" and not _uses_cuda(options.placement):
        allowed, remedy = "'8bit' where there is no CUDA device", "Or leave it out."
        raise ParameterError("quantization", allowed, asked, remedy)
    for library in map(_library, (stored, asked)):
        if library in _LIBRARIES.values() and find_spec(library) is None:
            raise MissingExtraError(f"{source.name}, quantised with {library},", "quant")
    return _int8() if asked == "8bit" else _nf4(dtype) if asked == "4bit" else asked


def _uses_cuda(placement: Any) -> bool:
    import torch

    if placement in SPREAD:
        return torch.cuda.is_available()
    named = placement.values() if isinstance(placement, Mapping) else [placement]
    return any(device.startswith("cuda") for device in named)


def _library(quantization: Any) -> str:
    """Name the method of a quantisation; the methods of the words are named like libraries."""
    if quantization in WORDS:
        return _LIBRARIES[quantization]
    said = plain(quantization) or {}
    words = [word for word in WORDS if said.get(f"load_in_{word}")]
    return "bitsandbytes" if words else str(said.get("quant_method"))


def _int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig  # type: ignore[import-untyped]
    from transformers import TorchAoConfig

    # A compiler's settings are the process's, so they are left alone.
    return TorchAoConfig(Int8WeightOnlyConfig(set_inductor_config=False))


def _nf4(dtype: str) -> Any:
    import torch
    import transformers

    make: Any = transformers.BitsAndBytesConfig
    return make(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype, None),
    )


@contextmanager
def quiet_torchao() -> Iterator[None]:
    """Drop what torchao says when it is first imported, which transformers does whenever it can."""
    noisy = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    for logger in noisy:
        logger.addFilter(_is_news)
    try:
        yield
    finally:
        for logger in noisy:
            logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Tell apart its complaints, about kernels for other machines and its own use of torch."""
    return "Failed to load" not in record.msg and "Enum subclass" not in record.msg
