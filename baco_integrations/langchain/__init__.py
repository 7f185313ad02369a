"""`ChatBACo` and `BACoLLM` for LangChain."""

from __future__ import annotations

from ..core.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise MissingExtraError("baco_integrations.langchain", "langchain") from error

from ..adapters.distinct import Idea, word_overlap
from .brainstorm import Brainstorm, brainstorm, embedding_similarity
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
