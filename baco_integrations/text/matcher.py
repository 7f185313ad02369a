"""One matcher for each sequence whose text a grammar rules.

Invariant: a matcher's mask allows the tokens whose bytes keep the text on the way to a complete
one, and the end of the turn where it is complete.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import copy

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from ..core.json_text import JsonScanner
from ..core.params import SamplingParams
from ..core.text_stream import unsettled
from ..core.tool_calls import CallFormat
from .trial import reason

_STUCK = ("NoExtension", "NoExtensionBias")
"""The engine's reasons to stop where the vocabulary cannot spell what must come."""


class TextMatcher:
    """Follows the text of one sequence; implements `policy.grammar_masks.GrammarMatcher`.

    Args:
        matcher: The engine's matcher, at the beginning of the text.
        token_bytes: What each token adds to the text.
        end: Ids that end the turn.
        position: The position at the beginning of the text.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        token_bytes: tuple[bytes, ...],
        end: Collection[int],
        position: JsonPosition,
    ) -> None:
        self._matcher, self._bytes, self._position = matcher, token_bytes, position
        self._end = end
        self._settled: tuple[LLMatcher, JsonPosition] | None = None

    def fresh(self) -> TextMatcher:
        """Return another matcher for the same text; this one must not have begun."""
        matcher, position = self._matcher.deep_copy(), self._position.copy()
        return TextMatcher(matcher, self._bytes, self._end, position)

    @property
    def structure(self) -> bool:
        """Whether the next token is structure, which aligned gives."""
        return self._position.structure

    @property
    def begins(self) -> bool:
        """Whether the value of a string begins here."""
        return self._position.begins

    @property
    def reserved(self) -> str:
        """A character that only aligned may write here, or an empty string."""
        return self._position.reserved

    @property
    def error(self) -> str:
        """Why the engine has given up on the text, empty if it has not."""
        said = reason(self._matcher.get_error())
        return "" if said in _STUCK else said

    def allow(self, bits: NDArray[np.int32]) -> None:
        """Set the bits of the tokens that may come next."""
        self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        may_end = self._matcher.is_accepting()
        for token in self._end:
            bit = np.int32(1) << np.int32(token % 32)
            bits[token // 32] = bits[token // 32] | bit if may_end else bits[token // 32] & ~bit

    def accept(self, token: int) -> bool:
        """Take a decided token; return whether the grammar allows it."""
        if token in self._end:
            return bool(self._matcher.is_accepting())
        self._position.push(self._bytes[token])
        return bool(self._matcher.consume_token(token))

    def guess(self, token: int) -> None:
        """Take a drafted token, until `roll_back`.

        Args:
            token: A token that the grammar allows and that does not end the text.
        """
        if self._settled is None:
            # A copy is put aside: after a rollback, llguidance's masks may be those of the guess.
            self._settled = self._matcher.deep_copy(), self._position.copy()
        self.accept(token)

    def roll_back(self) -> None:
        """Undo all calls of `guess` since the last decided token."""
        if self._settled is not None:
            (self._matcher, self._position), self._settled = self._settled, None


class JsonPosition:
    """Follows a text byte by byte: is what comes next structure, or the value of a string?

    Args:
        depth: How many brackets are open where string values begin to be free; None where all of
            the text is free.
        opener: What turns said text into a call: until it comes, the text is free. Empty where a
            call may only begin the text, None where the whole text is JSON.
    """

    def __init__(self, depth: int | None, opener: str | None = None) -> None:
        self._depth, self._opener = depth, opener or ""
        self._said = "" if opener is not None else None
        self._json = JsonScanner()
        self._begins = False

    @classmethod
    def of(cls, params: SamplingParams, form: CallFormat) -> JsonPosition:
        """Return the position at the beginning of a request's text."""
        if params.offered and params.json_schema is None:
            # A call's arguments lie in its object, which may lie in a list of calls.
            depth = 1 + len(form.tail) + form.begin.endswith("[")
            return cls(depth, None if params.forced_calls else form.opener)
        return cls(None if params.json_schema is None else 0)

    def copy(self) -> JsonPosition:
        """Return the same position, which goes on by itself."""
        other = copy(self)
        other._json = self._json.copy()
        return other

    @property
    def structure(self) -> bool:
        """Whether aligned gives what comes next."""
        if self._depth is None:
            return False
        if self._said is not None:  # a beginning of the opener has come
            return unsettled(self._said, (self._opener,)) > 0
        free = self._json.in_string and self._json.is_value
        return not (free and len(self._json.brackets) >= self._depth)

    @property
    def begins(self) -> bool:
        """Whether a free value's opening quote was the last to come."""
        return self._depth is not None and self._begins and not self.structure

    @property
    def reserved(self) -> str:
        """The character that leaves this position, which only aligned may write."""
        if self._depth is None or self.structure:
            return ""
        if self._said is None:
            return '"'
        return self._opener[0] if self._opener else "" if self._said else "{"

    def push(self, data: bytes) -> None:
        """Go on by a token's bytes."""
        for char in data.decode("latin-1"):  # structure is ASCII, and no other byte looks like it
            if self._said is None:
                self._begins = char == '"' and not self._json.in_string
                self._json.push(char)
            elif self._opener:
                said = (self._said + char)[-len(self._opener) :]
                self._said = None if said == self._opener else said
            elif not self._said:
                self._said = char.strip()
                if char == "{":
                    self._said = None
                    self._json.push(char)
