"""What an error says of the device: is it full, or lost?"""

from __future__ import annotations

import torch

_FULL = ("out of memory", "can't allocate memory", "not enough memory")


def out_of_memory(error: BaseException) -> bool:
    """Tell whether memory has run out; some allocators and drivers say so in words only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)


def device_lost(error: BaseException) -> bool:
    """Tell whether the device has failed, after which nothing works on it in this process."""
    return isinstance(error, getattr(torch, "AcceleratorError", ())) and not out_of_memory(error)
