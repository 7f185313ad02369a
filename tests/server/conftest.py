from __future__ import annotations

from collections.abc import Iterator

import pytest

from baco_integrations import Decoder, ModelPair
from tests.server.serving import Serving, serving


@pytest.fixture(scope="session")
def served() -> Iterator[Serving]:
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def local() -> Iterator[Decoder]:
    """A decoder of the same pair in this process."""
    with Decoder(ModelPair.tiny()) as decoder:
        yield decoder
