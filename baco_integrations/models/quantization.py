"""Quantised weights: what the words ``8bit`` and ``4bit`` mean, and what they need.

Invariant: a row's logits do not depend on the other rows of its batch. That is why ``8bit`` is
weight-only everywhere; bitsandbytes' int8 looks for outliers over the whole batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig, TorchAoConfig

from ..core.errors import MissingExtraError, ParameterError
from .options import SPREAD, WORDS, LoadOptions, plain

LIBRARIES = {"8bit": "torchao", "4bit": "bitsandbytes"}
"""The library behind each word."""


def quantizer(name: str, config: Any, options: LoadOptions) -> Any:
    """Return the quantisation config with which transformers loads a model.

    It is None if no quantisation was asked for, and a config that was given is returned as it is.


    Raises:
        ParameterError: The model is quantised already, or cannot be on this device or in this
            dtype.
        MissingExtraError: The library that quantises is not installed.
    """
    asked, dtype = options.quantization, options.dtype_of(config)
    stored = getattr(config, "quantization_config", None)
    if asked in WORDS and stored is not None:
        remedy = "Leave it out, or choose the model's original."
        allowed = f"left out for {name}, whose weights are quantised already"
        raise ParameterError("quantization", allowed, asked, remedy)
    if asked in WORDS and dtype == "float64":
        remedy = "For example 'bfloat16'."
        raise ParameterError("dtype", "another where weights are quantised", dtype, remedy)
    placement = options.placement
    devices = placement.values() if isinstance(placement, Mapping) else [placement]
    spread = placement in SPREAD and torch.cuda.is_available()
    if asked == "4bit" and not (spread or any(each.startswith("cuda") for each in devices)):
        allowed, remedy = "'8bit' where there is no CUDA device", "Or leave it out."
        raise ParameterError("quantization", allowed, asked, remedy)
    for library in map(library_of, (stored, asked)):
        if library in LIBRARIES.values() and find_spec(library) is None:
            raise MissingExtraError(f"{name}, quantised with {library},", "quant")
    if asked == "8bit":
        from torchao.quantization import Int8WeightOnlyConfig  # type: ignore[import-untyped]

        # A compiler's settings are the process's, so they are left alone.
        return TorchAoConfig(Int8WeightOnlyConfig(set_inductor_config=False))
    if asked == "4bit":
        make: Any = BitsAndBytesConfig
        return make(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype, None),
        )
    return asked


def library_of(quantization: Any) -> str:
    """Return the method of a quantisation; those of `LIBRARIES` are named like their library."""
    if quantization in WORDS:
        return LIBRARIES[quantization]
    fields = plain(quantization) or {}
    if fields.get("load_in_4bit") or fields.get("load_in_8bit"):
        return "bitsandbytes"
    return str(fields.get("quant_method"))


@contextmanager
def quiet_torchao() -> Iterator[None]:
    """Drop torchao's complaints about its import, which transformers does whenever it can.

    They are about kernels for other machines, and about torchao's own use of torch.
    """

    def is_news(record: logging.LogRecord) -> bool:
        return "Failed to load" not in record.msg and "Enum subclass" not in record.msg

    noisy = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    for logger in noisy:
        logger.addFilter(is_news)
    try:
        yield
    finally:
        for logger in noisy:
            logger.removeFilter(is_news)
