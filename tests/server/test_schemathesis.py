"""The server keeps to its own OpenAPI document, whatever is sent."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.server.serving import Serving

EXAMPLES = 60
"""How many requests each endpoint gets."""
ALLOWED = {503, 504}
"""What says that the server is busy, and not that it has failed."""
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def schema(served: Serving) -> Any:
    loaded = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    print(dir(loaded.config))
    return loaded


def test_x(schema: Any) -> None:
    for each in schema.get_all_operations():
        print(each.ok().label)
    assert 0
