"""Copies between the host and the device: as few as there can be, as the host waits for each.

What goes up is not waited for. What comes down is: the host needs it.
"""

from __future__ import annotations

from functools import reduce
from itertools import accumulate, pairwise
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(values: Any, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """Bring numbers to a device, without waiting for what it is doing.

    Args:
        values: A tensor on the host, or what one is made from.
        device: The device.
        dtype: Their type there; they are converted first, as not all devices have all types.
    """
    tensor, device = torch.as_tensor(values, dtype=dtype), torch.device(device)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    # Metal would read memory that is gone by then.
    return tensor.to(device, non_blocking=device.type != "mps")


def download(*tensors: Tensor) -> list[NDArray[Any]]:
    """Bring tensors to the host in one copy, each in its shape; float32 holds ids up to 2^24."""
    dtype = reduce(torch.promote_types, (each.dtype for each in tensors))
    whole = torch.cat([each.flatten().to(dtype) for each in tensors]).cpu().numpy()
    bounds = pairwise(accumulate((each.numel() for each in tensors), initial=0))
    return [
        whole[start:stop].reshape(each.shape)
        for each, (start, stop) in zip(tensors, bounds, strict=True)
    ]
