"""Hostile requests break nothing: see `tests.server.hostile`."""

from __future__ import annotations

import os

import pytest

from baco_integrations.server import ServedPairs, create_app
from tests.server.hostile import hostile

REQUESTS = int(os.environ.get("BACO_HOSTILE_REQUESTS", "10000"))
"""How many requests are sent."""


@pytest.mark.slow
def test_hostile_requests_break_nothing() -> None:
    report = hostile(REQUESTS)
    print(report)
    assert not report.failures, str(report)
    answered = {status for counts in report.statuses.values() for status in counts}
    # The attacks get through to everything that is to hold them off.
    assert {"200", "400", "401", "404", "405", "408", "413", "415", "504"} <= answered
    told = create_app(ServedPairs(["tiny"])).openapi()["paths"]["/v1/completions"]["post"]
    assert answered - {"", "cut"} <= {*told["responses"], "405"}
    assert len(report.neighbour) >= 6
