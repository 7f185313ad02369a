"""Running the server: it listens, and ends in good order when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator
from functools import partial
from types import FrameType

import uvicorn

from .app import create_app
from .connection import Connection
from .logs import LOGGER, logs_to_stderr
from .pairs import ServedPairs
from .settings import ServerSettings

LAST_WORDS_S = 5.0
"""Seconds that requests have to tell their callers that the decoders were closed."""


class DrainingServer(uvicorn.Server):
    """A server that lets running requests end, for a time, and then fails what is left.

    Args:
        pairs: What it serves.
        settings: How.
        started: Called once it listens, with the port.
    """

    def __init__(
        self,
        pairs: ServedPairs,
        settings: ServerSettings,
        started: Callable[[int], None] = lambda port: None,
    ) -> None:
        self.app = create_app(pairs, settings)
        self.pairs, self.settings, self._started = pairs, settings, started
        config = uvicorn.Config(
            self.app,
            host=settings.host,
            port=settings.port,
            access_log=False,
            log_config=None,
            server_header=False,
            http=partial(Connection, patience=settings.body_timeout),  # type: ignore[arg-type]
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=int(settings.drain_timeout + LAST_WORDS_S),
        )
        super().__init__(config)

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, and tell at which port."""
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            self._started(self.servers[0].sockets[0].getsockname()[1])

    def drain(self) -> None:
        """Take nothing new, let running requests end, and stop; a second call stops at once."""
        if self.app.state.draining:
            self.force_exit = True
            self.loop.call_soon_threadsafe(self.cut)
        self.app.state.draining = self.should_exit = True
        LOGGER.info("draining", extra={"facts": {"seconds": self.settings.drain_timeout}})

    def cut(self) -> None:
        """Cut all connections, which ends what runs for them."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain when a signal comes."""
        self.drain()

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Wait for running requests; those that are left fail with `DecoderClosedError`."""
        deadline = asyncio.get_running_loop().call_later(
            self.settings.drain_timeout,
            lambda: asyncio.get_running_loop().run_in_executor(None, self.pairs.close),
        )
        try:
            await super().shutdown(sockets)  # type: ignore[arg-type]
        finally:
            deadline.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Heed SIGINT and SIGTERM where this is the main thread; they end in good order here."""
        import threading

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def serve(
    pairs: ServedPairs,
    settings: ServerSettings,
    *,
    load: bool = True,
    started: Callable[[int], None] = lambda port: None,
) -> None:
    """Serve pairs until a signal comes; running requests then have ``drain_timeout`` to end.

    Args:
        pairs: The pairs.
        settings: How to listen and whom to let in.
        load: Whether to load all pairs before listening, rather than when they are first asked for.
        started: Called once the server listens, with the port.

    Raises:
        PairError: A pair cannot be loaded.
        OSError: The address cannot be listened at.
    """
    server = DrainingServer(pairs, settings, started)
    sock = bound_socket(settings.host, settings.port)  # before anything is loaded

    async def run() -> None:
        if load:
            for served in pairs:
                await pairs.decoder(served)
        await server.serve([sock])

    with sock, logs_to_stderr():
        asyncio.run(run())


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket at an address, which does not listen yet.

    Raises:
        OSError: There is no such address, or something listens there.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{error.strerror}: {host}:{port}") from None
    return sock
