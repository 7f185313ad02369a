"""Pairs and other models as a `Model`, which the methods of an evaluation ask."""

from __future__ import annotations

from typing import Any

from ..core.errors import ParameterError
from ..models.base import is_pair
from .external import ExternalModel, is_external
from .models import Model, PairModel


def as_model(model: Any, *, name: str | None = None, rows: int | None = None) -> Model:
    """Return anything that answers as a `Model`.

    Args:
        model: A pair; a chat model or LLM of LangChain or LlamaIndex; or a function that returns
            one for a temperature.
        name: How records are to name it.
        rows: How many answers it works on at once; 64 for pairs and 8 for others if left out.

    Raises:
        ParameterError: It is none of these.
    """
    if all(hasattr(model, each) for each in ("answer", "spent")):
        return model  # type: ignore[no-any-return]
    if is_pair(model):
        return PairModel(model, rows or 64)
    if is_external(model) or callable(model):
        return ExternalModel(model, name=name, rows=rows or 8)
    raise ParameterError(
        "model",
        "a pair, a model of LangChain or LlamaIndex, or a function of the temperature",
        model,
        "For example ModelPair.tiny().",
    )
