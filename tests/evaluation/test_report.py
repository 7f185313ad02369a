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
from baco_integrations.evaluation.report import (
    best,
    decimal,
    p_value,
    render,
    shown_pieces,
    write_report,
)
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
    for heading in (
        "Coverage and Dominance",
        "The routers",
        "Valid and different",
        "What it costs",
    ):
        assert heading in page.text
    assert "this package’s own protocol" in page.text and "reproduces" in page.text
    assert "baco eval report" in page.text and "python: 3" in page.text
    for name in (m["name"] for m in result()["methods"]):
        assert page.text.count(name) >= 5


def test_it_can_be_read_without_seeing_it() -> None:
    page = Page(render(result()))
    attributes = [name for name, _ in page.attributes]
    assert attributes.count("scope") == page.tags.count("th") > 50
    drawings = page.tags.count("svg")
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert drawings == 7 and len(labels) >= drawings
    assert any("rand reaches" in str(label) for label in labels)
    assert ("lang", "en") in page.attributes


def test_sources_are_marked_by_more_than_colour() -> None:
    html = render(result())
    assert re.search(r'go to <span class="base-words">[A-Z]\w+</span>\.', html)
    assert "underline" in html and "words of the base" in html


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


def test_text_stands_out_in_light_and_dark() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    themes = re.findall(r":root \{(.*?)\}", render(result()), re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = {
            name: luminance(value) for name, value in re.findall(r"--([\w-]+): (#\w+)", theme)
        }
        for ground in ("page", "raised"):
            for text in ("ink", "muted", "base", "aligned", "router", "control", "baseline"):
                low, high = sorted((colours[ground], colours[text]))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ground, text)


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


def test_numbers_and_the_best_of_a_column() -> None:
    assert (decimal(-0.126), decimal(2, 0)) == ("−0.13", "2")
    assert (p_value(0.0121), p_value(1e-5), p_value(1)) == (".012", "< .001", "1.000")
    methods = [{"at": {"0.9": None}}, {"at": {"0.9": [2.346]}}]
    assert best(methods, "at", "0.9", 0) == 2.35 and best(methods[:1], "at", "0.9", 0) == 0
