"""`baco generate`: answers to one prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from . import options

if TYPE_CHECKING:
    from ..core.outputs import Completion, TokenStep


@options.takes(*options.SAMPLING, "stop", options.SYSTEM, *options.PAIR, n=1)
def generate(
    prompt: options.Prompt,
    trace: options.Trace = False,
    as_json: options.Json = False,
    **given: Any,
) -> None:
    """Answer one prompt, once or n times.

    A single answer is shown as it is decoded. With --json, several answers
    come as a list named "completions", and --trace adds every token.
    """
    params = options.sampling(given)
    conversation = options.messages(prompt, given["system"])
    pair = options.open_pair(given)
    from ..decoder.decoder import Decoder
    from .display import busy, print_json

    options.known_request(pair, conversation)
    with Decoder(pair) as decoder:
        if params.n == 1 and not as_json:
            stream = decoder.stream(conversation, params)
            write(stream, trace)
            completions = stream.completions
        else:
            with busy("Decoding"):
                completions = decoder.generate(conversation, params)
    if as_json:
        plain = [completion_json(completion, trace) for completion in completions]
        print_json(plain[0] if params.n == 1 else {"completions": plain})
        return
    for completion in completions if params.n > 1 else ():
        typer.echo(f"--- {completion.sample + 1} of {params.n}")
        write(completion.steps, trace)
    if trace:
        print_provenance(completions)


def write(steps: Iterable[TokenStep], trace: bool) -> None:
    """Write an answer, as its tokens come."""
    from rich.text import Text

    from .display import console, flow, paint

    out = console()
    flow(paint(steps, out) if trace else (Text(step.text) for step in steps), out)


def print_provenance(completions: Sequence[Completion]) -> None:
    """Say on stderr how answers were decoded and can be repeated, and what the marks mean."""
    from rich.text import Text

    from .display import console, legend, summary

    err = console(stderr=True)
    for completion in completions:
        err.print(Text(summary(completion), "dim"))
    err.print(legend(console()).append(f" · seed {completions[0].seed}"))


def completion_json(completion: Completion, trace: bool) -> dict[str, Any]:
    """Return an answer as plain data, with its tokens if they are to be traced."""
    plain: dict[str, Any] = {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "router": completion.router,
        "gamma": completion.gamma,
        "seed": completion.seed,
        "sample": completion.sample,
        "base_share": completion.base_share,
        "switches": completion.switches,
        "usage": {**completion.usage._asdict(), "total_tokens": completion.usage.total_tokens},
    }
    if trace:
        hidden = ("sample", "alternatives")
        steps = (step._asdict().items() for step in completion.steps)
        # What is not known is not a number, and so no JSON.
        plain["steps"] = [{k: v for k, v in step if k not in hidden and v == v} for step in steps]
    return plain
