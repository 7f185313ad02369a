"""Requests to one server: retried where that is safe, with errors that say what to do."""

from __future__ import annotations

import json
import math
import random
import re
import socket
from asyncio import Semaphore, sleep
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cached_property
from typing import Any

import httpx

from ..api.reading import read_error
from ..core.errors import BacoError, ParameterError, ServerError, Shown, shorten
from .loop import NetworkLoop

AT_ONCE = 256
"""Most requests of a client at once; further ones wait for their turn."""

FIRST_PAUSE_S = 0.5
"""How long to wait before the first retry, if the server does not say; doubled each time."""

LONGEST_PAUSE_S = 60.0
"""Whoever is to come back later than this is told so at once."""

MOST_BYTES = 2**16
"""So much is read of an answer that is an error."""

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout)
"""What is raised where no connection could be made, so that nothing was sent."""

FORMLESS = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    RecursionError,  # of JSON that is nested too deeply
)
"""What is raised where data has another form than is read."""

TRY_LATER = (429, 503)
"""Statuses of servers that have not begun to decode."""

_PROBES = {
    "TCP_KEEPIDLE": 60,
    "TCP_KEEPINTVL": 15,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": 120_000,  # in milliseconds, unlike the others
}


class Client:
    """Asks one server with one key; its coroutines run on the network's event loop.

    Args:
        url: Where the API begins, such as ``http://host:8000/v1``.
        key: The API key, if the server wants one. No error shows it.
        retries: How often to try again where nothing can have happened yet.

    Attributes:
        url: Where the API begins.
    """

    def __init__(self, url: str, key: str | None, retries: int) -> None:
        self.url, self._key, self._retries = url, key, retries
        own = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._headers = {"Content-Type": "application/json", **own}
        self._turns = Semaphore(AT_ONCE)

    @cached_property
    def loop(self) -> NetworkLoop:
        """The network's event loop of the process that first asks."""
        return NetworkLoop.current()

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process that has asked."""
        return "loop" in vars(self) and self.loop.forked

    async def json(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON data that a path answers with.

        Args:
            path: The path behind the URL, such as ``/models``.
            body: What to send; None to send nothing.

        Raises:
            BacoError: The server's own error.
            ParameterError: The server does not take the key.
            ServerError: It is out of reach, or answers with something else.
        """
        async with self.answer(path, body) as response:
            content = await response.aread()
            with self.reading(content):
                return json.loads(content)

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """Yield the data of a stream's events, up to its end; leaving it closes the connection.

        Raises:
            BacoError: As for `json`; a `ServerError` if the stream ends before its time.
        """
        async with self.answer(path, body) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise self.no_answer(await beginning(response))
            async for line in lines(response):
                field, _, data = line.partition(b":")
                if data.strip() == b"[DONE]":
                    return
                if field == b"data":
                    yield data
        raise self.broken_off("it has no end")

    @asynccontextmanager
    async def answer(
        self, path: str, body: Mapping[str, Any] | None
    ) -> AsyncIterator[httpx.Response]:
        """Provide the response of a path once it has begun; its status is 200."""
        async with self._turns:
            response = await self.sent(path, body)
            try:
                yield response
            except httpx.HTTPError as error:
                raise self.broken_off(error) from error
            finally:
                await response.aclose()

    async def sent(self, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        """Return a response whose status is 200, after trying again where that is safe."""
        tried = 0
        while True:
            try:
                return await self.attempt(path, body)
            except NotNow as failure:
                pause = FIRST_PAUSE_S * 2**tried * random.uniform(0.75, 1.25)
                pause = max(pause, failure.pause)
                if tried == self._retries or pause > LONGEST_PAUSE_S:
                    raise failure.error from failure.__cause__
            tried += 1
            await sleep(pause)

    async def attempt(self, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        """Return a response whose status is 200.

        Raises:
            NotNow: Another attempt is safe.
        """
        request = self.loop.http.build_request(
            "GET" if body is None else "POST",
            self.url + path,
            headers=self._headers,
            content=None if body is None else json.dumps(body),
            extensions={"trace": probe},
        )
        try:
            response = await self.loop.http.send(request, stream=True)
            ignored = response.headers.get("x-baco-ignored")
            if response.status_code == 200 and not ignored:
                return response
            # What a stream decodes is not waited for.
            content = b"" if ignored else await beginning(response)
            await response.aclose()
        except UNSENT as error:
            raise NotNow(self.out_of_reach(error)) from error
        except httpx.HTTPError as error:
            raise self.broken_off(error) from error
        except (httpx.InvalidURL, UnicodeError) as error:  # of the host's name
            raise self.out_of_reach(error) from error
        if ignored:
            raise ServerError(
                f"{self.url} is of another version and does not know: {self.masked(ignored)}. "
                "Leave it out, or have the server updated."
            )
        refusal = self.refusal(response.status_code, content)
        if response.status_code in TRY_LATER:
            raise NotNow(refusal, seconds(response.headers.get("retry-after")))
        raise refusal

    # -- what went wrong ---------------------------------------------------------------------

    @contextmanager
    def reading(self, content: object) -> Iterator[None]:
        """Raise a `ServerError` where what came has another form than answers have."""
        try:
            yield
        except BacoError:
            raise
        except FORMLESS as error:
            raise self.no_answer(content) from error

    def refusal(self, status: int, content: bytes) -> BacoError:
        """Return the error of an answer with another status than 200."""
        if status == 401:
            return ParameterError(
                "api_key",
                f"a key that the server at {self.url} takes",
                Shown("none" if self._key is None else "another one"),
                "Ask whoever runs it; give it as api_key=... or as BACO_API_KEY.",
            )
        with suppress(*FORMLESS):
            data = json.loads(self.masked(content))
            error = read_error(status, data)
            if error is not None and data["error"].get("code") == "model_not_found":
                where = f"one that {self.url} serves"
                return ParameterError("pair", where, Shown("another one"), str(error))
            if type(error) is ServerError:
                return ServerError(f"{self.url} answered with status {status}: {error}")
            if error is not None:
                return error
        return self.no_answer(content, f"with status {status} ")

    def masked(self, content: object) -> str:
        """Return what came as text, without the key, which a server may repeat."""
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
        if not self._key:
            return text
        # JSON and Python write some of its characters with backslashes in front.
        return re.sub("".join(rf"\\*{re.escape(each)}" for each in self._key), "***", text)

    def no_answer(self, content: object, how: str = "") -> ServerError:
        """Return the error of an answer that none of this package's servers gives."""
        return ServerError(
            f"{self.url} answered {how}as no BACo server does: "
            f"{shorten(self.masked(content), 200)}. Is base_url right? It is where `baco serve` "
            "listens, with /v1 behind it."
        )

    def broken_off(self, reason: object) -> ServerError:
        """Return the error of an answer that did not come, or not to its end."""
        why = str(reason) or type(reason).__name__
        return ServerError(f"the answer of {self.url} broke off ({why}). Ask again.")

    def out_of_reach(self, reason: Exception) -> ServerError:
        """Return the error of a server to which there is no connection."""
        why = str(reason) or type(reason).__name__
        return ServerError(
            f"no server can be reached at {self.url} ({why}). Is `baco serve` running there, and "
            "is base_url right?"
        )


class NotNow(Exception):
    """An attempt has failed that may be repeated.

    Args:
        error: What to raise if it is not.
        pause: How many seconds to wait at least.
    """

    def __init__(self, error: BacoError, pause: float = 0.0) -> None:
        super().__init__()
        self.error, self.pause = error, pause


def seconds(header: str | None) -> float:
    """Return the seconds that a ``Retry-After`` header tells; 0 if none, or a date."""
    try:
        told = float(header or 0)
    except ValueError:
        return 0.0
    return told if math.isfinite(told) else 0.0


async def beginning(response: httpx.Response) -> bytes:
    """Return the first bytes of a response."""
    content = b""
    async for data in response.aiter_bytes(MOST_BYTES):
        content += data
        if len(content) >= MOST_BYTES:
            break
    return content


async def lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the lines of a response; only a line feed ends one, as texts may hold other breaks."""
    rest = b""
    async for data in response.aiter_bytes():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line


async def probe(event: str, info: Mapping[str, Any]) -> None:
    """Have a new connection probed while nothing comes, so that a lost server is noticed."""
    if event != "connection.connect_tcp.complete":
        return
    connection = info["return_value"].get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
