"""Whether a pair fits: its bytes from the configurations alone, the free bytes of where it goes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import NotEnoughMemoryError, ParameterError
from .options import SPREAD, device_name

WIDTHS = {"float64": 8.0, "float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_HEADROOM = 1.1
"""Weights apart, decoding needs room for caches and activations."""


class Parameters(NamedTuple):
    """How many numbers a model holds.

    Attributes:
        linear: Those in linear layers other than the output layer, which quantisation shrinks.
        other: All others; tied ones count once.
        rows: Outputs of those linear layers, which may have a scale each.
    """

    linear: int
    other: int
    rows: int

    def bytes(self, dtype: str, quantization: str | Mapping[str, Any] | None = None) -> int:
        """Return the bytes the model takes; what was asked of quantisation is plain data."""
        width = WIDTHS.get(dtype, 4.0)
        weight, row = _stored(width, quantization)
        return round(self.linear * weight + self.rows * row + self.other * width)


def build_empty(config: Any, trust_remote_code: bool = False) -> Any:
    """Build a model's modules without weights, on torch's ``meta`` device."""
    import torch
    from transformers import AutoModelForCausalLM

    build: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        return build(config, trust_remote_code=trust_remote_code)


def count_parameters(config: Any, trust_remote_code: bool = False) -> Parameters:
    """Count a model's parameters without weights."""
    import torch

    model = build_empty(config, trust_remote_code)
    head = model.get_output_embeddings()
    linear = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    weights = sum(module.weight.numel() for module in linear)
    total = sum(parameter.numel() for parameter in model.parameters())
    return Parameters(weights, total - weights, sum(module.out_features for module in linear))


_NF4 = 0.5 + 4 / 64
"""Bytes of a weight: four bits, and a scale for each block of 64."""
_NF4_DOUBLE = 0.5 + 1 / 64 + 4 / 64 / 256
"""The same where the scales are a byte each, with a scale for each block of 256."""


def _stored(width: float, quantization: str | Mapping[str, Any] | None) -> tuple[float, float]:
    """Return the bytes of a linear layer's weight, and what each of its outputs takes besides.

    What the configuration leaves unclear counts as not quantised.
    """
    if not quantization:
        return width, 0
    said = quantization if isinstance(quantization, Mapping) else {}
    if quantization == "4bit" or said.get("load_in_4bit"):
        double = said.get("bnb_4bit_use_double_quant", not said)
        return _NF4_DOUBLE if double else _NF4, 0
    if quantization == "8bit" or "'PerRow'" in str(said):
        return 1, 5  # A scale in float32 and a zero point.
    if said.get("load_in_8bit"):
        return 1, 4
    bits = re.findall(r"(?:bits'?: |int|float|fp|nf)([2348])(?!\d)", str(said).lower())
    return max(map(int, bits)) / 8 if bits else width, 0


def measure_bytes(model: Any) -> int:
    """Return the bytes that a loaded model's weights and buffers take."""
    return sum(_tensor_bytes(tensor) for tensor in (*model.parameters(), *model.buffers()))


def _tensor_bytes(tensor: Any) -> int:
    """Look into quantised tensors, which give out the size of what they stand for."""
    if hasattr(tensor, "__tensor_flatten__"):  # torchao's
        return sum(_tensor_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    scales = getattr(tensor, "quant_state", None)  # bitsandbytes' of 4 bits
    parts = scales.as_dict().values() if scales is not None else ()
    return int(tensor.nbytes) + sum(getattr(part, "nbytes", 0) for part in parts)


def target_devices(placement: Any) -> frozenset[str]:
    """Return the devices that a device map names, such as ``cuda:0`` or ``cpu``.

    Raises:
        ParameterError: This machine does not have one of them.
    """
    import torch

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
    import torch

    cuda = [name for name in devices if name.startswith("cuda")]
    free = sum(torch.cuda.mem_get_info(name)[0] for name in cuda)
    return free + (_free_on_machine() if len(cuda) < len(devices) else 0)


def _free_on_machine() -> int:
    import psutil  # type: ignore[import-untyped]

    return min([int(psutil.virtual_memory().available), *_container_limits()])


def _container_limits(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return what the process's container still allows, which psutil does not look at."""
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        cached = re.search(r"\binactive_file (\d+)", (root / "memory.stat").read_text())
    except OSError:
        return []
    return [] if limit == "max" else [int(limit) - used + int(cached[1] if cached else 0)]


def readable(size: float) -> str:
    """Write a number of bytes as people do."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def require_memory(needed: int, devices: frozenset[str], what: str) -> None:
    """Refuse what would not fit.

    Args:
        needed: Bytes of the weights.
        devices: Where they are to go, together.
        what: The pair's name, for the message.

    Raises:
        NotEnoughMemoryError: With working room, they exceed the free memory.
    """
    free = free_bytes(devices)
    wanted = needed * _HEADROOM
    if wanted > free:
        raise NotEnoughMemoryError(
            f"{what} needs about {readable(wanted)} ({readable(needed)} of weights, and working "
            f"room), but {' + '.join(sorted(devices))} has {readable(free)} free. Load "
            "it with dtype='bfloat16' or quantization='8bit', spread it with device_map='auto', "
            "choose a smaller preset, or pass check_memory=False to try anyway."
        )
