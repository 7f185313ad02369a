"""`baco compare`: base, aligned and BACo side by side."""

from __future__ import annotations

import secrets
from statistics import fmean
from typing import TYPE_CHECKING, Any

from . import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..core.messages import Messages
    from ..core.outputs import Completion
    from ..core.params import SamplingParams
    from ..decoder.decoder import Decoder
    from ..tiny.oracle import Verdict
    from ..tiny.world import Request
    from .display import Column


def compare(
    prompt: options.Prompt,
    gamma: options.Gammas = None,
    router: options.Router = None,
    samples: options.Samples = 5,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    max_tokens: options.MaxTokens = None,
    stop: options.Stop = None,
    seed: options.Seed = None,
    system: options.System = None,
    pair: options.Pair = None,
    base: options.Base = None,
    aligned: options.Aligned = None,
    base_prompt: options.BasePrompt = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    quantization: options.Quantization = None,
    as_json: options.Json = False,
) -> None:
    """Show what base, aligned and BACo answer to one prompt, side by side.

    Each gamma gets a column of its own. All columns use the same seed.
    Where the tiny pair knows the request, its exact judge marks the answers.
    """
    ways = side_by_side(
        gamma or [None],
        router=router,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        max_tokens=max_tokens,
        stop=stop,
        seed=secrets.randbits(32) if seed is None else seed,
        n=samples,
    )
    conversation = options.messages(prompt, system)
    loaded = options.open_pair(pair, base, aligned, dtype, device, quantization, base_prompt)
    from ..decoder.decoder import Decoder
    from .display import busy, console, legend, print_columns, print_json

    request = options.known_request(loaded, conversation)
    with Decoder(loaded) as decoder, busy(f"Decoding {len(ways)} × {samples} answers"):
        answers = answer_all(decoder, conversation, ways)
    verdicts = judge_all(request, answers) if request else None
    if as_json:
        prompt = conversation[-1]["content"]
        print_json({"prompt": prompt, "columns": _plain(answers, verdicts)})
        return
    out = console()
    print_columns(columns(answers, verdicts, out), out)
    out.print(legend(out))
    out.print(f"seed {answers[0][0].seed}", style="dim")


def side_by_side(gammas: Sequence[float | None], **settings: Any) -> list[SamplingParams]:
    """Return the ways of decoding to compare: each side alone, then the pair at each gamma."""
    routed = [
        options.sampling(**settings, gamma=gamma, noting=gamma is gammas[0]) for gamma in gammas
    ]
    alone = [
        options.sampling(**(settings | {"router": side}), noting=False)
        for side in ("base", "aligned")
    ]
    return alone + routed


def answer_all(
    decoder: Decoder, conversation: Messages, ways: Sequence[SamplingParams]
) -> list[list[Completion]]:
    """Answer a conversation in every way, all in one batch."""
    return decoder.generate_batch([conversation] * len(ways), ways)


def judge_all(request: Request, answers: Sequence[Sequence[Completion]]) -> list[list[Verdict]]:
    """Judge all answers to a request that the tiny pair knows."""
    from ..tiny.oracle import judge

    return [[judge(request, sample.text) for sample in way] for way in answers]


def valid_distinct(verdicts: Sequence[Verdict]) -> int:
    """Count the different things that valid answers name."""
    return len({verdict.content for verdict in verdicts if verdict.valid})


def columns(
    answers: Sequence[Sequence[Completion]],
    verdicts: Sequence[Sequence[Verdict]] | None,
    out: Console,
) -> list[Column]:
    """Return a column for each way of decoding, with the judge's marks where there is a judge."""
    from .display import Column, column_title, painted

    good, bad = ("+", "-") if out.options.ascii_only else ("[green]✓", "[red]✗")
    found = []
    for place, samples in enumerate(answers):
        judged = verdicts[place] if verdicts else []
        marks = [good if one.valid else bad for one in judged] or ["•"] * len(samples)
        footer = f"{_distinct(samples)}/{len(samples)} distinct, {_base_share(samples):.0%} base"
        if judged:
            valid = sum(one.valid for one in judged)
            footer = f"{valid}/{len(samples)} valid, {valid_distinct(judged)} distinct"
        texts = [painted(sample, out) for sample in samples]
        found.append(Column(column_title(samples[0]), list(zip(marks, texts, strict=True)), footer))
    return found


def _distinct(samples: Sequence[Completion]) -> int:
    """Count different texts; white space makes no difference."""
    return len({" ".join(sample.text.split()) for sample in samples})


def _base_share(samples: Sequence[Completion]) -> float:
    return fmean(sample.base_share for sample in samples)


def _plain(
    answers: Sequence[Sequence[Completion]], verdicts: Sequence[Sequence[Verdict]] | None
) -> list[dict[str, Any]]:
    from .generate import completion_json

    told = []
    for place, samples in enumerate(answers):
        column: dict[str, Any] = {
            "router": samples[0].router,
            "gamma": samples[0].gamma,
            "distinct": _distinct(samples),
            "base_share": _base_share(samples),
            "completions": [completion_json(sample, trace=False) for sample in samples],
        }
        if verdicts:
            judged = verdicts[place]
            column["valid"] = sum(one.valid for one in judged)
            column["valid_distinct"] = valid_distinct(judged)
            for answer, one in zip(column["completions"], judged, strict=True):
                answer["verdict"] = one.reason
        told.append(column)
    return told
