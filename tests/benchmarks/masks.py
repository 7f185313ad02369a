"""What the choice of a grammar engine rests on: the time that masks take over a large vocabulary.

Run from the repository's root, with whichever of the three engines is installed:

    pip install llguidance xgrammar outlines-core
    python tests/benchmarks/masks.py

The vocabulary is made up, of about the size and make of a current model's, the documents follow one
schema, and every mask is checked to allow the token that comes next. A step is one mask and one
token taken. The first document is left out of the steps, as some engines fill their caches in it.
Besides speed: llguidance's wheel has 3.1 MB and no dependencies, xgrammar's 1.3 MB and on Linux
x86_64 triton's 286 MB, that of outlines-core 2.3 MB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from queue import Empty
from typing import Any, NamedTuple

import numpy as np

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "idea": {"type": "string"},
        "kind": {"enum": ["red", "green", "blue"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 40}, "maxItems": 5},
        "who": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name", "age"],
            "additionalProperties": False,
        },
    },
    "required": ["idea", "kind", "tags", "who"],
    "additionalProperties": False,
}
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


# -- a vocabulary and documents --------------------------------------------------------------------


class Vocabulary:
    """Tokens, the id behind them that ends a text, and a tokenizer by longest match."""

    def __init__(self, size: int, rng: random.Random) -> None:
        tokens = dict.fromkeys(bytes([byte]) for byte in range(256))
        marks = ['"', ",", ":", "{", "}", "[", "]", ".", "!", "?"]
        behind = [*marks[:7], " ", "\n", ", ", '": ', '": "', '", "', '"},', '"}']
        for pair in (mark + more for mark in marks for more in behind):
            tokens |= {pair.encode(): None, f" {pair}".encode(): None}
        tokens |= dict.fromkeys(str(number).encode() for number in range(1000))
        while len(tokens) < 0.92 * size:
            new = word(rng)
            tokens |= dict.fromkeys(t.encode() for t in (new, f" {new}", f" {new.capitalize()}"))
        while len(tokens) < size - 1:
            tokens[other_script(rng).encode()] = None
        self.tokens, self.end = list(tokens), len(tokens)
        self.ids = {data: token for token, data in enumerate(self.tokens)}
        self.longest = max(map(len, self.tokens))

    def __len__(self) -> int:
        return len(self.tokens) + 1

    def encode(self, text: str | bytes) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        found, start = [], 0
        while start < len(data):
            lengths = range(self.longest, 0, -1)
            piece = next(p for n in lengths if (p := data[start : start + n]) in self.ids)
            found.append(self.ids[piece])
            start += len(piece)
        return found


def word(rng: random.Random) -> str:
    consonants, vowels = "bcdfghjklmnprstvw", "aeiou"
    return "".join(
        rng.choice(consonants)
        + rng.choice(vowels)
        + (rng.choice(consonants) if rng.random() < 0.4 else "")
        for _ in range(rng.randint(1, 4))
    )


def other_script(rng: random.Random) -> str:
    ranges = ((0x4E00, 0x9FFF), (0x400, 0x4FF))
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 3)))


def document(rng: random.Random) -> str:
    def words(count: int) -> str:
        return " ".join(word(rng) for _ in range(count))

    return json.dumps(
        {
            "idea": words(15),
            "kind": rng.choice(["red", "green", "blue"]),
            "tags": [words(3) for _ in range(3)],
            "who": {"name": words(2), "age": rng.randint(1, 99)},
        }
    )


# -- the engines -----------------------------------------------------------------------------------

# An engine yields three times: when it is imported, when it has read the vocabulary, and when it
# has compiled the schema, then with a function that begins a text. That returns one which fills a
# mask and one which takes a token.
Text = tuple[Callable[[], None], Callable[[int], bool]]
Engine = Iterator[Callable[[], Text] | None]


def llguidance(vocabulary: Vocabulary, mask: np.ndarray) -> Engine:
    from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

    yield None

    class Tokens:
        eos_token_id, bos_token_id = vocabulary.end, None
        tokens = [*vocabulary.tokens, b"\xff<end>"]
        special_token_ids = [vocabulary.end]

        def __call__(self, text: str | bytes) -> list[int]:
            return vocabulary.encode(text)

    tokenizer = LLTokenizer(TokenizerWrapper(Tokens()), eos_token=vocabulary.end)
    yield None
    grammar = LLMatcher.grammar_from_json_schema(SCHEMA, overrides=SPACING)
    compiled = LLMatcher(tokenizer, grammar, log_level=0)
    if compiled.is_error():
        raise ValueError(compiled.get_error())

    def begin() -> Text:
        matcher = compiled.deep_copy()
        where, size = mask.ctypes.data, mask.nbytes
        return lambda: matcher.unsafe_compute_mask_ptr(where, size), matcher.consume_token

    yield begin


def xgrammar(vocabulary: Vocabulary, mask: np.ndarray) -> Engine:
    import torch
    import xgrammar

    yield None
    tokens = xgrammar.TokenizerInfo(
        [*vocabulary.tokens, b"</s>"],
        vocab_type=xgrammar.VocabType.RAW,
        vocab_size=len(vocabulary),
        stop_token_ids=[vocabulary.end],
    )
    yield None
    compiler = xgrammar.GrammarCompiler(tokens, max_threads=1)
    compiled = compiler.compile_json_schema(json.dumps(SCHEMA), any_whitespace=False)
    bits = torch.from_numpy(mask[None])

    def begin() -> Text:
        matcher = xgrammar.GrammarMatcher(compiled)
        return lambda: matcher.fill_next_token_bitmask(bits, 0), matcher.accept_token

    yield begin


def outlines_core(vocabulary: Vocabulary, mask: np.ndarray) -> Engine:
    import outlines_core
    from outlines_core.json_schema import build_regex_from_schema

    yield None
    tokens = outlines_core.Vocabulary(
        vocabulary.end, {data: [token] for data, token in vocabulary.ids.items()}
    )
    yield None
    index = outlines_core.Index(build_regex_from_schema(json.dumps(SCHEMA)), tokens)

    def begin() -> Text:
        matcher = outlines_core.GrammarMatcher(index)

        def fill() -> None:
            # What its kernels do; they need numba, or torch with a compiler, to apply the mask.
            matcher.write_mask_into(mask.ctypes.data, mask.size, mask.itemsize)

        def take(token: int) -> bool:
            matcher.advance(token, return_tokens=False)
            return True

        return fill, take

    yield begin


ENGINES = {"llguidance": llguidance, "xgrammar": xgrammar, "outlines-core": outlines_core}


# -- measuring -------------------------------------------------------------------------------------


class Times(NamedTuple):
    """Seconds; the steps are those of all documents but the first."""

    build: float
    compile: float
    first: list[float]
    steps: list[float]


def measure(name: str, size: int, count: int) -> Times:
    rng = random.Random(0)
    vocabulary = Vocabulary(size, rng)
    documents = [vocabulary.encode(document(rng)) for _ in range(count)]
    mask = np.zeros((len(vocabulary) + 31) // 32, dtype=np.int32)
    engine = ENGINES[name](vocabulary, mask)
    next(engine)
    started = time.perf_counter()
    next(engine)
    built = time.perf_counter()
    begin = next(engine)
    compiled = time.perf_counter()
    assert begin is not None
    first, *others = (timed(begin(), mask, tokens) for tokens in documents)
    return Times(built - started, compiled - built, first, sum(others, []))


def timed(text: Text, mask: np.ndarray, tokens: list[int]) -> list[float]:
    fill, take = text
    steps = []
    for token in tokens:
        started = time.perf_counter()
        fill()
        filled = time.perf_counter()
        if not mask[token // 32] >> (token % 32) & 1:
            raise ValueError(f"the mask refuses token {token}")
        again = time.perf_counter()
        taken = take(token)
        steps.append(time.perf_counter() - again + filled - started)
        if not taken:
            raise ValueError(f"token {token} was not taken")
    return steps


def worker(results: Any, *args: Any) -> None:
    try:
        results.put(measure(*args))
    except ImportError as error:
        results.put(f"not installed: {error}")
    except BaseException as error:
        results.put(f"{type(error).__name__}: {error}")


def within(seconds: float, *args: Any) -> Times | str:
    """Measure an engine in a process of its own, and say so where it takes too long."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=worker, args=(results, *args))
    process.start()
    try:
        return results.get(timeout=seconds)
    except Empty:
        return f"not finished after {seconds:.0f} s"
    finally:
        process.kill()
        process.join()


def line(name: str, times: Times | str) -> str:
    if isinstance(times, str):
        return f"| {name} | {times} | | | | | |"
    steps = np.array(times.steps) * 1e6
    cells = (
        f"{name} {version(name)}",
        f"{times.build * 1e3:.0f}",
        f"{times.compile * 1e3:.1f}",
        f"{statistics.mean(times.first) * 1e6:.0f}",
        f"{np.median(steps):.0f}",
        f"{steps.mean():.0f}",
        f"{np.percentile(steps, 99):.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--size", type=int, default=151_936, help="tokens of the vocabulary")
    parser.add_argument("--documents", type=int, default=30)
    parser.add_argument("--limit", type=float, default=120, help="seconds for each engine")
    chosen = parser.parse_args()
    headings = (
        "engine",
        "tokenizer, ms",
        "compile, ms",
        "first text, us",
        "median, us",
        "mean, us",
    )
    print("| " + " | ".join((*headings, "p99, us")) + " |")
    print("|---|---|---|---|---|---|---|")
    for name in chosen.engines:
        print(line(name, within(chosen.limit, name, chosen.size, chosen.documents)), flush=True)


if __name__ == "__main__":
    main()
