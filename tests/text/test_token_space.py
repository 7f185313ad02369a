"""One vocabulary: both sides read what was emitted, and its bytes are the tokens' own."""

from __future__ import annotations

import pytest

from baco_integrations import ScriptedPair
from baco_integrations.policy.token_classes import ALLOW_LINES

PAIR = ScriptedPair({"": {" a": 1}, " a": {"é": 1}}, {})


@pytest.mark.parametrize("side", [0, 1])
def test_both_sides_read_what_was_emitted(side: int) -> None:
    assert list(PAIR.token_space.feed(side, [0, 1, 0])) == [0, 1, 0]


def test_bytes_are_those_of_the_tokens_and_of_markers_that_count() -> None:
    space, end = PAIR.token_space, len(PAIR.tokens) - 1
    assert space.bytes_of([0, 1, end]) == " aé".encode()
    marked = space.with_markers({end: b"<call>"})
    assert marked.bytes_of([0, end]) == b" a<call>"
    assert space.bytes_of([end]) == b""


def test_what_ends_a_turn_is_no_text() -> None:
    bans = PAIR.token_space.classes("cpu").bans[ALLOW_LINES]
    assert bans.tolist() == [token == "<end>" for token in PAIR.tokens]
