"""Connections: HTTP as uvicorn speaks it, for callers who neither stall nor send without end."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """One caller's connection, which is cut when its caller stalls.

    Args:
        patience: Seconds in which a request's head must have come, and for which a caller may
            leave what was sent unread.
        **given: What uvicorn gives.
    """

    def __init__(self, *, patience: float, **given: Any) -> None:
        super().__init__(**given)
        self.patience = patience
        self.reading: asyncio.TimerHandle | None = None
        self.writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self.await_head()

    def data_received(self, data: bytes) -> None:
        """Read on; what is no whole head yet leaves the time that it has as it is."""
        super().data_received(data)
        self.await_head()

    def await_head(self) -> None:
        """Cut the connection in time, unless a request is being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.reading = stopped(self.reading)
        elif self.reading is None:
            self.reading = self.loop.call_later(self.patience, self.transport.abort)

    def pause_writing(self) -> None:
        """Wait for the caller to read; called when much lies unread."""
        super().pause_writing()
        self.writing = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on sending."""
        super().resume_writing()
        self.writing = stopped(self.writing)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the caller."""
        self.reading, self.writing = stopped(self.reading), stopped(self.writing)
        super().connection_lost(exc)


def stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a timer, if there is one, and return that there is none."""
    if timer is not None:
        timer.cancel()
    return None
