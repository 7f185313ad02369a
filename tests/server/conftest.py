"""The real application on uvicorn, with the tiny pair, for clients to call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.serving import RunningServer


@pytest.fixture(scope="session")
def tiny_server() -> Iterator[RunningServer]:
    """A server of the tiny pair that lets everybody in."""
    with RunningServer({"tiny": "tiny"}) as server:
        yield server
