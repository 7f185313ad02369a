"""`ChatBACo` and `BACoLLM` for LangChain."""

from __future__ import annotations

from ..core.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise MissingExtraError("baco_integrations.langchain", "langchain") from error

from .brainstorm import Brainstorm, Idea, brainstorm, embedding_similarity, word_overlap
from .chat_model import ChatBACo
from .llm import BACoLLM

__all__ = [
    "BACoLLM",
    "Brainstorm",
    "ChatBACo",
    "Idea",
    "brainstorm",
    "embedding_similarity",
    "word_overlap",
]
