"""One page that shows a result: no script, nothing loaded from elsewhere, all text escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from . import html as h
from . import sections as s

Result = Mapping[str, Any]
_LONGEST = 280  # characters of an example


def write_report(result: Result, path: str | Path) -> Path:
    """Write a result as a page, and as JSON beside it.

    Args:
        result: A result of `compare`.
        path: Where the page goes, such as ``report.html``.

    Returns:
        Where the JSON went: the same path with the ending ``.json``.
    """
    page, data = Path(path), Path(path).with_suffix(".json")
    page.write_text(render(result), encoding="utf-8")
    data.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return data


def render(result: Result) -> str:
    """Return a result as a self-contained page of HTML."""
    here = files(__package__)
    about = result["about"]
    sections = (
        _findings,
        s.coverage,
        s.trade_off,
        s.valid_distinct,
        s.routers,
        s.heatmap,
        s.matrix,
        s.cost,
        _examples,
        _protocol,
    )
    return Template((here / "report.html").read_text(encoding="utf-8")).substitute(
        title=escape(about.get("title", "Breadth and quality")),
        lede=_lede(result),
        style=(here / "report.css").read_text(encoding="utf-8"),
        sections="\n".join(section(result) for section in sections),
    )


def _lede(result: Result) -> str:
    about = result["about"]
    seeds = len(about["seeds"])
    models = f" Models: {escape(', '.join(map(str, about['models'])))}." if about["models"] else ""
    doubt = "<strong>The run is not finished.</strong> " if "unfinished" in result else ""
    return doubt + (
        f"{len(result['methods'])} methods, {about['prompts']} prompts, {about['k']} answers to "
        f"each at every setting, {seeds} seed{'s' * (seeds != 1)}.{models}"
    )


def _findings(result: Result) -> str:
    told = "".join(f"<li>{escape(sentence)}</li>" for sentence in result["findings"])
    intro = "Written from the numbers below, by rule; brackets are 95 % intervals over prompts."
    return h.section("What came out", intro, f'<ul class="findings">{told}</ul>')


def _examples(result: Result) -> str:
    knobs = {method["name"]: s.knob_of(method) for method in result["methods"]}
    parts = []
    for example in result["examples"]:
        columns = []
        for shown in example["answers"]:
            sources = shown["sources"] or [None] * len(shown["answers"])
            items = "".join(
                f"<li>{_answer(answer, runs)}</li>"
                for answer, runs in zip(shown["answers"], sources, strict=False)
            )
            setting = escape(h.setting(shown, knobs[shown["method"]]))
            name = f"<h4>{escape(shown['method'])} <small>{setting}</small></h4>"
            columns.append(f"<div>{name}<ol>{items}</ol></div>")
        parts.append(
            f"<article><h3>{escape(example['prompt'])}</h3>"
            f'<div class="answers">{"".join(columns)}</div></article>'
        )
    legend = (
        '<div class="legend"><span><span class="base-words">underlined</span> words of the base '
        "model</span><span>plain words of the aligned model, or of a method that does not tell"
        "</span></div>"
    )
    return h.section(
        "Examples",
        "The first answers at each method’s setting with most valid, different answers at a valid "
        "share of .9 (or .8, or at temperature .7). Not selected by hand.",
        legend,
        *parts,
    )


def _answer(text: str, runs: Sequence[Sequence[str]] | None) -> str:
    parts, left = [], _LONGEST
    for source, piece in runs or [("", text)]:
        shown = piece if len(piece) <= left else piece[: max(left, 0)].rpartition(" ")[0]
        left -= len(piece)
        words = escape(shown.lstrip())
        if source == "base" and words:
            words = f'<span class="base-words">{words}</span>'
        parts.append(escape(shown[: len(shown) - len(shown.lstrip())]) + words)
    return "".join(parts) + (" …" if left < 0 else "")


def _protocol(result: Result) -> str:
    about, anchors = result["about"], result["anchors"]
    scales = [
        h.row(name, (h.cell(f"{low:.3f}"), h.cell(f"{high:.3f}")))
        for kind in ("diversity", "quality")
        for name, (low, high) in anchors[kind].items()
    ]
    points = "".join(f"<li>{escape(sentence)}</li>" for sentence in _definitions(result))
    run = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{_told(value)}</dd>"
        for key, value in about.items()
        if value not in (None, [], {}, "") and key != "title"
    )
    return h.section(
        "How this was measured",
        "The protocol is this package’s own; names and normalisation of the paper’s metrics are "
        "not public.",
        f'<ul class="plain">{points}</ul>',
        "<details><summary>The anchors of every scale</summary>",
        h.table("Raw values that count as 0 and as 1", h.head("Metric", "0", "1"), scales),
        "</details>",
        f"<h3>This run</h3><dl>{run}</dl>",
    )


def _definitions(result: Result) -> list[str]:
    about = result["about"]
    return [
        "Diversity, lexical: distinct-1, distinct-2, EAD, 1 - self-BLEU, 1 - mean pairwise "
        "ROUGE-L, compressed over raw size. Semantic: distinct classes and class entropy over "
        "their maxima, mean pairwise 1 - cosine, Vendi score over the number of answers, distance "
        "to the nearest neighbour.",
        f"Each diversity is scaled from 0, what {about['k']} identical answers get, to 1, what "
        f"{about['base']} gets at temperature {about['anchor_temperature']:g}; each quality from "
        f"0, the words of {about['aligned']} in random order, to 1, {about['aligned']} at that "
        "temperature. Values beyond are cut. The anchors never depend on the other methods.",
        "Coverage: the area of the union of the rectangles from 0 to diversity and from 0 to "
        "quality over a method's settings, averaged over the metrics of a family and the "
        "qualities; overall is the mean of the two families. Cross-fitted: which settings are "
        "steps is chosen on one half of the prompts, where they are is measured on the other, both "
        f"ways, over {about['splits']} splits: so having many settings earns nothing by chance.",
        "Dominance: the share of the pool's Pareto front; equal points stand together. Exclusive "
        "area: what all methods cover, less what they cover without this one.",
        f"Intervals: {about['resamples']} bootstrap resamples of the prompts, the same for all "
        "methods; answers are never resampled, anchors are held fixed. P-values: the paired "
        "difference over its bootstrap standard error, taken as normal; corrected after Holm.",
    ]


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(k))}: {escape(str(v))}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return escape(", ".join(map(str, value)))
    return f"<code>{escape(value)}</code>" if isinstance(value, str) else escape(str(value))
