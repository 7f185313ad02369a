"""Noise that depends on the seed, the sample's index and the position, and on nothing else.

Each sample owns a Philox counter stream keyed by ``(seed, index)``; position ``t`` reads the
stream's words ``2 t`` (for the token) and ``2 t + 1`` (for the random router). So a draw never
depends on the batch, on timing, or on how the logits were computed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# 52 bits: the product of such a uniform and a positive total rounds to strictly less than the
# total, so that an inverse CDF never runs off the end.
_BITS = 52


def uniforms(seed: int, index: int, length: int) -> NDArray[np.float64]:
    """Return the uniforms of one sample, of shape ``(length, 2)``: token and route, in [0, 1)."""
    key = np.array([seed, index], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(2 * length).reshape(length, 2)
    return (words >> np.uint64(64 - _BITS)).astype(np.float64) * 2.0**-_BITS
