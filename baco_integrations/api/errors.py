"""Errors over the wire: OpenAI's error objects, each with its status."""

from __future__ import annotations

from typing_extensions import NotRequired, TypedDict

from ..core.errors import (
    BacoError,
    DeadlineError,
    DecoderClosedError,
    OutOfMemoryError,
    PairError,
    ParameterError,
    PromptError,
    QueueFullError,
    shorten,
)


class ErrorBody(TypedDict):
    """What went wrong; ``baco`` has the parts of its message, where one of its own errors was."""

    message: str
    type: str
    param: str | None
    code: str | None
    baco: NotRequired[dict[str, str]]


class ErrorAnswer(TypedDict):
    """OpenAI's error object."""

    error: ErrorBody


class ApiError(BacoError):
    """An error of the protocol rather than of decoding.

    Args:
        status: The HTTP status.
        code: A word for programs.
        message: Sentences for people.
        param: The field that is to blame, if one is.
        retry_after: Seconds after which to try again, if that may help.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after
        super().__init__(message)


OF_SERVER = (
    (QueueFullError, 429, "queue_full"),
    (DecoderClosedError, 503, "closed"),
    (DeadlineError, 504, "timeout"),
    (OutOfMemoryError, 503, "out_of_memory"),
    (PairError, 503, "model_unavailable"),
)
"""Errors that are not the caller's, with status and code; all others are failures."""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, ApiError):
        return error.status
    if isinstance(error, ParameterError):
        return 400
    return next((status for kind, status, _ in OF_SERVER if isinstance(error, kind)), 500)


def error_answer(error: BaseException) -> ErrorAnswer:
    """Return OpenAI's error object; an error that is not ours tells nothing but its kind."""
    status = status_of(error)
    kind = {400: "invalid_request_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    body: ErrorBody = {"message": "", "type": kind, "param": None, "code": None}
    if isinstance(error, ApiError):
        body |= {"message": whole(str(error)), "param": error.param, "code": error.code}
    elif isinstance(error, ParameterError):
        too_long = isinstance(error, PromptError) and "context window" in error.allowed
        code = "context_length_exceeded" if too_long else "invalid_value"
        body |= {"message": whole(str(error)), "param": whole(error.parameter), "code": code}
        body["baco"] = {
            "error": type(error).__name__,
            "parameter": whole(error.parameter),
            "allowed": whole(error.allowed),
            "received": shorten(error.received),
            "remedy": whole(error.remedy),
        }
    elif isinstance(error, BacoError):
        code = next((code for cls, _, code in OF_SERVER if isinstance(error, cls)), "failed")
        body |= {"message": str(error), "code": code, "baco": {"error": type(error).__name__}}
    else:
        body |= {"message": "The server failed; its log has the cause.", "code": "internal"}
    return {"error": body}


def whole(text: str) -> str:
    """Return a text with escapes for half characters, which JSON can bring but UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode()
