"""What completion endpoints tell of their next tokens, in the forms in which they tell it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ServerError, VocabularyMismatchError
from ...core.routing import Source

BY_ID = "token_id:"
"""What stands in front of an id that takes the place of a token's text."""

LEAST_LOGPROB = -9999.0
"""What endpoints write for minus infinity, which JSON does not know."""

ROUNDING = 0.01
"""By so much the sum of a server's probabilities may be above 1."""

REMEDY = (
    "Serve the model with vLLM, with llama.cpp's server or with `baco serve`, which tell the log "
    "probabilities of tokens by their ids."
)


class Position(NamedTuple):
    """What an endpoint tells of one position.

    Attributes:
        token: The token that it went on with.
        ids: Its most probable tokens, ``(k,)``.
        logprobs: Their log probabilities, ``(k,)``; raw, over all that the model can emit.
    """

    token: int
    ids: NDArray[np.int64]
    logprobs: NDArray[np.float64]

    @classmethod
    def of(cls, token: int, likely: Iterable[tuple[int, float]]) -> Position:
        """Return a position, given pairs of id and log probability.

        Raises:
            ValueError: They are none.
        """
        told = dict(likely)
        ids, logprobs = np.array([*told], dtype=np.int64), np.array([*told.values()], np.float64)
        logprobs[logprobs <= LEAST_LOGPROB] = -np.inf
        # What is not a number fails these, too.
        if not (logprobs.max() <= ROUNDING and 0 < np.exp(logprobs).sum() <= 1 + ROUNDING):
            raise ValueError("no log probabilities")
        if min(token, int(ids.min())) < 0:
            raise ValueError("no ids of tokens")
        return cls(token, ids, logprobs)


class Spelling:
    """The texts of a model's tokens, by which some endpoints name them.

    Args:
        texts: What each id spells; control tokens by their names.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @cached_property
    def ids(self) -> Mapping[bytes, list[int]]:
        """The ids of each text."""
        found = defaultdict(list)
        for token, data in enumerate(self._texts):
            found[data].append(token)
        return found

    def id_of(self, told: str | bytes) -> int:
        """Return the id of a token that is named by its id, its text or its bytes.

        Raises:
            ServerError: No token has this text, or several have.
        """
        if isinstance(told, str) and told.startswith(BY_ID):
            return int(told[len(BY_ID) :])
        data = told.encode() if isinstance(told, str) else told
        found = self.ids.get(data, [])
        if len(found) != 1:
            several = f"what the tokens {found[:4]} all spell" if found else "no token's text"
            raise ServerError(
                f"it names its tokens by their texts, and {told!r} is {several} here. {REMEDY}"
            )
        return found[0]

    def require_same(self, token: int, told: str) -> None:
        """Refuse another text of a token than the one that is known here.

        Raises:
            VocabularyMismatchError: The two differ, white space at their ends aside.
        """
        if token >= len(self._texts):  # an embedding row without a token, whatever it is called
            return
        here = self._texts[token].decode("utf-8", "replace")
        doubtful = not here.strip() or not told.strip() or "\ufffd" in told + here
        if not doubtful and here.strip() != told.strip():
            raise VocabularyMismatchError(
                f"it has another vocabulary: id {token} is {told!r} there and {here!r} here. Name "
                "the model whose files are given, or give the files of the model that it serves."
            )


def read_positions(choice: Any, spelling: Spelling, side: Source) -> list[Position]:
    """Return what a choice of a completion tells of its positions.

    Args:
        choice: The choice.
        spelling: The texts of the tokens.
        side: Which of a BACo server's two distributions is meant.

    Raises:
        ServerError: There are no log probabilities, or it is not clear of which tokens.
    """
    told = choice.get("logprobs") or {}
    if "baco" in told:
        return [read_own(each, side) for each in told["baco"]]
    if "content" in told:
        return [read_content(each, spelling) for each in told["content"]]
    tokens, likely = told.get("tokens") or (), told.get("top_logprobs") or ()
    if not tokens or len(tokens) != len(likely) or not all(likely):
        raise ServerError(f"it tells no log probabilities of the most probable tokens. {REMEDY}")
    return [
        Position.of(
            spelling.id_of(token), ((spelling.id_of(text), own) for text, own in each.items())
        )
        for token, each in zip(tokens, likely, strict=True)
    ]


def read_own(told: Any, side: Source) -> Position:
    """Read a position as this package's server tells it."""
    offered = told["alternatives"][side]
    return Position.of(
        told["token_id"],
        ((each["token_id"], log_of(each["probability"])) for each in offered),
    )


def log_of(probability: float) -> float:
    """Return the logarithm of a probability, which may be 0."""
    return math.log(probability) if probability else -math.inf


def read_content(told: Any, spelling: Spelling) -> Position:
    """Read a position in the form that chats have, as llama.cpp's server tells it."""

    def token_of(each: Any) -> int:
        if "id" in each:
            return int(each["id"])
        return spelling.id_of(bytes(each["bytes"]) if each.get("bytes") else each["token"])

    likely = [*told["top_logprobs"], *([told] if "logprob" in told else [])]
    if not told["top_logprobs"]:
        raise ServerError(f"it tells no log probabilities of the most probable tokens. {REMEDY}")
    return Position.of(token_of(told), ((token_of(each), each["logprob"]) for each in likely))
