"""What every request passes before it is answered: who may come in, and with how much.

It is plain ASGI, so that streams pass through it as they are, and it reads bodies whole, so that
a slow one holds up nothing but itself.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pydantic_core import to_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..api.errors import ApiError, error_answer, status_of
from .logs import LOGGER, log_request
from .metrics import ServerMetrics
from .settings import ServerSettings, is_loopback

OPEN_PATHS = ("/health",)
"""What needs no key and is answered while the server drains."""
KEYED = re.compile(r"/v1/|/metrics$")
"""What needs a key, wherever in a path: the application may be mounted in another one."""
GONE = 499
"""The status of a request whose caller has gone before there was one."""
_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass
class Noted:
    """What is known of a request, for its log line and the metrics.

    Attributes:
        id: Its id, which the response carries as ``x-request-id``.
        status: The status of the response; 499 where the caller has gone.
        facts: What the endpoint notes: model, tokens, ...
    """

    id: str
    status: int = GONE
    facts: dict[str, Any] = field(default_factory=dict)


class Gate:
    """Checks keys, hosts, content types and bodies; counts and logs each request.

    Args:
        app: What answers.
        settings: The server's settings.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: ServerMetrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it pass."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, begun = Headers(scope=scope), time.monotonic()
        given = headers.get("x-request-id", "")
        noted = Noted(given if _ID.fullmatch(given) else uuid4().hex)
        scope.setdefault("state", {})["noted"] = noted

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                noted.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = noted.id
            await send(message)

        try:
            self.check_caller(scope, headers)
            body = await self.body(scope, headers, receive)
            await self.app(scope, replayed(body, receive), noting)
        except Exception as error:
            if not isinstance(error, ApiError):
                noted.facts["error"] = type(error).__name__
                LOGGER.exception("a request failed", extra={"facts": {"id": noted.id}})
            if noted.status == GONE:  # nothing has been sent yet
                await answer_error(noting, error)
        finally:
            seconds = time.monotonic() - begun
            self.metrics.count(scope, noted.status, seconds)
            log_request(scope, noted.id, noted.status, seconds, noted.facts)

    def check_caller(self, scope: Scope, headers: Headers) -> None:
        """Refuse a caller without a key, one that a web page has sent, or any during the drain.

        Raises:
            ApiError: The caller is refused.
        """
        path = scope["path"]
        if scope["app"].state.draining and path not in OPEN_PATHS:
            raise ApiError(503, "draining", "The server is about to end.", retry_after=5)
        if not self.settings.api_keys:
            # A page of another site may have its name point here; its Host header tells.
            host = re.sub(r":\d+$", "", headers.get("host", ""))
            if host != self.settings.host and not is_loopback(host):
                raise ApiError(
                    403,
                    "host_not_allowed",
                    f"Without an API key, this server answers to {self.settings.host} only.",
                )
        elif KEYED.search(path) and scope["method"] != "OPTIONS":
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not self.settings.lets_in(key.strip()):
                raise ApiError(
                    401, "invalid_api_key", "Send a valid key as 'Authorization: Bearer KEY'."
                )

    async def body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        """Return the whole body.

        Raises:
            ApiError: It is no JSON, too long or too slow.
        """
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return b""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # Pages of other sites can send all else without asking first.
            raise ApiError(
                415, "not_json", "Send JSON with the header 'Content-Type: application/json'."
            )
        most, seconds = self.settings.max_body_bytes, self.settings.body_timeout
        told = headers.get("content-length", "")
        if told.isdecimal() and (len(told) > 18 or int(told) > most):
            raise too_large(most)
        try:
            return await asyncio.wait_for(read_body(receive, most), seconds)
        except asyncio.TimeoutError:
            raise ApiError(
                408, "slow_body", f"The body must come within {seconds:g} seconds."
            ) from None


async def read_body(receive: Receive, most: int) -> bytes:
    """Return a body of at most so many bytes.

    Raises:
        ApiError: It is longer, or its sender has gone.
    """
    parts, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "cut_off", "The body was cut off.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise too_large(most)
        more = message.get("more_body", False)
    return b"".join(parts)


def too_large(most: int) -> ApiError:
    """Return the error of a body that is too long."""
    return ApiError(413, "body_too_large", f"A body may have {most} bytes at most.")


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read already, then what comes after it."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


async def answer_error(send: Send, error: Exception) -> None:
    """Send an error object."""
    answer = to_json(error_answer(error))
    headers = {"content-type": "application/json", "content-length": str(len(answer))}
    headers |= error_headers(error)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status_of(error), "headers": raw})
    await send({"type": "http.response.body", "body": answer})


def error_headers(error: BaseException) -> Mapping[str, str]:
    """Return the headers that go with an error."""
    headers = {}
    if isinstance(error, ApiError):
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        if error.status in (408, 413, 415):
            headers["connection"] = "close"  # what is left of the body is not read
    return headers
