"""What the step knows about the vocabulary: classes of tokens as tensors over the shared ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PUNC, FC = 1, 2
"""Bits of `TokenClasses.content`."""

BAN_LINES, ALLOW_LINES, BAN_NOTHING = 0, 1, 2
"""Rows of `TokenClasses.bans`: what the base model may not emit."""

RESERVED = ("", '"', "<", "[", "{")
"""Rows of `TokenClasses.reserved`: characters that open or close a structure."""

FIRST_OPENER = RESERVED.index("<")
"""From this row of `TokenClasses.reserved` on, the characters open calls."""


class TokenClasses(NamedTuple):
    """Token classes over the ``v`` ids that the two sides share.

    Attributes:
        starts_word: ``(v,)`` bool, tokens that start a word.
        content: ``(v,)`` int, bits of the content classes `PUNC` and `FC`.
        bans: ``(3, v)`` bool, tokens that base may not emit, by kind of ban.
        reserved: ``(5, v)`` bool, tokens that hold a character of `RESERVED`.
        base_size: Ids below it are real tokens of the base model.
        aligned_size: Ids below it are real tokens of the aligned model.
    """

    starts_word: Tensor
    content: Tensor
    bans: Tensor
    reserved: Tensor
    base_size: int
    aligned_size: int

    @classmethod
    def build(
        cls,
        *,
        starts_word: NDArray[np.bool_],
        punctuation: NDArray[np.bool_],
        function_word: NDArray[np.bool_],
        line_break: NDArray[np.bool_],
        text: NDArray[np.bool_],
        token_bytes: Sequence[bytes],
        base_size: int,
        aligned_size: int,
        device: torch.device | str = "cpu",
    ) -> TokenClasses:
        """Build the classes from classes over the vocabulary, each of shape ``(v,)``.

        Args:
            starts_word: Tokens that start a word.
            punctuation: The content class ``punc``.
            function_word: The content class ``fc``.
            line_break: Tokens that hold a line break.
            text: Tokens that both sides share as text; all others are control tokens.
            token_bytes: What each token adds to the text.
            base_size: Number of the base model's real tokens.
            aligned_size: Number of the aligned model's real tokens.
            device: Where the logits meet.
        """
        bans = np.stack([~text | line_break, ~text, np.zeros_like(text)])
        content = PUNC * punctuation.astype(np.int64) + FC * function_word.astype(np.int64)
        reserved = [[bool(c) and c.encode() in data for data in token_bytes] for c in RESERVED]
        return cls(
            torch.tensor(starts_word, device=device),
            torch.tensor(content, device=device),
            torch.tensor(bans, device=device),
            torch.tensor(reserved, device=device),
            base_size,
            aligned_size,
        )

    def take(self, ids: Tensor) -> TokenClasses:
        """Return the classes of some ids ``(k,)``, which are then numbered from 0."""
        parts = (self.starts_word[ids], self.content[ids], self.bans[:, ids], self.reserved[:, ids])
        return TokenClasses(*parts, len(ids), len(ids))

    def fit_base(self, logits: Tensor) -> Tensor:
        """Cut or pad base logits ``(r, any)`` to the shared ids ``(r, v)``, at least float32."""
        return _fit(logits, self.base_size, len(self.content))

    def fit_aligned(self, logits: Tensor) -> Tensor:
        """Cut or pad aligned logits ``(r, any)`` to the shared ids ``(r, v)``, at least float32."""
        return _fit(logits, self.aligned_size, len(self.content))


def _fit(logits: Tensor, real: int, size: int) -> Tensor:
    logits = logits[:, :real]
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    missing = size - logits.shape[1]
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits
