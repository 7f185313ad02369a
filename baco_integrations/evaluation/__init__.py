"""Measure breadth and quality: prompts, methods, generations, metrics, Coverage, the report.

The protocol is this package's own. Everything is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "ChatJudge": ".quality",
    "ConstraintQuality": ".quality",
    "EmbeddingSimilarity": ".similarity",
    "Grid": ".methods",
    "Judge": ".judge",
    "METHODS": ".methods",
    "OracleQuality": ".quality",
    "OracleSimilarity": ".similarity",
    "PairwiseSimilarity": ".similarity",
    "Prompt": ".prompts",
    "Question": ".similarity",
    "RewardQuality": ".quality",
    "Scores": ".scores",
    "SequenceClassifier": ".quality",
    "Settings": ".result",
    "Suggestion": ".tuning",
    "Sweep": ".methods",
    "TfidfSimilarity": ".similarity",
    "TinyOracle": ".tiny",
    "collect": ".run",
    "compare": ".result",
    "evaluate": ".scorer",
    "find_scorer": ".scorer",
    "load_prompts": ".loaders",
    "measure": ".scores",
    "own_prompts": ".prompts",
    "read_records": ".records",
    "suggest": ".tuning",
    "tiny_prompts": ".tiny",
    "tune": ".tuning",
    "write_report": ".report",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
