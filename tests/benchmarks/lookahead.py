"""What lookahead saves: forwards and time per token, and whether it changes anything.

Run from the repository's root:

    python tests/benchmarks/lookahead.py

The embedded pair is too small for a forward to cost more than the step, so its models are made as
heavy as wanted: their layers are widened by zeros, which changes no logit but has to be read. Each
prompt is answered in lockstep and with lookahead, one after the other and at batch 1; ratios are
medians over the prompts, forwards are counted by the decoder. Then answers of the embedded pair in
float64, in a batch with mixed settings, are compared token by token.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from baco_integrations import Completion, Decoder, ModelPair, SamplingParams
from baco_integrations.tiny.requests import Request, requests
from tests.benchmarks.random_pairs import widened_pair

ROUTERS = ("p-punc", "h-punc", "p-fc", "p", "rand")
STDERR = Console(stderr=True)


def timed(decoder: Decoder, request: Request, params: SamplingParams) -> tuple[float, Completion]:
    started = time.perf_counter()
    (completion,) = decoder.generate(request.messages, params)
    return time.perf_counter() - started, completion


def speed(width: int, gammas: list[float], asked: list[Request]) -> list[str]:
    """Lines of a table: forwards per token, drafted that were right, and the gain, by gamma."""
    pair, lines = widened_pair(width), []
    for gamma in gammas:
        with Decoder(pair, lookahead="off") as lockstep, Decoder(pair) as ahead:
            gains, tokens, same = [], 0, True
            for number, request in enumerate(track(asked, f"gamma {gamma:g}", console=STDERR)):
                params = SamplingParams(gamma=gamma, seed=number, max_tokens=80)
                order = (lockstep, ahead) if number % 2 else (ahead, lockstep)
                runs = {each: timed(each, request, params) for each in order}
                gains.append(runs[lockstep][0] / runs[ahead][0])
                tokens += len(runs[ahead][1].steps)
                same &= runs[lockstep][1].text == runs[ahead][1].text
            metrics = ahead.metrics
        low, middle, high = np.percentile(gains[2:], [25, 50, 75])
        cells = (
            f"{gamma:g}",
            f"{metrics.forwards / metrics.tokens:.2f}",
            f"{metrics.accepted / max(metrics.drafted, 1):.2f}",
            f"{middle:.2f} [{low:.2f}, {high:.2f}]",
            "yes" if same else "NO",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def compared(count: int, asked: list[Request]) -> str:
    """Decode the same with and without lookahead until so many tokens agree."""
    pair = ModelPair.tiny(dtype="float64")
    agreed = seed = 0
    with Decoder(pair, lookahead="off") as lockstep, Decoder(pair) as ahead:
        while agreed < count:
            params = [
                SamplingParams(
                    router=ROUTERS[(seed + place) % len(ROUTERS)],
                    gamma=(seed + 3 * place) % 11 / 10,
                    temperature=(0.7, 1.0, 0.0)[(seed + place) % 3],
                    seed=seed,
                    n=4,
                    max_tokens=120,
                )
                for place in range(len(asked))
            ]
            both = [
                decoder.generate_batch([request.messages for request in asked], params)
                for decoder in (lockstep, ahead)
            ]
            for one, other in zip(*both, strict=True):
                for left, right in zip(one, other, strict=True):
                    tokens = [[(s.token_id, s.source) for s in c.steps] for c in (left, right)]
                    if tokens[0] != tokens[1]:
                        return (
                            f"after {agreed} equal tokens, NOT equal: {left.text!r} {right.text!r}"
                        )
                    agreed += len(tokens[0])
            seed += 1
            STDERR.print(f"{agreed} tokens are equal")
        metrics = ahead.metrics
    share = metrics.accepted / metrics.drafted
    return (
        f"{agreed} tokens compared, all equal; {metrics.drafted} drafted, {share:.2f} of them right"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=8192, help="hidden units of each layer")
    parser.add_argument("--gammas", nargs="+", type=float, default=[0.0, 0.3, 0.6, 0.9])
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--compare", type=int, default=200_000, help="tokens to compare; 0: none")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    asked = requests("eval")
    print("| gamma | forwards per token | drafted right | times as fast as lockstep | same text |")
    print("|---|---|---|---|---|")
    for line in speed(chosen.width, chosen.gammas, asked[: chosen.requests]):
        print(line, flush=True)
    if chosen.compare:
        print(f"\n{compared(chosen.compare, asked)}")


if __name__ == "__main__":
    main()
