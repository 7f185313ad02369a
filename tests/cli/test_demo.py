"""`baco demo` and its picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from baco_integrations import Decoder, ModelPair
from baco_integrations.cli.compare import figures, judge_all, side_by_side
from baco_integrations.cli.demo import AVERAGE, DEFAULTS, MAX_TOKENS, REQUEST, typical
from baco_integrations.tiny.requests import Request, requests
from tests.cli.picture import GROUND, draw
from tests.commands import baco
from tests.contrast import least_contrast, shown
from tests.server.browser import chromium

PICTURE = Path(__file__).parents[2] / "cookbook" / "demo.svg"


def valid_distinct(asked: Sequence[Request]) -> list[list[int]]:
    """Return how many different valid answers each request gets from base, aligned and both."""
    ways = side_by_side({**DEFAULTS, "max_tokens": MAX_TOKENS}, [None])
    with Decoder(ModelPair.tiny(), max_rows=96) as decoder:
        conversations = [request.messages for request in asked for _ in ways]
        answers = decoder.generate_batch(conversations, ways * len(asked))
    counts = []
    for place, request in enumerate(asked):
        given = answers[3 * place : 3 * place + 3]
        verdicts = judge_all(request, given)
        counts.append(
            [figures(*each)["valid_distinct"] for each in zip(given, verdicts, strict=True)]
        )
    return counts


@pytest.mark.slow
def test_the_demo_is_repeatable_and_fits() -> None:
    first = baco("demo", "--samples", "2").stdout
    assert first == baco("demo", "--samples", "2").stdout
    assert max(map(len, first.splitlines())) <= 80
    assert first.count("/2 valid") == 3
    assert "seed 0" in first and "Different valid answers of 2: base" in first
    assert "average" not in first
    assert first != baco("demo", "--samples", "2", "--seed", "1").stdout
    assert typical() in " ".join(baco("demo").stdout.split())


@pytest.mark.slow
def test_the_request_is_an_average_one_and_the_average_is_true() -> None:
    asked = [each for each in requests("eval") if each.form == "plain" and each.system is None]
    counts = dict(zip([each.id for each in asked], valid_distinct(asked), strict=True))
    means = [sum(column) / len(asked) for column in zip(*counts.values(), strict=True)]
    assert len({each.kind for each in asked}) == len(asked) == 16
    assert [*AVERAGE.values()] == pytest.approx(means, abs=0.05)
    average = [round(mean) for mean in means]
    assert [each for each, count in counts.items() if count == average] == [REQUEST]


def test_the_picture_is_what_the_command_prints() -> None:
    assert PICTURE.read_text() == draw()
    assert not re.search(r"url\(['\"]?http|@import|src:", PICTURE.read_text())


def test_the_picture_can_be_read() -> None:
    with chromium() as browser:
        page = shown(browser, f"<body style='background: {GROUND}'>{PICTURE.read_text()}")
        contrast, text = least_contrast(page)
        assert 4.5 <= contrast < 21, text
        hues = page.locator("svg text").evaluate_all(
            "all => [...new Set(all.map(each => getComputedStyle(each).fill))]"
        )
        assert {"rgb(240, 162, 100)", "rgb(147, 189, 244)"} <= set(hues)
