"""Measure breadth and quality: prompts, methods, generations, metrics, Coverage, the report.

The protocol is this package's own. Everything is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .categories import CategoryOracle, category_prompts
    from .judge import Judge
    from .loaders import load_prompts
    from .methods import METHODS, Grid, Sweep
    from .prompts import Prompt, own_prompts
    from .quality import (
        ChatJudge,
        ConstraintQuality,
        OracleQuality,
        RewardQuality,
        SequenceClassifier,
    )
    from .records import read_records
    from .report import write_report
    from .result import Settings, compare
    from .run import collect
    from .scorer import evaluate, find_scorer
    from .scores import Scores, measure
    from .similarity import (
        EmbeddingSimilarity,
        OracleSimilarity,
        PairwiseSimilarity,
        Question,
        TfidfSimilarity,
    )
    from .tiny import TinyOracle, tiny_prompts
    from .tuning import Suggestion, suggest, tune

__all__ = [
    "CategoryOracle",
    "ChatJudge",
    "ConstraintQuality",
    "EmbeddingSimilarity",
    "Grid",
    "Judge",
    "METHODS",
    "OracleQuality",
    "OracleSimilarity",
    "PairwiseSimilarity",
    "Prompt",
    "Question",
    "RewardQuality",
    "Scores",
    "SequenceClassifier",
    "Settings",
    "Suggestion",
    "Sweep",
    "TfidfSimilarity",
    "TinyOracle",
    "category_prompts",
    "collect",
    "compare",
    "evaluate",
    "find_scorer",
    "load_prompts",
    "measure",
    "own_prompts",
    "read_records",
    "suggest",
    "tiny_prompts",
    "tune",
    "write_report",
]

_NAMES = {
    "categories": "CategoryOracle category_prompts",
    "judge": "Judge",
    "loaders": "load_prompts",
    "methods": "METHODS Grid Sweep",
    "prompts": "Prompt own_prompts",
    "quality": "ChatJudge ConstraintQuality OracleQuality RewardQuality SequenceClassifier",
    "records": "read_records",
    "report": "write_report",
    "result": "Settings compare",
    "run": "collect",
    "scorer": "evaluate find_scorer",
    "scores": "Scores measure",
    "similarity": "EmbeddingSimilarity OracleSimilarity PairwiseSimilarity Question "
    "TfidfSimilarity",
    "tiny": "TinyOracle tiny_prompts",
    "tuning": "Suggestion suggest tune",
}
_HOMES = {name: f".{module}" for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
