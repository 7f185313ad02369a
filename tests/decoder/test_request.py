"""A conversation becomes requests: checked once, rendered once for each side."""

from __future__ import annotations

from typing import Any

import pytest

from baco_integrations import Decoder, ScriptedPair
from baco_integrations.core import messages


class Counted(ScriptedPair):
    """A pair that notes for which side it is asked to render."""

    def __init__(self) -> None:
        super().__init__({"": {" a": 1}}, {"": {" a": 1}})
        self.sides: list[str] = []

    def render_base(self, *given: Any, **how: Any) -> Any:
        self.sides.append("base")
        return super().render_base(*given, **how)

    def render_aligned(self, *given: Any, **how: Any) -> Any:
        self.sides.append("aligned")
        return ScriptedPair.render_base(self, *given, **how)


@pytest.mark.parametrize("n", [1, 3])
async def test_checked_once_and_rendered_once_for_each_side(
    monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    checked: list[str] = []
    read = messages.read_message

    def noting(where: str, message: Any) -> Any:
        checked.append(where)
        return read(where, message)

    monkeypatch.setattr(messages, "read_message", noting)
    pair = Counted()
    asked = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    with Decoder(pair) as decoder:
        decoder.generate(asked, n=n)
        await decoder.agenerate(asked, n=n)
    assert checked == ["messages[0]", "messages[1]"] * 2
    assert pair.sides == ["base", "aligned"] * 2
