"""What counts as a pair: whatever has all that a pair has, or forwards it to one."""

from __future__ import annotations

from typing import Any

import pytest

from baco_integrations import Decoder, ModelPair, ScriptedPair
from baco_integrations.core.errors import ParameterError
from baco_integrations.models.base import PARTS, is_pair
from tests.pairs import random_pair
from tests.scripted import cities


class Forwarding:
    """Stands in for a pair."""

    def __init__(self, pair: Any, lacking: str = "") -> None:
        self._pair, self._lacking = pair, lacking

    def __getattr__(self, name: str) -> Any:
        if name == self._lacking:
            raise AttributeError(name)
        return getattr(self._pair, name)


def test_pairs_are_pairs() -> None:
    assert is_pair(random_pair()) and is_pair(cities())
    assert not any(map(is_pair, (ModelPair, ScriptedPair, "tiny", None)))
    assert {"engine", "context", "token_space", "encode", "render_base"} < set(PARTS)


def test_what_stands_in_for_a_pair_is_decoded_as_one() -> None:
    pair: Any = Forwarding(cities())
    with Decoder(pair) as decoder, Decoder(cities()) as direct:
        assert decoder.generate("x", seed=1)[0].steps == direct.generate("x", seed=1)[0].steps


@pytest.mark.parametrize("part", PARTS)
def test_what_lacks_a_part_is_none(part: str) -> None:
    with pytest.raises(ParameterError, match="^pair must be a ModelPair or a ScriptedPair"):
        Decoder(Forwarding(cities(), part))  # type: ignore[arg-type]
