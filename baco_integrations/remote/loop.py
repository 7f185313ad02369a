"""The process's event loop for the network, which runs in a thread of its own.

What belongs to an event loop, as connections do, is then never shared between two of them, and
threads and event loops of the callers may come and go.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpx

from ..core.errors import DecoderClosedError
from ..core.threads import LAST_CALL_S, fork_safe

T = TypeVar("T")

CONNECT_S = 10.0
"""A server that takes no connection for so many seconds is out of reach."""

IDLE = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=3)
"""Unused connections are kept for fewer seconds than servers keep them: none closes under us."""

_LOCK = fork_safe(threading.Lock())
_LOOPS: list[NetworkLoop] = []


class NetworkLoop:
    """An event loop in a thread, and the connections of the process; see `current`.

    Attributes:
        http: Makes and keeps the connections; used on the loop only.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        # One caller's cookies would reach others.
        no_cookies: Any = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        timeout = httpx.Timeout(None, connect=CONNECT_S)
        self.http = httpx.AsyncClient(limits=IDLE, timeout=timeout, cookies=no_cookies)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="baco-network", daemon=True)
        self._thread.start()

    @classmethod
    def current(cls) -> NetworkLoop:
        """Return the process's loop, starting it at the first call."""
        with _LOCK:
            # Loops of parents stay in the list: to collect one here would disturb the parent's.
            if not _LOOPS or _LOOPS[-1].forked:
                _LOOPS.append(cls())
            return _LOOPS[-1]

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process that runs it."""
        return self._process != os.getpid()

    def call(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Call a function on the loop, soon; return False if the loop has ended."""
        try:
            if not self.forked:
                self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # it is closed
            return False
        return not self.forked

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, and return its result.

        Raises:
            DecoderClosedError: The loop is a parent process's, or has ended.
        """
        try:
            if self.forked:
                raise RuntimeError
            running = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise DecoderClosedError("this process has no such connection.") from None
        return running.result()

    def stop(self) -> None:
        """Cancel what runs, close the connections, and end."""
        self.call(self._loop.stop)
        self._thread.join(LAST_CALL_S)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.http.aclose()


@atexit.register
def stop_loops() -> None:
    """Stop the process's loop; called when the interpreter ends."""
    for loop in _LOOPS:
        if not loop.forked:
            loop.stop()
