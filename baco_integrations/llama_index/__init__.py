"""`BACoLLM` for LlamaIndex."""

from __future__ import annotations

from ..core.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise MissingExtraError("baco_integrations.llama_index", "llama-index") from error

from .llm import BACoLLM

__all__ = ["BACoLLM"]
