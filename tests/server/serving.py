"""The real server on the tiny pair, in a thread, on a free port of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Queue
from typing import Any

from baco_integrations import Decoder, ModelPair
from baco_integrations.server import ServedPairs, ServerSettings
from baco_integrations.server.run import DrainingServer


@dataclass
class Serving:
    """A server that runs."""

    url: str
    server: DrainingServer
    thread: threading.Thread

    @property
    def api(self) -> str:
        return f"{self.url}/v1"

    @property
    def decoder(self) -> Decoder:
        """The decoder of the first pair."""
        decoder = next(iter(self.server.pairs)).decoder
        assert decoder is not None
        return decoder


@contextmanager
def serving(
    pairs: Mapping[str, Any] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    engine: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Serving]:
    """Serve pairs, the tiny one if none are given, until the block ends."""
    served = ServedPairs(pairs or {"tiny": ModelPair.tiny()}, defaults=defaults, engine=engine)
    ports: Queue[int] = Queue()
    server = DrainingServer(served, ServerSettings(port=0, **settings), ports.put)
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        yield Serving(f"http://127.0.0.1:{ports.get(timeout=60)}", server, thread)
    finally:
        server.drain()
        thread.join(60)
        assert not thread.is_alive()
