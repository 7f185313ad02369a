from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from baco_integrations.adapters.distinct import Idea
from baco_integrations.core.outputs import Completion, TokenStep, Usage
from baco_integrations.core.routing import Source
from baco_integrations.core.tool_calls import ToolCall
from tests.contrast import SCHEMES, clipped, least_contrast, shown
from tests.server.browser import chromium

HOSTILE = '</u></div><script>document.title = "owned"</script><img src=x onerror=alert(1)> & "'


def completion(*tokens: tuple[Source, str], **fields: object) -> Completion:
    steps = tuple(TokenStep(0, text, source, 1, 1, 1, 1, 0, False) for source, text in tokens)
    text = "".join(step.text for step in steps)
    given = {"router": "p-punc", "gamma": 0.6, "tool_calls": ()} | fields
    return Completion(text, steps, "stop", Usage(1, 1, 1), 7, 0, **given)  # type: ignore[arg-type]


LISBON = completion(
    ("aligned", "I pick"), ("base", " Lis"), ("base", "bon"), ("aligned", "."), ("aligned", "")
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def test_what_base_gave_is_marked_and_how_stands_below() -> None:
    assert LISBON.sources == [("aligned", "I pick"), ("base", " Lisbon"), ("aligned", ".")]
    html = LISBON._repr_html_()
    assert "<div>I pick <u>Lisbon</u>.</div>" in html and len(html) < 1000
    assert "p-punc, gamma 0.6 · 40% of the tokens from base (underlined) · seed 7<" in html
    call = ToolCall("1", "find", '{"a": "<b>"}', None)
    html = completion(
        ("aligned", ""), tool_calls=(call,), gamma=None, approximate=True
    )._repr_html_()
    assert "<small>find({&quot;a&quot;: &quot;&lt;b&gt;&quot;}) · p-punc · 0%" in html
    assert "approximate</small>" in html


def test_an_idea_shows_what_is_known_of_it() -> None:
    known = {"value": "Lisbon", "text": "Lisbon", "sample": 0}
    assert "<div>Lisbon</div><small></small>" in Idea(**known)._repr_html_()
    pieces = [("base", " Lisbon"), ("aligned", "\n")]
    assert "<div> <u>Lisbon</u></div>" in Idea(**known, sources=pieces)._repr_html_()
    # The idea is a part of the answer: who gave which part of that is not known.
    read = Idea(**known, sources=[("base", "1. Lisbon")], seed=3)
    assert "<div>Lisbon</div><small>seed 3</small>" in read._repr_html_()
    assert "sources" not in repr(read)


def test_hostile_text_stays_text(browser: Browser) -> None:
    answer = completion(("base", HOSTILE), ("aligned", HOSTILE), router=HOSTILE)
    page = shown(browser, answer._repr_html_(), width=390)
    assert page.title() == "" and page.locator("body > *").count() == 1
    assert page.locator(".baco *").count() == 3  # a div, what is marked, and what stands below
    assert page.locator(".baco div").inner_text() == HOSTILE * 2
    assert clipped(page) == []
    page.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("theme", ["", "data-jp-theme-light=true", "data-jp-theme-light=false"])
def test_it_can_be_read_under_every_theme(browser: Browser, scheme: str, theme: str) -> None:
    for ground in ("white", "black"):
        body = f"<body {theme} style='background: {ground}'>{LISBON._repr_html_()}"
        page = shown(browser, body, scheme)
        contrast, text = least_contrast(page)
        assert 4.5 <= contrast < 21, text
        page.close()
