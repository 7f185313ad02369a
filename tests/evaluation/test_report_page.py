"""The report in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from baco_integrations.evaluation.report import render
from tests.contrast import SCHEMES, clipped, least_contrast, shown
from tests.evaluation.test_report import hostile
from tests.server.browser import chromium

TINY = Path(__file__).parents[2] / "cookbook" / "reports" / "tiny.json"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module", params=["tiny", "hostile"])
def html(request: pytest.FixtureRequest) -> str:
    result = json.loads(TINY.read_text()) if request.param == "tiny" else hostile()
    return render({**result, "unfinished": "3 of 9 answers are there."})


@pytest.mark.parametrize("width", [390, 700, 1280])
def test_nothing_is_clipped(browser: Browser, html: str, width: int) -> None:
    page = shown(browser, html, width=width)
    assert clipped(page) == []
    assert page.locator("table").count() >= 8
    page.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_stands_out(browser: Browser, html: str, scheme: str) -> None:
    page = shown(browser, html, scheme)
    contrast, text = least_contrast(page)
    assert 4.5 <= contrast < 21, text
    page.close()


def test_an_unfinished_run_says_so_before_all_else(browser: Browser, html: str) -> None:
    page = shown(browser, html)
    first = "No conclusions yet. 3 of 9 answers are there."
    assert page.locator("main").inner_text().startswith(first)
    page.close()
