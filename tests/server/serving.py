"""A server in a thread, on a free port."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import uvicorn

from baco_integrations.server import ServedPairs, ServerSettings, create_app
from tests.scripted import eventually


class RunningServer:
    """An application that listens until the block ends.

    Args:
        pairs: As for `ServedPairs`.
        engine: Settings of the engine.
        **settings: Those of `ServerSettings`.
    """

    def __init__(
        self, pairs: Any, *, engine: Mapping[str, Any] | None = None, **settings: Any
    ) -> None:
        self.pairs = ServedPairs(pairs, engine=engine)
        app = create_app(self.pairs, ServerSettings(**settings))
        config = uvicorn.Config(app, port=0, log_config=None, ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> RunningServer:
        self.thread.start()
        assert eventually(lambda: self.server.started)
        return self

    def __exit__(self, *raised: object) -> None:
        self.server.should_exit = True
        self.thread.join()

    @property
    def root(self) -> str:
        """The server's address."""
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    @property
    def url(self) -> str:
        """What clients call the base URL."""
        return f"{self.root}/v1"
