"""Decode with a base model and its aligned counterpart, token by token: varied and good.

Everything here is loaded when it is first used, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.errors import BacoError
    from .core.outputs import Completion, TokenStep
    from .core.params import SamplingParams
    from .decoder.decoder import Decoder
    from .models.pair import ModelPair
    from .models.scripted import ScriptedPair

__version__ = "0.1.0"
__all__ = [
    "BacoError",
    "Completion",
    "Decoder",
    "ModelPair",
    "SamplingParams",
    "ScriptedPair",
    "TokenStep",
]

_HOMES = {
    "BacoError": ".core.errors",
    "Completion": ".core.outputs",
    "Decoder": ".decoder",
    "ModelPair": ".models.pair",
    "SamplingParams": ".core.params",
    "ScriptedPair": ".models.scripted",
    "TokenStep": ".core.outputs",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
