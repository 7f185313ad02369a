"""Whether a pair fits into memory: bytes estimated from configurations, and the free bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]
import torch
from transformers import AutoModelForCausalLM

from ..core.errors import NotEnoughMemoryError, ParameterError
from .options import SPREAD, device_name

WIDTHS = {"float64": 8.0, "float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
"""Bytes of one number."""
HEADROOM = 1.1
"""Beside the weights, decoding needs room for caches and activations."""
# Bytes of a weight in nf4: four bits, and for each block of 64 a scale, of four bytes or (double)
# of one, with a scale for each 256 of those.
NF4, NF4_DOUBLE = 0.5 + 4 / 64, 0.5 + 1 / 64 + 4 / 64 / 256

BITS = r"(?:bits'?: |int|float|fp|nf)([2348])(?!\d)"
"""Where a quantisation config says how many bits a weight has."""


class Parameters(NamedTuple):
    """How many numbers a model holds; tied ones count once.

    Attributes:
        linear: Weights of linear layers other than the output layer, which quantisation shrinks.
        other: All other numbers.
        rows: Outputs of those linear layers, each of which may have a scale.
    """

    linear: int
    other: int
    rows: int

    def bytes(self, dtype: str, quantization: str | Mapping[str, Any] | None = None) -> int:
        """Return the bytes that the model takes.

        Args:
            dtype: The number format of what is not quantised.
            quantization: ``4bit``, ``8bit``, or a quantisation config as plain data; one that does
                not say its bits counts as not quantised.
        """
        width = WIDTHS.get(dtype, 4.0)
        weight, row = width, 0
        fields = quantization if isinstance(quantization, Mapping) else {}
        if quantization == "4bit" or fields.get("load_in_4bit"):
            double = fields.get("bnb_4bit_use_double_quant", not fields)
            weight = NF4_DOUBLE if double else NF4
        elif quantization == "8bit" or "'PerRow'" in str(fields):
            weight, row = 1, 5  # A scale in float32 and a zero point.
        elif fields.get("load_in_8bit"):
            weight, row = 1, 4
        elif bits := re.findall(BITS, str(fields).lower()):
            weight = max(map(int, bits)) / 8
        return round(self.linear * weight + self.rows * row + self.other * width)


def build_empty(config: Any, trust_remote_code: bool = False) -> Any:
    """Build a model's modules without weights, on torch's ``meta`` device."""
    build: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        return build(config, trust_remote_code=trust_remote_code)


def count_parameters(model: Any) -> Parameters:
    """Count the parameters of a model, which needs no weights."""
    head = model.get_output_embeddings()
    modules = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    linear = sum(module.weight.numel() for module in modules)
    total = sum(parameter.numel() for parameter in model.parameters())
    return Parameters(linear, total - linear, sum(module.out_features for module in modules))


def measure_bytes(model: Any) -> int:
    """Return the bytes that a loaded model's weights and buffers take."""
    return sum(tensor_bytes(tensor) for tensor in (*model.parameters(), *model.buffers()))


def tensor_bytes(tensor: Any) -> int:
    """Return the bytes of a tensor; of a quantised one, those of the tensors that it is made of."""
    if hasattr(tensor, "__tensor_flatten__"):  # torchao's
        return sum(tensor_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    scales = getattr(tensor, "quant_state", None)  # bitsandbytes' of 4 bits
    parts = scales.as_dict().values() if scales is not None else ()
    return int(tensor.nbytes) + sum(getattr(part, "nbytes", 0) for part in parts)


def target_devices(placement: Any) -> frozenset[str]:
    """Return the names of the devices that a device map uses, such as ``cuda:0`` or ``cpu``.

    Raises:
        ParameterError: This machine lacks one of them.
    """
    here = [*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cpu"]
    if placement in SPREAD:
        return frozenset(here)
    named = placement.values() if isinstance(placement, Mapping) else [placement]
    found = frozenset(device_name(device) for device in named)
    if missing := sorted(name for name in found if name.startswith("cuda") and name not in here):
        raise ParameterError(
            "device_map",
            f"of devices that this machine has ({', '.join(here)})",
            missing[0],
            "Leave it out for the first GPU, or the CPU if there is none.",
        )
    return found


def free_bytes(devices: frozenset[str]) -> int:
    """Return the free memory of some devices together; all but CUDA's share the machine's."""
    cuda = [name for name in devices if name.startswith("cuda")]
    free = sum(torch.cuda.mem_get_info(name)[0] for name in cuda)
    if len(cuda) < len(devices):
        free += min([int(psutil.virtual_memory().available), *container_limits()])
    return free


def container_limits(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return the bytes that a container still allows, which psutil ignores; empty if no limit."""
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        cached = re.search(r"\binactive_file (\d+)", (root / "memory.stat").read_text())
    except OSError:
        return []
    return [] if limit == "max" else [int(limit) - used + int(cached[1] if cached else 0)]


def readable(size: float) -> str:
    """Write a number of bytes in GiB, or in MiB if it is less than one."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def require_memory(needed: int, devices: frozenset[str], what: str) -> None:
    """Raise a `NotEnoughMemoryError` if weights, and working room, exceed the free memory.

    Args:
        needed: Bytes of the weights.
        devices: The devices that they go to, all together.
        what: What is loaded, for the message.
    """
    free = free_bytes(devices)
    if needed * HEADROOM > free:
        raise NotEnoughMemoryError(
            f"{what} needs about {readable(needed * HEADROOM)} ({readable(needed)} of weights, and "
            f"working room), but {' + '.join(sorted(devices))} has {readable(free)} free. Load "
            "it with dtype='bfloat16' or quantization='8bit', spread it with device_map='auto', "
            "choose a smaller preset, or pass check_memory=False to try anyway."
        )
