"""Makes the cookbook's picture of the playground, on the tiny pair:

    python tests/server/screenshot.py [FILE]

The seed is one at which base rambles, so that the picture shows what aligned takes care of.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.server.browser import chromium, open_page, run, tokens  # noqa: E402
from tests.server.serving import serving  # noqa: E402

SETTINGS = {"prompt": "Name a place to visit.", "seed": 93}
WORD = " friendly"


def take(file: Path) -> None:
    with serving() as served, chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1060}, color_scheme="light")
        open_page(page, f"{served.url}#{urlencode(SETTINGS)}")
        run(page)
        tokens(page).filter(has_text=WORD).first.hover()
        expect(page.locator("#details")).to_be_visible()
        page.screenshot(path=file)


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "cookbook" / "playground.png")
