"""Constrained rows: which tokens a grammar allows, and which side may give them.

The masks of a step hold the constrained rows only, so that a batch without any costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .token_classes import RESERVED
from .transfer import upload


class GrammarMatcher(Protocol):
    """What steers one row through a grammar."""

    @property
    def structure(self) -> bool:
        """Whether the next token is structure, which aligned gives."""

    @property
    def begins(self) -> bool:
        """Whether the value of a string begins here, so that no word is running."""

    @property
    def reserved(self) -> str:
        """A character of `RESERVED` that only aligned may write here, or an empty string."""

    @property
    def error(self) -> str:
        """Why no token may come next although the text has not ended, where that is known."""

    def allow(self, bits: NDArray[np.int32]) -> None:
        """Set the bits of the tokens that may come next."""

    def accept(self, token: int) -> bool:
        """Take a decided token; return whether the grammar allows it."""

    def guess(self, token: int) -> None:
        """Take a drafted token, until `roll_back`.

        Args:
            token: A token that the grammar allows and that does not end the text.
        """

    def roll_back(self) -> None:
        """Undo all calls of `guess` since the last decided token."""


class Constraint(NamedTuple):
    """What a matcher says of the next token, in the terms of `GrammarMasks`."""

    structure: bool
    begins: bool
    reserved: int

    @classmethod
    def of(cls, matcher: GrammarMatcher) -> Constraint:
        """Ask a matcher."""
        return cls(matcher.structure, matcher.begins, RESERVED.index(matcher.reserved))


class GrammarMasks(NamedTuple):
    """What the matchers of ``k`` of the rows say about this step.

    Attributes:
        members: ``(k,)`` which rows.
        refused: ``(k, v)`` bool, tokens that the grammar does not allow.
        structure: ``(k,)`` bool, aligned gives the token whatever the router says.
        begins: ``(k,)`` bool, the value of a string begins, so that no word is running.
        reserved: ``(k,)`` which row of `TokenClasses.reserved` base may not emit.
    """

    members: Tensor
    refused: Tensor
    structure: Tensor
    begins: Tensor
    reserved: Tensor

    @classmethod
    def build(
        cls,
        members: Sequence[int],
        constraints: Sequence[Constraint],
        bits: NDArray[np.int32],
        size: int,
        device: torch.device | str = "cpu",
    ) -> GrammarMasks:
        """Unpack the bits ``(k, words)`` that the matchers have set, over ``size`` tokens."""
        packed = upload(bits, device)
        shifts = torch.arange(32, dtype=torch.int32, device=device)
        allowed = ((packed[:, :, None] >> shifts) & 1).bool().flatten(1)[:, :size]
        rows = upload([[*members], *map(list, zip(*constraints, strict=True))], device)
        structure, begins = rows[1:3].bool().unbind(0)
        return cls(rows[0], ~allowed, structure, begins, rows[3])

    @classmethod
    def join(cls, parts: Sequence[tuple[int, GrammarMasks | None]]) -> GrammarMasks | None:
        """Return the masks of several batches as one, given the number of each one's first row."""
        found = [
            masks._replace(members=masks.members + first)
            for first, masks in parts
            if masks is not None
        ]
        return cls(*map(torch.cat, zip(*found, strict=True))) if found else None
