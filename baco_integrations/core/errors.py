"""Every error of the package, drawn as one tree.

    BacoError
    ├── ParameterError (ValueError)      a value is not allowed
    │   └── PromptError                  the messages cannot be decoded
    ├── PairError (ValueError)           the two models do not make a pair
    │   ├── ModelNotFoundError           a model's files are missing or out of reach
    │   ├── UnsafeWeightsError           only pickled weights, or remote code, were found
    │   ├── VocabularyMismatchError      the two text vocabularies differ
    │   └── NotEnoughMemoryError         the pair does not fit
    ├── MissingExtraError (ImportError)  an optional dependency is not installed
    └── DecoderError (RuntimeError)      decoding cannot go on
        ├── DecoderClosedError           the decoder was closed, or belongs to a parent process
        ├── QueueFullError               too many requests are waiting
        ├── CutOffError (ValueError)     an answer ended before what was asked for was whole
        ├── DeadlineError (TimeoutError) the request's own time limit has passed
        ├── WorkerError                  the worker failed; ``__cause__`` says why
        └── ServerError (ConnectionError)  a server is out of reach, or answers as none of ours

A `ParameterError` is raised before any forward pass, and its message says four things: which
parameter, what is allowed, what came, and what to do.
"""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Iterable


class BacoError(Exception):
    """Base of every error this package raises on purpose."""


class ParameterError(BacoError, ValueError):
    """A parameter has a value that is not allowed.

    Args:
        parameter: Name of the parameter, as the caller wrote it.
        allowed: What is allowed, as a phrase that follows "must be".
        received: The value that came; long values are shortened in the message.
        remedy: What to do, as a sentence.
    """

    def __init__(self, parameter: str, allowed: str, received: object, remedy: str) -> None:
        self.parameter = parameter
        self.allowed = allowed
        self.received = received
        self.remedy = remedy
        super().__init__(f"{parameter} must be {allowed}, got {shorten(received)}. {remedy}")

    def __reduce__(self) -> tuple[type, tuple[str, str, object, str]]:
        received, shown = self.received, shorten(self.received)
        try:
            kept = shorten(pickle.loads(pickle.dumps(received))) == shown
        except Exception:  # What came may raise anything; its text can always go along.
            kept = False
        received = received if kept else Shown(shown)
        return type(self), (self.parameter, self.allowed, received, self.remedy)


class Shown(str):
    """What a value looked like that stayed behind in another process."""

    __slots__ = ()
    __repr__ = str.__str__


class PromptError(ParameterError):
    """The messages are empty, malformed, or do not fit into the context window."""


class PairError(BacoError, ValueError):
    """The two models cannot be loaded as one pair."""


class ModelNotFoundError(PairError):
    """A model's files are missing, gated, or out of reach."""


class UnsafeWeightsError(PairError):
    """A model comes only as pickled weights, or wants to run code of its own."""


class VocabularyMismatchError(PairError):
    """The two tokenizers do not share one text vocabulary."""


class NotEnoughMemoryError(PairError):
    """The estimated size of the pair exceeds the memory at hand."""


class MissingExtraError(BacoError, ImportError):
    """An optional dependency is missing.

    Args:
        feature: What needs it, as the subject of a sentence.
        extra: Name of the extra that brings it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        self.feature = feature
        self.extra = extra
        super().__init__(
            f"{feature} needs packages that are not installed. "
            f"Run: pip install 'baco-integrations[{extra}]'"
        )

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.feature, self.extra)


class DecoderError(BacoError, RuntimeError):
    """Decoding cannot go on."""


class DecoderClosedError(DecoderError):
    """The decoder was closed, or was opened in the parent of a forked process."""


class QueueFullError(DecoderError):
    """More requests are waiting than the decoder's queue holds."""


class OutOfMemoryError(DecoderError, MemoryError):
    """A request does not fit into memory, even with nothing beside it."""


class StreamOverrunError(DecoderError):
    """A stream's caller left too many tokens unread, and the request was cancelled."""


class CutOffError(DecoderError, ValueError):
    """An answer ended before what was asked for was whole."""


class DeadlineError(DecoderError, TimeoutError):
    """The request took longer than its ``timeout``."""


class WorkerError(DecoderError):
    """The decoder's worker failed while this request was running; the cause is attached."""


class ServerError(DecoderError, ConnectionError):
    """A server is out of reach, breaks off, or answers as none of this package's would."""


def too_late(timeout: float | None, decoded: int, limit: int) -> DeadlineError:
    """Return the error of a request that has run out of time, with its timeout in seconds."""
    return DeadlineError(
        f"the request took longer than its timeout of {timeout:g} s, with {decoded} "
        f"of at most {limit} tokens decoded. Raise timeout, or lower max_tokens."
    )


def shorten(value: object, width: int = 80) -> str:
    """Represent a value in at most `width` characters."""
    try:
        text = repr(value)
    except Exception:  # It is nested too deeply, or cannot be shown.
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= width else f"{text[: width - 3]}..."


def nearest(name: str, names: Iterable[str]) -> str:
    """Phrase a hint at the valid name nearest to a mistyped one; empty if none is near."""
    known = list(names)
    # What is far longer than all of them is near to none, and comparing takes long.
    long = len(name) > 3 * max(map(len, known), default=0)
    matches = [] if long else difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"Did you mean {matches[0]!r}? " if matches else ""
