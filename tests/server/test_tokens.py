"""Counting tokens for callers that have no tokenizer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from baco_integrations import Decoder
from baco_integrations.server import app
from baco_integrations.server.tokens import Tokens
from tests.server.serving import Serving, serving

TALK = [{"role": "user", "content": [{"type": "text", "text": "Name a "}, {"text": "city."}]}]
TOOL = {"type": "function", "function": {"name": "pick"}}


def asked(served: Serving, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.api}/baco/tokenize", json={"model": "tiny", **body})


def test_texts_and_conversations(served: Serving, local: Decoder) -> None:
    pair, turns = local.pair, [{"role": "user", "content": "Name a city."}]
    text = pair.encode("Name a city.")
    assert asked(served, text="Name a city.").json() == {"tokens": text, "base_tokens": len(text)}
    for tools in (None, [TOOL]):
        shown = pair.render_aligned(turns, tokenize=True, **({"tools": tools} if tools else {}))
        told = asked(served, messages=TALK, tools=tools).json()
        assert told["tokens"] == list(shown)
        assert told["base_tokens"] == len(pair.render_base(turns, tokenize=True))


def test_one_text_is_counted_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def meeting(*_: Any) -> Tokens:
        both.wait(timeout=0.3)
        return {"tokens": [], "base_tokens": 0}

    monkeypatch.setattr(app, "tokenize", meeting)
    with serving() as served, ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: asked(served, text="a"), range(2)))
    assert {answer.status_code for answer in answers} == {500}  # none has met the other


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "messages must be given, or text"),
        ({"text": "a", "messages": TALK}, "messages must be given, or text, but not both"),
        ({"messages": []}, "a non-empty list of messages"),
        ({"messages": TALK, "tools": [5]}, "tools[0] must be a dict like"),
        ({"text": "a", "model": "tinny"}, "Did you mean 'tiny'?"),
    ],
)
def test_what_cannot_be_counted(served: Serving, body: dict[str, Any], says: str) -> None:
    answer = asked(served, **body)
    assert answer.status_code in (400, 404) and says in answer.json()["error"]["message"]
