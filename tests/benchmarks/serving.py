"""Many callers at once, and prompts that begin alike: what sharing one decoder brings.

Run from the repository's root:

    python tests/benchmarks/serving.py

First, 64 requests of mixed length, gamma and router are sent at the same time, each from a thread
of its own, and then one after the other: throughput, longest wait, and whether each text is the
same (float64). Then the time to the first token, with and without prefixes, of each turn of a chat
and of questions behind one document; ratios of alternating runs, medians.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.tiny.requests import requests
from tests.benchmarks.random_pairs import random_pair

ROUTERS = ("p-punc", "h-punc", "rand", "p-fc", "punc", "base", "aligned")
STDERR = Console(stderr=True)


def mixed(count: int) -> list[tuple[Any, SamplingParams]]:
    asked = requests("eval")
    filler = "I have thought about it for a while and would like to hear from you. "
    out: list[tuple[Any, SamplingParams]] = []
    for number in range(count):
        params = SamplingParams(
            router=ROUTERS[number % len(ROUTERS)],
            gamma=None if number % 7 > 3 else (number % 11) / 10,
            seed=number,
            max_tokens=(12, 40, 90, 160)[number % 4],
        )
        messages = [*asked[number % len(asked)].messages]
        messages[-1] = messages[-1] | {"content": filler * (number % 5) + messages[-1]["content"]}
        out.append((messages, params))
    return out


def concurrent(pair: ModelPair, count: int) -> None:
    asked = mixed(count)
    together: list[Any] = [None] * count
    waits = [0.0] * count
    with Decoder(pair, prefix_bytes=0) as decoder:
        decoder.generate("Hi.", max_tokens=4)
        started = time.perf_counter()

        def ask(number: int) -> None:
            messages, params = asked[number]
            with decoder.stream(messages, params) as stream:
                steps = list(stream)
                together[number] = [step[:3] for step in steps]
            waits[number] = time.perf_counter() - started

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took, metrics = time.perf_counter() - started, decoder.metrics
        tokens, wait = metrics.tokens - 4, metrics.longest_wait_s
        rows = metrics.rows_per_iteration
    with Decoder(pair, prefix_bytes=0) as decoder:
        started = time.perf_counter()
        alone = [
            [step[:3] for step in decoder.generate(*each)[0].steps]
            for each in track(asked, "one by one", console=STDERR)
        ]
        one_by_one = time.perf_counter() - started
    same = sum(one == other for one, other in zip(together, alone, strict=True))
    print(f"{count} requests, {tokens} tokens: {tokens / took:.0f} tok/s together, ", end="")
    print(f"{tokens / one_by_one:.0f} one by one: x {one_by_one / took:.2f}")
    print(
        f"rows per iteration {rows:.1f}; longest wait for a slot {wait:.2f} s of {took:.2f} s; ",
        end="",
    )
    print(
        f"last one done after {max(waits):.2f} s; {same} of {count} texts equal to their solo runs"
    )


def first_tokens(pair: ModelPair, rounds: int, words: int) -> None:
    """Time to the first token, new against known, once the prompt before it has been answered."""
    print("| prompt | tokens | new, s | known, s | ratio [quartiles] |\n|---|---|---|---|---|")
    document = " ".join(f"w{number * 7 % 40000}" for number in range(words))

    def ask(decoder: Decoder, messages: Any) -> tuple[float, str]:
        started = time.perf_counter()
        with decoder.stream(messages, max_tokens=8, seed=1) as stream:
            text = next(stream).text
            took = time.perf_counter() - started
            return took, text + "".join(step.text for step in stream)

    def chat(number: int) -> list[dict[str, str]]:
        """Nine turns, and the question of the tenth."""
        roles = ("user", "assistant") * 10
        said = [f"w{number + word}" for word in range(words // 19)]
        return [{"role": role, "content": " ".join([role, *said])} for role in roles[:-1]]

    def before_chat(number: int) -> Any:
        return chat(number)[:-2]

    def next_turn(number: int, answer: str) -> Any:
        history = chat(number)
        history[-2]["content"] = answer
        return history

    cases: dict[str, Any] = {
        "10th turn of a chat": (before_chat, next_turn),
        "another question about a document": (
            lambda number: f"{number} {document}. And w5?",
            lambda number, answer: f"{number} {document}. What about w{number}?",
        ),
    }
    for name, (before, after) in cases.items():
        times: dict[str, list[float]] = {"new": [], "known": []}
        with Decoder(pair) as decoder, Decoder(pair, prefix_bytes=0) as forgetful:
            for number in track(range(rounds + 1), name, console=STDERR):
                _, answer = ask(decoder, before(number))
                now = after(number, answer)
                for key, each in (("new", forgetful), ("known", decoder)):
                    seconds, _ = ask(each, now)
                    if number:
                        times[key].append(seconds)
            length = pair.count_tokens(now)
        ratios = [a / b for a, b in zip(times["known"], times["new"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        medians = [statistics.median(times[key]) for key in ("new", "known")]
        print(
            f"| {name} | {length} | {medians[0]:.2f} | {medians[1]:.2f} "
            f"| {middle:.2f} [{low:.2f}, {high:.2f}] |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    concurrent(ModelPair.tiny(dtype="float64"), chosen.requests)
    first_tokens(random_pair(), chosen.rounds, chosen.words)


if __name__ == "__main__":
    main()
