from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from baco_integrations.evaluation import (
    OracleQuality,
    OracleSimilarity,
    Settings,
    compare,
    measure,
)
from baco_integrations.evaluation.findings import findings, headline
from baco_integrations.evaluation.report import render, shown_pieces, write_report
from baco_integrations.evaluation.words import in_words
from tests.evaluation.synthetic import city, ends_well, proper, records
from tests.evaluation.test_result import result

HOSTILE = (
    '<script src="https://evil.example/x.js">alert("$title")</script><img src=x onerror=y> & Oslo'
)
VOID = {"meta", "br", "path", "use"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps what they are made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile() -> dict[str, Any]:
    given = [
        {
            **r,
            "prompt": HOSTILE,
            "model": HOSTILE,
            "method": r["method"].replace("min-p", HOSTILE),
            "generations": [HOSTILE] * 2 + r["generations"][2:],
            "sources": [[["base", HOSTILE]], [["aligned", HOSTILE]], *[None] * 3],
        }
        for r in records(prompts=3, seeds=[0])
    ]
    scores = measure(
        given,
        OracleSimilarity(city),
        {HOSTILE: OracleQuality(proper), "ending": OracleQuality(ends_well)},
    )
    return compare(scores, Settings(resamples=20, splits=2), title=HOSTILE, command=HOSTILE)


def test_all_text_is_escaped() -> None:
    page = Page(render(hostile()))
    assert HOSTILE in page.text
    assert not {"script", "img", "link", "iframe", "object", "a"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_nothing_comes_from_elsewhere() -> None:
    html = render(result())
    page = Page(html)
    assert not {"src", "href", "srcset", "action"} & {name for name, _ in page.attributes}
    used = {value for name, value in page.attributes if name == "xlink:href"}
    drawn = {f"#{value}" for name, value in page.attributes if name == "id"}
    assert used and used <= drawn
    assert not re.search(r"https?:|url\(|@import|//", html.replace("<!doctype html>", ""))


def test_it_is_complete_and_says_whose_protocol_it_is() -> None:
    page = Page(render(result()))
    for told in result()["findings"]:
        assert told in page.text
    for heading in ("In numbers", "Coverage and Dominance", "The routers", "What it costs"):
        assert heading in page.text
    assert "this package’s own" in page.text and "reproduces" in page.text
    assert "baco eval report" in page.text and "python: 3" in page.text
    for name in (m["name"] for m in result()["methods"]):
        assert page.text.count(name) >= 5 and page.text.count(in_words(name)) >= 5


def test_what_was_found_comes_first_and_what_few_want_is_folded() -> None:
    page = Page(render(result()))
    order = (
        headline(result()),
        "What the answers look like",
        "Quality against breadth",
        "In numbers",
        "What is shown",
        "Details",
    )
    places = [page.text.index(told) for told in order]
    assert places == sorted(places)
    folded = render(result()).partition("<h2>Details</h2>")[2]
    assert folded.count("<details>") == folded.count("<summary>") >= 9
    assert not re.search("</details>.*<(table|svg)", folded.rpartition("</details>")[2])
    assert "<details" not in render(result()).partition("<h2>Details</h2>")[0]


def test_an_unfinished_run_says_so_first_and_draws_no_conclusion() -> None:
    notice = "The run is not finished: 3 of 9 answers are there."
    told = {**result(), "unfinished": notice}
    body = render(told).partition("<body>")[2]
    said = Page(body.removesuffix("</html>").rstrip().removesuffix("</body>")).text.split()
    assert " ".join(said).startswith(f"No conclusions yet. {notice}")
    assert headline(result()) not in body and "What is shown" not in body
    assert not any(each in body for each in findings(result()))
    assert findings(told) == [headline(told)] == [notice]


def test_the_page_in_the_cookbook_is_what_its_json_says() -> None:
    reports = Path(__file__).parents[2] / "cookbook" / "reports"

    def without_drawings(html: str) -> str:
        return re.sub("<svg .*?</svg>", "", html, flags=re.DOTALL)  # they vary with matplotlib

    page = (reports / "tiny.html").read_text()
    drawn = render(json.loads((reports / "tiny.json").read_text()))
    assert without_drawings(drawn) == without_drawings(page)


def test_it_can_be_read_without_seeing_it() -> None:
    page = Page(render(result()))
    attributes = [name for name, _ in page.attributes]
    assert attributes.count("scope") == page.tags.count("th") > 50
    assert attributes.count("data-label") == page.tags.count("td") > 100
    drawings = page.tags.count("svg")
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert drawings == 7 and len(labels) >= drawings
    assert any("Random switching reaches" in str(label) for label in labels)
    assert ("lang", "en") in page.attributes


def test_sources_are_marked_by_more_than_colour() -> None:
    html = render(result())
    assert re.search(r'go to <span class="base-words">[A-Z]\w+</span>\.', html)
    assert "underline" in html and "come from the base model" in html


def test_the_json_beside_it_makes_the_same_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    data = write_report(result(), page)
    assert data == tmp_path / "report.json"
    assert render(json.loads(data.read_text())) == page.read_text() == render(result())


def test_a_comparison_of_two_models_alone() -> None:
    scores = measure(
        records(["base", "aligned"], prompts=1, seeds=[0]),
        OracleSimilarity(city),
        {"task quality": OracleQuality(proper)},
    )
    told = compare(scores, Settings(resamples=10))
    assert told["routers"] is None and told["methods"][0]["cross_fit"] == [None] * 3
    assert "Fewer than two routers" in Page(render(told)).text


def test_a_page_without_matplotlib_says_what_its_figures_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(render(result()))
    assert "svg" not in page.tags and "pip install 'baco-integrations[eval]'" in page.text
    assert all(told in page.text for told in result()["findings"])


def test_examples_are_cut_between_words() -> None:
    runs = [["aligned", "one two"], ["base", f" {'three ' * 60}"]]
    pieces = list(shown_pieces("".join(text for _, text in runs), runs))
    assert pieces[0] == (False, "", "one two") and pieces[-1] == (False, " ", "…")
    assert pieces[1][:2] == (True, " ") and pieces[1][2].endswith(" three")
    assert list(shown_pieces(" all", None)) == [(False, " ", "all")]
