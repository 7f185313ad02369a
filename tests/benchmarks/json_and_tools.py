"""JSON answers and tool use of the embedded pair.

Run from the repository's root:

    python tests/benchmarks/json_and_tools.py

The decoder is given the schema of each answer, or the tools, as anyone would give them: so the
form always holds, and what is judged is what stands in it. *right* is a call of a tool that fits,
with the request copied word by word; a result read out; or an answer where no tool is of use.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict

import numpy as np
from rich.console import Console
from rich.table import Table

from baco_integrations import Completion, Decoder, ModelPair, SamplingParams
from baco_integrations.core.params import DEFAULT_GAMMA, DEFAULT_TEMPERATURE
from cookbook.tiny_pair.judges import judge_json, judge_tool_use
from cookbook.tiny_pair.schemas import schema_of
from cookbook.tiny_pair.tools import call_text
from cookbook.tiny_pair.world import (
    JsonRequest,
    ToolRequest,
    json_requests,
    tool_requests,
    without_schema,
)

Scores = dict[str, float]


def json_scores(decoder: Decoder, asked: list[JsonRequest], params: SamplingParams) -> Scores:
    answers = decoder.generate_batch(
        [without_schema(request.messages) for request in asked],
        [
            params.replace(json_schema=schema_of(request.fields), seed=len(asked) * params.seed + i)
            for i, request in enumerate(asked)
        ],
    )
    verdicts = [
        [judge_json(request, completion.text) for completion in completions]
        for request, completions in zip(asked, answers, strict=True)
    ]
    distinct = [len({verdict.content for verdict in each} - {None}) for each in verdicts]
    return {
        "JSON: every value valid": float(np.mean([v.valid for each in verdicts for v in each])),
        "JSON: distinct valid contents of 10": float(np.mean(distinct)),
    }


def tool_scores(decoder: Decoder, asked: list[ToolRequest], params: SamplingParams) -> Scores:
    answers = decoder.generate_batch(
        [request.messages for request in asked],
        [
            params.replace(
                tools=tuple(tool.schema() for tool in request.tools),
                seed=len(asked) * params.seed + i,
            )
            for i, request in enumerate(asked)
        ],
    )
    found = defaultdict(list)
    for request, completions in zip(asked, answers, strict=True):
        purpose = request.id.split("-")[1]
        for completion in completions:
            found[purpose, "called"].append(bool(completion.tool_calls))
            found[purpose, "right"].append(judge_tool_use(request, written(completion)).valid)
    return {f"tools, {p}: {what}": float(np.mean(each)) for (p, what), each in found.items()}


def written(completion: Completion) -> str:
    """An answer as the models write it, calls and all."""
    calls = (
        {"function": {"name": call.name, "arguments": json.loads(call.arguments)}}
        for call in completion.tool_calls
    )
    return "\n".join([completion.text, *map(call_text, calls)]).strip()


def evaluate(decoder: Decoder, params: SamplingParams, split: str, seeds: int) -> Scores:
    """All scores at one setting; over requests of several seeds, as one makes few."""
    tools = [request for seed in range(seeds) for request in tool_requests(split, seed)]
    asked = [request for seed in range(seeds) for request in json_requests(split, seed)]
    few = params.replace(n=2)
    return {**json_scores(decoder, asked, params), **tool_scores(decoder, tools, few)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gammas", nargs="+", type=float, default=[0.0, DEFAULT_GAMMA])
    parser.add_argument("--temperature", type=float, default=DEFAULT_TEMPERATURE)
    parser.add_argument("--split", default="eval", help="eval: wordings not trained on; or train")
    parser.add_argument("--seeds", type=int, default=2, help="sets of requests")
    chosen = parser.parse_args()
    params = SamplingParams(temperature=chosen.temperature, n=10, seed=0, max_tokens=200)
    started = time.perf_counter()
    with Decoder(ModelPair.tiny(), max_rows=64) as decoder:
        rows = {
            gamma: evaluate(decoder, params.replace(gamma=gamma), chosen.split, chosen.seeds)
            for gamma in chosen.gammas
        }
    table = Table(*("", *(f"gamma {gamma:g}" for gamma in rows)))
    for name in next(iter(rows.values())):
        table.add_row(name, *(f"{row[name]:.2f}" for row in rows.values()))
    console = Console()
    console.print(table)
    console.print(f"temperature {chosen.temperature}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
