"""Validity and breadth of JSON under five schemas on the embedded pair, and what the masks cost.

Run from the repository's root:

    python tests/benchmarks/structured.py --out structured.json

Every text is read with `json.loads` and checked with the validator `jsonschema`, which has nothing
to do with the grammar engine. Both gammas are asked the same requests with the same seeds. Decoding
is in lockstep, so that a step is a token of every row. The cost of a mask is the time in
`TextMatcher.allow` and `TextMatcher.accept`, on the worker thread that decodes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from rich.console import Console
from rich.progress import Progress

from baco_integrations import Completion, Decoder, ModelPair, SamplingParams
from baco_integrations.text.matcher import JsonPosition, TextMatcher
from baco_integrations.tiny.requests import Request, requests

TOGETHER = 4
"""Requests that are decoded in one call; the progress bar moves once per call."""


def text(length: int, **others: Any) -> dict[str, Any]:
    return {"type": "string", "maxLength": length, **others}


def record(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names}


# Each with the main string: the one whose values are counted. Lengths are bounded for what the pair
# has never seen, such as keys in other scripts: there it may not find the end of a string.
SCHEMAS: dict[str, tuple[dict[str, Any], Callable[[Any], str]]] = {
    "nested object": (
        record(
            idea=text(40),
            details=record(
                mood=text(40),
                stars={"type": "integer", "minimum": 1, "maximum": 5},
            ),
        ),
        lambda value: value["idea"],
    ),
    "enum": (
        record(
            idea=text(40),
            season={"enum": ["spring", "summer", "autumn", "winter"]},
            indoors={"type": "boolean"},
        ),
        lambda value: value["idea"],
    ),
    "array": (
        record(ideas={"type": "array", "items": text(40), "minItems": 1, "maxItems": 3}),
        lambda value: value["ideas"][0],
    ),
    "optional properties": (
        record(
            ["idea"],
            idea=text(40),
            reason=text(40),
            price={"type": "integer", "minimum": 0, "maximum": 99},
            tags={"type": "array", "items": {"enum": ["new", "old", "odd"]}, "maxItems": 2},
        ),
        lambda value: value["idea"],
    ),
    "unicode": (
        record(
            **{
                "идея": text(40, description="Ein Vorschlag, höchstens 40 Zeichen – bitte nett 🙂"),
                "größe": {"enum": ["klein", "mittel", "groß"], "description": "wie groß"},
                "いつ": {"enum": ["今日", "明日", "来年 🎉"]},
            }
        ),
        lambda value: value["идея"],
    ),
}


class Clock:
    """Seconds spent in some functions, and how often they were called."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def timed(self, function: Callable[..., Any], counts: bool) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds += time.perf_counter() - started
                self.calls += counts

        return wrapper


@contextmanager
def watched() -> Iterator[Clock]:
    """Time the matchers while the block runs."""
    clock, allow, accept = Clock(), TextMatcher.allow, TextMatcher.accept
    TextMatcher.allow, TextMatcher.accept = (
        clock.timed(allow, True),
        clock.timed(accept, False),
    )  # type: ignore[method-assign]
    try:
        yield clock
    finally:
        TextMatcher.allow, TextMatcher.accept = allow, accept  # type: ignore[method-assign]


def shares(count: int, places: int) -> list[int]:
    """Split a count as evenly as possible."""
    return [count // places + (place < count % places) for place in range(places)]


def decode(
    decoder: Decoder,
    asked: list[Request],
    params: SamplingParams,
    chosen: argparse.Namespace,
    moved: Callable[[int], None],
) -> list[Completion]:
    split = shares(chosen.count, len(asked))
    each = (
        (request, params.replace(n=n, seed=len(asked) * chosen.seed + place))
        for place, (request, n) in enumerate(zip(asked, split, strict=True))
        if n
    )
    found: list[Completion] = []
    while some := list(islice(each, TOGETHER)):
        answers = decoder.generate_batch(
            [request.messages for request, _ in some], [p for _, p in some]
        )
        found += (completion for got in answers for completion in got)
        moved(sum(p.n for _, p in some))
    return found


def base_share(decoder: Decoder, completions: list[Completion]) -> float:
    """Share of the tokens that base gave among those that begin inside the value of a string."""
    inside = given = 0
    for completion in completions:
        place = JsonPosition(0)
        for step in completion.steps:
            if not place.structure:
                inside += 1
                given += step.source == "base"
            place.push(decoder.pair.vocabulary.token_bytes[step.token_id])
    return given / max(inside, 1)


def evaluate(
    decoder: Decoder,
    name: str,
    gamma: float,
    chosen: argparse.Namespace,
    asked: list[Request],
    moved: Callable[[int], None],
) -> dict[str, Any]:
    schema, main_string = SCHEMAS[name]
    params = SamplingParams(
        json_schema=schema, show_schema=not chosen.hide_schema, gamma=gamma, max_tokens=512
    )
    steps, started = decoder.metrics.iterations, time.perf_counter()
    with watched() as clock:
        completions = decode(decoder, asked, params, chosen, moved)
    seconds, steps = time.perf_counter() - started, decoder.metrics.iterations - steps
    validator = Draft202012Validator(schema)
    valid, wrong = [], []
    for completion in completions:
        try:
            value = json.loads(completion.text)
            validator.validate(value)
            valid.append(value)
        except Exception as error:
            wrong.append(f"{completion.finish_reason}: {completion.text!r}: {error!s:.100}")
    tokens = sum(len(completion.steps) for completion in completions)
    return {
        "schema": name,
        "gamma": gamma,
        "count": len(completions),
        "valid": len(valid),
        "wrong": wrong[:5],
        "steps": steps,
        "distinct": len({json.dumps(value, sort_keys=True) for value in valid}),
        "distinct_main": len({main_string(value) for value in valid}),
        "base_share": base_share(decoder, completions),
        "tokens": tokens / max(len(completions), 1),
        "mask_us": 1e6 * clock.seconds / max(clock.calls, 1),
        "mask_step_us": 1e6 * clock.seconds / max(steps, 1),
        "mask_share": clock.seconds / seconds,
        "seconds": seconds,
        "examples": [completion.text for completion in completions[:: max(chosen.count // 5, 1)]],
    }


def table(rows: list[dict[str, Any]], gamma: float) -> str:
    """Write the results as markdown, a line per schema."""
    headings = (
        "schema",
        f"valid, gamma {gamma:g}",
        "valid, gamma 0",
        f"distinct objects, gamma {gamma:g}",
        "distinct objects, gamma 0",
        f"distinct main strings, gamma {gamma:g}",
        "distinct main strings, gamma 0",
        "base share in strings",
        "mask per row, us",
        "masks per step, us",
        "share of the step",
    )
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for name in SCHEMAS:
        varied, plain = (
            [r for r in rows if r["schema"] == name and r["gamma"] == g] for g in (gamma, 0)
        )
        one, other = varied[0], plain[0]
        cells = (
            name,
            f"{one['valid']} of {one['count']}",
            f"{other['valid']} of {other['count']}",
            one["distinct"],
            other["distinct"],
            one["distinct_main"],
            other["distinct_main"],
            f"{one['base_share']:.2f}",
            f"{one['mask_us']:.1f}",
            f"{one['mask_step_us']:.0f}",
            f"{one['mask_share']:.1%}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="generations per schema and gamma")
    parser.add_argument("--gamma", type=float, default=0.9)
    parser.add_argument("--hide-schema", action="store_true", help="keep it out of the prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write all results as JSON")
    chosen = parser.parse_args()
    asked = [each for each in requests("eval") if each.form == "plain" and each.system is None]
    rows = []
    progress = Progress(console=Console(stderr=True))
    with progress, Decoder(ModelPair.tiny(), max_rows=32, lookahead="off") as decoder:
        for name in SCHEMAS:
            for gamma in (chosen.gamma, 0.0):
                task = progress.add_task(f"{name}, gamma {gamma:g}", total=chosen.count)
                rows.append(
                    evaluate(
                        decoder,
                        name,
                        gamma,
                        chosen,
                        asked,
                        lambda n, t=task: progress.advance(t, n),
                    )
                )
                if chosen.out:
                    chosen.out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    print(table(rows, chosen.gamma))
    print()
    count, steps, seconds = (sum(row[key] for row in rows) for key in ("count", "steps", "seconds"))
    tokens = sum(row["tokens"] * row["count"] for row in rows)
    print(
        f"{len(asked)} requests, schema {'not shown' if chosen.hide_schema else 'shown'}; a step "
        f"takes {1e3 * seconds / steps:.1f} ms with {tokens / steps:.1f} rows; "
        f"{tokens / count:.0f} tokens a text; {seconds:.0f} s"
    )
    for row in rows:
        for wrong in row["wrong"]:
            print(f"{row['schema']}, gamma {row['gamma']:g}: {wrong}")


if __name__ == "__main__":
    main()
