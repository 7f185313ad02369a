"""What the decoder asks of a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard

from ..core.messages import Messages
from ..core.tool_calls import CallFormat
from ..text.token_space import TokenSpace
from ..text.vocabulary import Vocabulary


class Pair(Protocol):
    """A base and an aligned model as one thing; `ModelPair` and `ScriptedPair` are pairs.

    Attributes:
        name: What the pair is called.
        engine: What decodes it: a name of `engines.open.ENGINES`.
        vocabulary: Classes and bytes of all ids.
        token_space: The ids that it emits, as each side reads them and as text.
        base_eos: Ids that end the base model's text.
        aligned_eos: Ids that end the aligned model's turn.
        base_stop: Strings with which the base model would open another turn.
        context: Context windows of base and aligned, in tokens.
        call_format: How the aligned model writes tool calls.
        call_markers: Bytes of the control tokens that frame its calls.
    """

    name: str
    engine: str
    vocabulary: Vocabulary
    base_eos: frozenset[int]
    aligned_eos: frozenset[int]
    base_stop: tuple[str, ...]
    context: tuple[int, int]
    call_format: CallFormat
    call_markers: dict[int, bytes]

    @property
    def token_space(self) -> TokenSpace:
        """The ids that it emits, as each side reads them and as text."""

    def render_base(self, messages: Messages, *, tokenize: bool = False) -> Any:
        """Return what the base model is fed."""

    def render_aligned(
        self,
        messages: Messages,
        *,
        tokenize: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Any:
        """Return what the aligned model is fed."""

    def raw_ids(self, prompt: str | Sequence[int]) -> tuple[list[int], list[int]]:
        """Return what base and aligned are fed for a prompt that has its whole frame."""

    def answer_ids(self, text: str) -> tuple[list[int], list[int]]:
        """Return what base and aligned are fed, behind their prompts, for a begun answer."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text as the aligned model reads it."""


PARTS = (*Pair.__annotations__, *(name for name in vars(Pair) if not name.startswith("_")))
"""The names of all that a pair has."""


def is_pair(value: object) -> TypeGuard[Pair]:
    """Tell whether something has all that a pair has, or forwards it to a pair."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in PARTS)
