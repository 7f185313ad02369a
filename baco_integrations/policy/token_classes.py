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

STARTS_WORD = 8
"""The last row of `TokenClasses.flags`: `TokenClasses.starts_word`."""

BAN_NOTHING, BAN_CONTINUATIONS, BAN_LINES, ALLOW_LINES = 0, 1, 2, 3
"""Rows of `TokenClasses.bans`: what a side may not emit; the last two are base's."""

FIRST_BAN = 4
"""The row of `TokenClasses.flags` where those of `TokenClasses.bans` begin."""

RESERVED = ("", '"', "<", "[", "{")
"""Rows of `TokenClasses.reserved`: characters that open or close a structure."""

FIRST_OPENER = RESERVED.index("<")
"""From this row of `TokenClasses.reserved` on, the characters open calls."""


class TokenClasses(NamedTuple):
    """Token classes over the ``v`` ids that the two sides share.

    Attributes:
        starts_word: ``(v,)`` bool, tokens that start a word.
        content: ``(v,)`` int, bits of the content classes `PUNC` and `FC`.
        flags: ``(9, v)`` bool, whether a token has any of the content bits 0, 1, 2, 3; then `bans`,
            then `starts_word`.
        penalties: ``(4, v)`` what `bans` adds to logits: zero or minus infinity.
        reserved: ``(5, v)`` bool, tokens that hold a character of `RESERVED`.
        base_size: Ids below it are real tokens of the base model.
        aligned_size: Ids below it are real tokens of the aligned model.
    """

    starts_word: Tensor
    content: Tensor
    flags: Tensor
    penalties: Tensor
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
        content = PUNC * punctuation.astype(np.int64) + FC * function_word.astype(np.int64)
        has_content = (content & np.arange(4)[:, None]) != 0
        bans = np.stack([np.zeros_like(text), ~starts_word, ~text | line_break, ~text])
        return cls(
            torch.tensor(starts_word, device=device),
            torch.tensor(content, device=device),
            torch.tensor(np.concatenate([has_content, bans, starts_word[None]]), device=device),
            torch.tensor(np.where(bans, -np.inf, 0).astype(np.float32), device=device),
            torch.tensor(holding(token_bytes, RESERVED), device=device),
            base_size,
            aligned_size,
        )

    def take(self, ids: Tensor) -> TokenClasses:
        """Return the classes of some ids ``(k,)``, which are then numbered from 0."""
        names = ("starts_word", "content", "flags", "penalties", "reserved")
        parts = {name: getattr(self, name)[..., ids] for name in names}
        return TokenClasses(**parts, base_size=len(ids), aligned_size=len(ids))

    @property
    def bans(self) -> Tensor:
        """``(4, v)`` bool, tokens that may not be emitted, by kind of ban."""
        return self.flags[FIRST_BAN:STARTS_WORD]

    def fit_base(self, logits: Tensor) -> Tensor:
        """Cut or pad base logits ``(r, any)`` to the shared ids ``(r, v)``, at least float32."""
        return _fit(logits, self.base_size, len(self.content))

    def fit_aligned(self, logits: Tensor) -> Tensor:
        """Cut or pad aligned logits ``(r, any)`` to the shared ids ``(r, v)``, at least float32."""
        return _fit(logits, self.aligned_size, len(self.content))


def holding(token_bytes: Sequence[bytes], characters: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which tokens hold each of some ASCII characters, ``(n, v)``; none holds an empty one."""
    spelled = np.frombuffer(b"".join(token_bytes), dtype=np.uint8)
    owners = np.repeat(np.arange(len(token_bytes)), [len(data) for data in token_bytes])
    found = np.zeros((len(characters), len(token_bytes)), dtype=np.bool_)
    for row, character in zip(found, characters, strict=True):
        if character:
            row[owners[spelled == ord(character)]] = True
    return found


def _fit(logits: Tensor, real: int, size: int) -> Tensor:
    logits = logits[:, :real]
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    missing = size - logits.shape[1]
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits
