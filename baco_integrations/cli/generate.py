"""`baco generate`: answers to one prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from . import options

if TYPE_CHECKING:
    from ..core.outputs import Completion, TokenStep


def generate(
    prompt: options.Prompt,
    gamma: options.Gamma = None,
    router: options.Router = None,
    n: options.Samples = 1,
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
    trace: options.Trace = False,
    as_json: options.Json = False,
) -> None:
    """Answer one prompt, once or n times.

    A single answer is shown as it is decoded. With --json, several answers
    come as a list named "completions", and --trace adds every token.
    """
    params = options.sampling(
        gamma=gamma,
        router=router,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        max_tokens=max_tokens,
        stop=stop,
        seed=seed,
        n=n,
    )
    conversation = options.messages(prompt, system)
    loaded = options.open_pair(pair, base, aligned, dtype, device, quantization, base_prompt)
    from ..decoder.decoder import Decoder
    from .display import busy, print_json

    options.known_request(loaded, conversation)
    with Decoder(loaded) as decoder:
        if n == 1 and not as_json:
            stream = decoder.stream(conversation, params)
            write(stream, trace)
            completions = stream.completions
        else:
            with busy("Decoding"):
                completions = decoder.generate(conversation, params)
    if as_json:
        plain = [completion_json(completion, trace) for completion in completions]
        print_json(plain[0] if n == 1 else {"completions": plain})
        return
    for completion in completions if n > 1 else ():
        typer.echo(f"--- {completion.sample + 1} of {n}")
        write(completion.steps, trace)
    if trace:
        tell_how(completions)


def write(steps: Iterable[TokenStep], trace: bool) -> None:
    """Write an answer, as its tokens come."""
    from rich.text import Text

    from .display import console, flow, paint

    out = console()
    flow(paint(steps, out) if trace else (Text(step.text) for step in steps), out)


def tell_how(completions: Sequence[Completion]) -> None:
    """Say beside answers how they were decoded and can be repeated, and what the marks mean."""
    from rich.text import Text

    from .display import console, legend, summary

    err = console(stderr=True)
    for completion in completions:
        err.print(Text(summary(completion), "dim"))
    err.print(legend(console()).append(f" · seed {completions[0].seed}"))


def completion_json(completion: Completion, trace: bool) -> dict[str, Any]:
    """Return an answer as plain data."""
    usage = completion.usage
    return {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "router": completion.router,
        "gamma": completion.gamma,
        "seed": completion.seed,
        "sample": completion.sample,
        "base_share": completion.base_share,
        "switches": completion.switches,
        "usage": {**usage._asdict(), "total_tokens": usage.total_tokens},
        **({"steps": list(_steps(completion.steps))} if trace else {}),
    }


def _steps(steps: Iterable[TokenStep]) -> Iterable[dict[str, Any]]:
    for step in steps:
        yield {k: v for k, v in step._asdict().items() if k not in ("sample", "alternatives")}
