"""The playground in Debian's Chromium: what the tests and the screenshot share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, Request, expect, sync_playwright

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
expect.set_options(timeout=20_000)  # where all cores are busy
COLUMNS = ("base", "aligned", "baco")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Open a browser; where there is none, skip, or fail if BACO_REQUIRE_BROWSER is set."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        except Error as error:
            if os.environ.get("BACO_REQUIRE_BROWSER") == "1":
                raise
            pytest.skip(f"No browser: {error.message.splitlines()[0]}. Install chromium.")
        yield browser
        browser.close()


def is_chat(request: Request) -> bool:
    return request.url.endswith("/v1/chat/completions")


def body_of(request: Request) -> Any:
    return json.loads(request.post_data or "null")


def chunks_of(request: Request) -> list[Any]:
    """Return the choices' pieces that a stream brought."""
    response = request.response()
    assert response is not None and response.ok, response
    lines = [line for line in response.text().split("\n\n") if line not in ("", "data: [DONE]")]
    return [c for line in lines for c in json.loads(line.removeprefix("data: "))["choices"]]


def steps_of(request: Request) -> list[Any]:
    """Return the tokens that a stream brought."""
    return [step for c in chunks_of(request) if c["logprobs"] for step in c["logprobs"]["content"]]


def column(page: Page, name: str) -> Locator:
    return page.locator(f"#{name}-column")


def tokens(page: Page, name: str = "baco") -> Locator:
    return column(page, name).locator(".token")


def open_page(page: Page, url: str) -> None:
    """Open the playground and wait until it knows the pairs."""
    page.goto(url)
    expect(page.locator("#pair option").first).to_be_attached()


def run(page: Page, prompt: str | None = None) -> dict[str, Request]:
    """Press Run, wait for the three answers, and return their requests by column."""
    asked: list[Request] = []

    def keep(request: Request) -> None:
        if is_chat(request):
            asked.append(request)

    page.on("request", keep)
    if prompt is not None:
        page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Done.")
    page.remove_listener("request", keep)
    by_router = {body_of(request)["router"]: request for request in asked}
    assert len(asked) == len(by_router) == 3
    alone = {name: by_router.pop(name) for name in ("base", "aligned")}
    return {**alone, "baco": by_router.popitem()[1]}
