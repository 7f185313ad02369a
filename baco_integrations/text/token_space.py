"""How two models count: what each has to read of the tokens that are emitted, and their bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from ..policy.token_classes import TokenClasses
    from .vocabulary import Vocabulary


class TokenSpace(Protocol):
    """The ids that a pair emits, as each side reads them and as text."""

    def feed(self, side: int, emitted: Sequence[int]) -> Sequence[int]:
        """Return the ids that a side has to read of what was emitted."""

    def bytes_of(self, emitted: Sequence[int]) -> bytes:
        """Return what emitted ids add to the text."""

    def with_markers(self, markers: Mapping[int, bytes]) -> TokenSpace:
        """Return the same space with control tokens that count as text, such as those of calls."""

    def classes(self, device: torch.device | str) -> TokenClasses:
        """Return the classes of the emitted ids, where the logits meet."""


@dataclass(frozen=True)
class SharedVocabulary:
    """The token space of two models with one vocabulary: both read what was emitted as it is.

    Attributes:
        vocabulary: The classes and bytes of all ``v`` ids.
        text: ``(v,)`` bool, ids that are the same text on both sides and end no turn.
        token_bytes: What each id adds to the text.
        base_size: Ids below it are real tokens of the base model.
        aligned_size: Ids below it are real tokens of the aligned model.
    """

    vocabulary: Vocabulary
    text: NDArray[np.bool_]
    token_bytes: Sequence[bytes]
    base_size: int
    aligned_size: int

    @classmethod
    def of(
        cls,
        vocabulary: Vocabulary,
        shared: NDArray[np.bool_],
        ends: Collection[int],
        sizes: tuple[int, int],
    ) -> SharedVocabulary:
        """Return the space of a pair.

        Args:
            vocabulary: Its vocabulary.
            shared: ``(v,)`` bool, ids that are the same text on both sides.
            ends: Ids that end a turn on either side, whatever they spell.
            sizes: Numbers of real tokens of base and aligned.
        """
        text = shared.copy()
        text[[end for end in ends if end < len(text)]] = False
        return cls(vocabulary, text, vocabulary.token_bytes, *sizes)

    def feed(self, side: int, emitted: Sequence[int]) -> Sequence[int]:
        """Return the emitted ids."""
        return emitted

    def bytes_of(self, emitted: Sequence[int]) -> bytes:
        """Return what emitted ids add to the text."""
        return b"".join([self.token_bytes[token] for token in emitted])

    def with_markers(self, markers: Mapping[int, bytes]) -> SharedVocabulary:
        """Return the same space with control tokens that count as text."""
        if not markers:
            return self
        spelled = list(self.token_bytes)
        for token, data in markers.items():
            spelled[token] = data
        return replace(self, token_bytes=spelled)

    def classes(self, device: torch.device | str) -> TokenClasses:
        """Return the classes of the ids, where the logits meet."""
        from ..policy.token_classes import TokenClasses

        return TokenClasses.build(
            starts_word=self.vocabulary.starts_word,
            punctuation=self.vocabulary.punctuation,
            function_word=self.vocabulary.function_word,
            line_break=self.vocabulary.line_break,
            text=self.text,
            token_bytes=self.vocabulary.token_bytes,
            base_size=self.base_size,
            aligned_size=self.aligned_size,
            device=device,
        )
