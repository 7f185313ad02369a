"""`BACoLLM` for LlamaIndex, and where its breadth helps."""

from __future__ import annotations

from ..core.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise MissingExtraError("baco_integrations.llama_index", "llama-index") from error

from ..adapters.distinct import Idea, word_overlap
from .breadth import (
    BreadthHyDE,
    BreadthQueryEngine,
    BreadthQueryFusion,
    BreadthQuestions,
    Question,
    QuestionDataset,
    embedding_similarity,
)
from .llm import BACoLLM

__all__ = [
    "BACoLLM",
    "BreadthHyDE",
    "BreadthQueryEngine",
    "BreadthQueryFusion",
    "BreadthQuestions",
    "Idea",
    "Question",
    "QuestionDataset",
    "embedding_similarity",
    "word_overlap",
]
