"""What has gone wrong, in words: errors of requests, and what an error says of the device."""

from __future__ import annotations

import torch

from ..core.errors import DecoderError, OutOfMemoryError, WorkerError

FULL = ("out of memory", "can't allocate memory", "not enough memory")


def out_of_memory(error: BaseException) -> bool:
    """Tell whether memory has run out; some allocators and drivers say so in words only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)


def device_lost(error: BaseException) -> bool:
    """Tell whether the device has failed, after which nothing works on it in this process."""
    return isinstance(error, getattr(torch, "AcceleratorError", ())) and not out_of_memory(error)


def worker_failure(cause: BaseException) -> WorkerError:
    """Return the error of a request whose decoding has failed; `cause` is its ``__cause__``."""
    failure = WorkerError(f"the decoder's worker failed: {type(cause).__name__}: {cause}")
    failure.__cause__ = cause
    return failure


def too_large(cause: BaseException, decoded: int, limit: int, prompt: int) -> OutOfMemoryError:
    """Return the error of a request that does not fit into memory even alone."""
    reason = str(cause).strip().partition("\n")[0] or type(cause).__name__
    return OutOfMemoryError(
        f"memory ran out ({reason}) with {decoded} of at most {limit} tokens decoded behind "
        f"a prompt of {prompt}, and nothing else was running. Shorten the "
        "conversation, lower max_tokens, or load the pair quantised or in a smaller dtype."
    )


def off_grammar(decoded: int, reason: str) -> DecoderError:
    """Return the error of a request whose grammar allows no token, with the reason if known."""
    if reason:
        return DecoderError(
            f"the grammar engine gave up after {decoded} tokens: {reason.rstrip('.')}. Ask for "
            "less at once, or simplify the schema or the pattern."
        )
    return DecoderError(
        f"no token that the grammar allows can follow after {decoded} tokens: the models give "
        "none of them any probability, or the vocabulary cannot spell what must come. Loosen the "
        "schema or the pattern."
    )
