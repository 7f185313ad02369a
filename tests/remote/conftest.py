from __future__ import annotations

from collections.abc import Iterator

import pytest

from baco_integrations import Decoder, ModelPair
from baco_integrations.remote import client
from baco_integrations.remote.decoder import RemoteDecoder
from tests.server.serving import Serving, serving

# What is remembered of other requests changes last bits of probabilities.
FRESH = {"prefix_bytes": 0}


@pytest.fixture(scope="session")
def served() -> Iterator[Serving]:
    with serving(engine=FRESH) as running:
        yield running


@pytest.fixture(scope="session")
def local() -> Iterator[Decoder]:
    """A decoder of the same pair in this process."""
    with Decoder(ModelPair.tiny(), prefix_bytes=0) as decoder:
        yield decoder


@pytest.fixture(scope="session")
def remote(served: Serving) -> RemoteDecoder:
    return RemoteDecoder(served.api)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.0)
