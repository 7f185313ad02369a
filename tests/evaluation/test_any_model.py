"""What becomes a model that methods can ask, and what does not."""

from __future__ import annotations

import pytest
from llama_index.core.llms import MockLLM

from baco_integrations import BacoError
from baco_integrations.evaluation.any_model import as_model
from baco_integrations.evaluation.external import ExternalModel
from baco_integrations.evaluation.models import PairModel
from tests.evaluation.worlds import cities


def test_pairs_models_and_functions_can_answer() -> None:
    pair = as_model(cities(), rows=3)
    assert isinstance(pair, PairModel) and pair.rows == 3 and as_model(pair) is pair
    external = as_model(MockLLM(), name="mine")
    assert isinstance(external, ExternalModel) and (external.name, external.rows) == ("mine", 8)
    assert isinstance(as_model(lambda temperature: MockLLM()), ExternalModel)


def test_what_cannot_answer() -> None:
    with pytest.raises(BacoError, match="model must be a pair, a model of LangChain"):
        as_model(3)
