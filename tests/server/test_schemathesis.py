"""The server keeps to its own OpenAPI document, whatever is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from tests.server.serving import Serving, serving

load_all_checks()
KEPT = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "response_headers_conformance"),
)
EXAMPLES = 40
"""How many requests of each kind each endpoint gets."""
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def limited() -> Iterator[Serving]:
    with serving(max_choices=4, request_timeout=20, defaults={"max_tokens": 4}) as served:
        yield served


@pytest.fixture(scope="module")
def schema(limited: Serving) -> Any:
    return schemathesis.openapi.from_url(f"{limited.url}/openapi.json")


OPERATIONS = (
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{model}", "GET"),
    ("/health", "GET"),
    ("/metrics", "GET"),
)
MESSAGES = [{"role": "user", "content": "Suggest a gift."}]


def ask_all(
    schema: Any, path: str, method: str, mode: GenerationMode, served: bool
) -> Counter[int]:
    """Send requests, check the answers, and return their statuses."""
    statuses = Counter[int]()

    @SETTINGS
    @given(case=schema[path][method].as_strategy(generation_mode=mode), data=st.data())
    def ask(case: Any, data: st.DataObject) -> None:
        if served:
            serve(case, data)
        answer = case.call(timeout=60)
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS.get_by_names(KEPT))

    ask()
    return statuses


def serve(case: Any, data: st.DataObject) -> None:
    """Make a request one that can be served: of what was drawn, a few settings are kept."""
    if case.path_parameters:
        case.path_parameters = {"model": "tiny"}
    if isinstance(case.body, dict):
        asked = {"model": "tiny", "max_tokens": 2, "messages": MESSAGES, "prompt": "Once"}
        asked["stream"] = data.draw(st.booleans())
        names = data.draw(st.sets(st.sampled_from(sorted(case.body)), max_size=2))
        kept = names - {"model", "max_tokens", "max_completion_tokens", "timeout"}
        case.body = {**asked, **{name: case.body[name] for name in kept}}


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_the_document_allows(schema: Any, path: str, method: str) -> None:
    asked = ask_all(schema, path, method, GenerationMode.POSITIVE, served=False)
    assert set(asked) <= {200, 400, 404}


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS[:4])
def test_what_is_served(schema: Any, path: str, method: str) -> None:
    asked = ask_all(schema, path, method, GenerationMode.POSITIVE, served=True)
    assert set(asked) <= {200, 400} and asked[200] > EXAMPLES / 4


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS[:2])
def test_what_the_document_forbids(schema: Any, path: str, method: str) -> None:
    asked = ask_all(schema, path, method, GenerationMode.NEGATIVE, served=False)
    assert set(asked) <= {400, 404}
