"""Faults put in on purpose: who is harmed, what is told, and that all others never notice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch

from baco_integrations import Completion, Decoder, SamplingParams, ScriptedPair
from baco_integrations.core.errors import (
    DeadlineError,
    DecoderClosedError,
    DecoderError,
    OutOfMemoryError,
    StreamOverrunError,
    WorkerError,
)
from baco_integrations.decoder import output
from baco_integrations.decoder import stream as streams
from baco_integrations.decoder.output import SampleOutput
from baco_integrations.decoder.request import Renderer
from baco_integrations.engines.base import EngineRequest, EngineSettings
from baco_integrations.engines.local.engine import LocalEngine
from baco_integrations.engines.local.kv_cache import KVCache
from baco_integrations.engines.local.runner import ModelRunner
from baco_integrations.engines.local.scheduler import Scheduler
from baco_integrations.engines.local.sequence import LocalSequence
from baco_integrations.engines.open import open_engine
from baco_integrations.text.matcher import TextMatcher
from tests.decoder.test_decoder import Surprise, endless, eventually
from tests.pairs import random_pair

Forward = Callable[..., torch.Tensor]
LONG = "word " * 80


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Let a function see each forward first, and raise in its place."""
    forward = ModelRunner.run

    def install(fault: Callable[..., None]) -> None:
        def faulty(side: ModelRunner, rows: Any, tokens: Any, first: Any, *more: Any) -> Any:
            fault(tokens, first)
            return forward(side, rows, tokens, first, *more)

        monkeypatch.setattr(ModelRunner, "run", faulty)

    return install


@contextmanager
def opened(**settings: Any) -> Iterator[tuple[Decoder, Any]]:
    """Open a decoder and give its engine along."""
    pair = random_pair()
    engine = open_engine(pair, EngineSettings(**settings))
    assert isinstance(engine, LocalEngine)
    with Decoder(pair, engine=engine) as decoder:
        yield decoder, engine


def no_memory() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


SETTINGS: tuple[dict[str, Any], ...] = (
    {"router": "p-punc", "gamma": 0.7},
    {"router": "rand", "gamma": 0.5},
    {"router": "h", "gamma": 0.9, "json_schema": {"type": "array", "items": {"type": "string"}}},
    {"router": "base"},
    {"regex": "[a-z ]{5,12}[.]"},
)


def requests(count: int) -> tuple[list[str], list[SamplingParams]]:
    params = [
        SamplingParams(seed=seed, max_tokens=10 + seed, **SETTINGS[seed % len(SETTINGS)])
        for seed in range(count)
    ]
    return [f"Say {'more ' * (seed % 4)}{seed}." for seed in range(count)], params


def said(completion: Completion) -> list[tuple[Any, ...]]:
    return [step[:3] for step in completion.steps]


@pytest.fixture(scope="module")
def expected() -> list[list[tuple[Any, ...]]]:
    prompts, params = requests(10)
    with Decoder(random_pair(), lookahead="off") as decoder:
        return [said(*decoder.generate(*each)) for each in zip(prompts, params, strict=True)]


@pytest.mark.parametrize("lookahead", ["off", 3])
def test_where_memory_is_short_fewer_run_at_a_time(
    faults: Any, expected: list[Any], lookahead: Any
) -> None:
    widest = 0

    def at_most_three(tokens: Any, first: Any) -> None:
        nonlocal widest
        if len(tokens) > 3:
            raise no_memory()
        widest = max(widest, len(tokens))

    faults(at_most_three)
    with Decoder(random_pair(), lookahead=lookahead) as decoder:
        batch = decoder.generate_batch(*requests(10))
        assert decoder.metrics.restarts >= 2 and widest > 1
    assert [said(each) for (each,) in batch] == expected


@pytest.mark.parametrize("lookahead", ["off", 2])
@pytest.mark.parametrize("every", [7, 23])
def test_memory_that_runs_out_now_and_then_changes_nothing(
    faults: Any, expected: list[Any], every: int, lookahead: Any
) -> None:
    count = 0

    def now_and_then(tokens: Any, first: Any) -> None:
        nonlocal count
        count += 1
        if count % every == 0:
            raise no_memory()

    faults(now_and_then)
    with Decoder(random_pair(), lookahead=lookahead) as decoder:
        streamed = [decoder.stream(*each) for each in zip(*requests(10), strict=True)]
        assert [[step[:3] for step in stream] for stream in streamed] == expected
        assert decoder.metrics.restarts >= 2
        assert eventually(lambda: not decoder.running)


def test_only_the_row_that_does_not_fit_alone_fails(faults: Any, expected: list[Any]) -> None:
    def not_so_long(tokens: Any, first: Any) -> None:
        if max(first) + len(tokens[0]) > 180:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    faults(not_so_long)
    prompts, params = requests(10)
    prompts.insert(4, LONG)
    params.insert(4, SamplingParams(max_tokens=5))
    with Decoder(random_pair(), lookahead="off") as decoder:
        batch: Any = decoder.generate_batch(prompts, params, return_exceptions=True)
        failed = batch.pop(4)
        assert isinstance(failed, OutOfMemoryError) and isinstance(failed, MemoryError)
        assert "DefaultCPUAllocator" in str(failed) and "max_tokens" in str(failed)
        assert [said(each) for (each,) in batch] == expected


def test_where_memory_is_back_as_many_run_as_before(faults: Any, expected: list[Any]) -> None:
    short, widest = threading.Event(), 0

    def at_most_two(tokens: Any, first: Any) -> None:
        nonlocal widest
        if short.is_set() and len(tokens) > 2:
            raise no_memory()
        widest = max(widest, len(tokens))

    faults(at_most_two)
    short.set()
    with Decoder(random_pair(), lookahead="off") as decoder:
        decoder.generate_batch(*requests(10))
        assert decoder.metrics.restarts >= 2 and widest == 2
        short.clear()
        batch = decoder.generate_batch(*requests(10))
        assert widest >= 5
    assert [said(each) for (each,) in batch] == expected


@pytest.mark.parametrize("name", ["position", "history"])
@pytest.mark.parametrize("error", [MemoryError("no"), ValueError("a bug"), Surprise("no")])
def test_a_sequence_that_cannot_be_admitted_fails_alone(
    monkeypatch: pytest.MonkeyPatch, expected: list[Any], name: str, error: BaseException
) -> None:
    real = getattr(LocalSequence, name)

    def failing(row: LocalSequence, *args: Any) -> Any:
        if row.request.seed == 99:
            raise error
        return real(row, *args)

    monkeypatch.setattr(LocalSequence, name, failing)
    prompts, params = requests(10)
    bad = SamplingParams(seed=99, timeout=20)  # instead of for ever
    with Decoder(random_pair(), lookahead="off") as decoder:
        with pytest.raises((OutOfMemoryError, WorkerError), match="no|bug"):
            decoder.generate("x", bad)
        batch: Any = decoder.generate_batch([*prompts, "x"], [*params, bad], return_exceptions=True)
        assert isinstance(batch.pop(), OutOfMemoryError | WorkerError)
        assert [said(each) for (each,) in batch] == expected
        assert decoder.metrics.restarts < 10


def test_a_failure_while_memory_is_tidied_up_reaches_everyone(
    monkeypatch: pytest.MonkeyPatch, faults: Any
) -> None:
    armed = threading.Event()
    armed.set()

    def fail(tokens: Any, first: Any) -> None:
        if armed.is_set():
            raise no_memory()

    def refuse(side: ModelRunner) -> None:
        raise RuntimeError("the device takes no orders")

    faults(fail)
    with Decoder(random_pair()) as decoder:
        with monkeypatch.context() as patch:
            patch.setattr(ModelRunner, "reset", refuse)
            batch = decoder.generate_batch(*requests(3), return_exceptions=True)
        assert all(isinstance(each, WorkerError) and "orders" in str(each) for each in batch)
        armed.clear()
        assert decoder.generate("x", max_tokens=2)[0].steps


class Failing:
    """A matcher that fails at one of its parts, not before it has been asked a few times."""

    def __init__(self, matcher: Any, part: str) -> None:
        self._matcher, self._part, self._left = matcher, part, 3

    def __getattr__(self, name: str) -> Any:
        if name == self._part:
            self._left -= 1
            if not self._left:
                raise IndexError("out of bounds")
        return getattr(self._matcher, name)


@pytest.mark.parametrize(
    "part", ["structure", "begins", "reserved", "allow", "accept", "guess", "roll_back"]
)
def test_a_matcher_that_fails_harms_only_its_own_row(
    monkeypatch: pytest.MonkeyPatch, expected: list[Any], part: str
) -> None:
    requests_of = Renderer.requests

    def with_failing(*given: Any) -> list[EngineRequest]:
        made = requests_of(*given)
        for each in made:
            if each.seed == 99:
                each.matcher = Failing(each.matcher, part)
        return made

    monkeypatch.setattr(Renderer, "requests", with_failing)
    prompts, params = requests(10)
    bad = SamplingParams(seed=99, regex="[a-z ]{20,40}")
    with Decoder(random_pair(), lookahead=3) as decoder:
        batch: Any = decoder.generate_batch([*prompts, "x"], [*params, bad], return_exceptions=True)
        failed = batch.pop()
        assert isinstance(failed, WorkerError) and isinstance(failed.__cause__, IndexError)
        assert [said(each) for (each,) in batch] == expected
        assert eventually(lambda: not decoder.running)


@pytest.mark.parametrize("part", ["put", "fail", "cancelled"])
def test_a_sink_that_fails_harms_only_its_own_row(
    monkeypatch: pytest.MonkeyPatch, expected: list[Any], part: str
) -> None:
    real = getattr(SampleOutput, part)

    def failing(sample: SampleOutput, *args: Any) -> Any:
        if sample._seed == 99 and (part != "put" or len(sample._steps) == 2):
            raise Surprise("a bug in a reader")
        return real(sample, *args)

    monkeypatch.setattr(SampleOutput, part, failing)
    with Decoder(random_pair(), lookahead="off") as decoder:
        bad = decoder.stream("x", seed=99, max_tokens=400, timeout=30)
        running = [decoder.stream(*each) for each in zip(*requests(10), strict=True)]
        if part == "cancelled":
            bad.cancel()
        if part == "fail":
            bad._deadline = bad.mailbox.requests[0].deadline = time.monotonic()
        with pytest.raises((WorkerError, DeadlineError)) as caught:
            list(bad)
        assert isinstance(caught.value, DeadlineError) == (part == "fail")
        assert [[step[:3] for step in stream] for stream in running] == expected
        assert eventually(lambda: not decoder.running)


def test_an_answer_that_cannot_be_put_together_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(**_: Any) -> Any:
        raise Surprise("a bug in a reader")

    monkeypatch.setattr(output, "Completion", failing)
    with Decoder(random_pair()) as decoder, pytest.raises(WorkerError):
        decoder.generate("x", max_tokens=2, timeout=5)


def test_memory_that_runs_out_while_the_cache_grows(
    monkeypatch: pytest.MonkeyPatch, expected: list[Any]
) -> None:
    prompts, params = requests(10)
    with opened(lookahead="off") as (decoder, engine):
        decoder.generate(prompts[0], params[0])
        layer = engine.runners[0].cache.paged_layers[1]

        def once(*_: Any) -> None:
            del layer.resize  # the class's own is back
            raise MemoryError

        layer.resize = once  # of two layers only one has grown then
        batch = decoder.generate_batch(prompts, params)
        assert decoder.metrics.restarts == 1
    assert [said(each) for (each,) in batch] == expected


@pytest.mark.parametrize("lookahead", ["off", 3])
def test_rows_that_need_more_than_kv_bytes_wait(expected: list[Any], lookahead: Any) -> None:
    with opened() as (_, engine):
        page_bytes = sum(runner.page_bytes for runner in engine.runners.values())
    with opened(lookahead=lookahead, kv_bytes=12 * page_bytes) as (decoder, engine):
        batch = decoder.generate_batch(*requests(10))
        assert decoder.metrics.restarts > 0 and 1 < decoder.metrics.largest_batch < 10
        (again,) = decoder.generate(*(each[0] for each in requests(1)))
        for runner in engine.runners.values():
            assert runner.cache.bytes <= 12 * runner.page_bytes
    assert [said(each) for (each,) in batch] == expected
    assert said(again) == expected[0]


def test_what_can_never_fit_is_refused_by_numbers() -> None:
    with opened() as (_, engine):
        page_bytes = sum(runner.page_bytes for runner in engine.runners.values())
    with opened(kv_bytes=8 * page_bytes, lookahead="off") as (decoder, _):
        with pytest.raises(OutOfMemoryError, match=r"a prompt of \d+ tokens .* room for \d+ .*MiB"):
            decoder.generate(LONG, max_tokens=2)
        with pytest.raises(OutOfMemoryError, match="keys and values of all rows need"):
            decoder.generate("x", max_tokens=400, seed=1)
        assert decoder.generate("x", max_tokens=4)[0].steps
        assert decoder.metrics.prefilled < 200


def test_memory_is_given_back_when_idle() -> None:
    with opened(prefix_bytes=0) as (decoder, engine):
        decoder.generate_batch([f"{LONG}{number}" for number in range(8)], max_tokens=4)
        assert eventually(lambda: not decoder.running)
        for runner in engine.runners.values():
            assert not runner.cache.rows and runner.cache.bytes <= 20 * runner.page_bytes
    with opened() as (decoder, engine):
        decoder.generate(LONG, max_tokens=4)
        assert eventually(lambda: not decoder.running)
        for side, runner in engine.runners.items():
            kept = engine.scheduler.prefix_caches[side].bytes
            assert 0 < kept <= runner.cache.bytes <= 1.3 * kept + 17 * runner.page_bytes


def test_prefixes_make_room_when_memory_runs_out(faults: Any) -> None:
    armed = threading.Event()

    def once(tokens: Any, first: Any) -> None:
        if armed.is_set():
            armed.clear()
            raise no_memory()

    faults(once)
    with opened() as (decoder, engine):
        (first,) = decoder.generate(LONG, seed=1, max_tokens=4)
        kept = engine.scheduler.prefix_caches.values()
        assert eventually(lambda: all(each.bytes for each in kept))
        armed.set()
        with decoder.stream("x", max_tokens=300) as stream:
            next(stream)
            assert not any(each.bytes for each in kept)
        (again,) = decoder.generate(LONG, seed=1, max_tokens=4)
    assert said(again) == said(first)


@pytest.mark.parametrize("name", ["share", "reserve"])
def test_memory_that_runs_out_while_a_beginning_is_shared(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real, count = getattr(KVCache, name), 0

    def fourth(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            raise no_memory()
        return real(*args)

    asked = [f"{LONG} {number}" for number in range(5)]
    params = SamplingParams(seed=3, max_tokens=6)
    with Decoder(random_pair()) as decoder:
        (first,) = decoder.generate(LONG, params)
        alone = [decoder.generate(text, params)[0] for text in asked]
    monkeypatch.setattr(KVCache, name, fourth)
    with Decoder(random_pair()) as decoder:
        assert said(decoder.generate(LONG, params)[0]) == said(first)
        batch = decoder.generate_batch([*asked, *asked], params)
        assert decoder.metrics.restarts == 1
        assert decoder.metrics.tokens == 11 * 6  # nobody was asked twice
    assert [said(each) for (each,) in batch] == [said(each) for each in alone] * 2


@pytest.mark.parametrize("error", [MemoryError("no"), ValueError("a bug")])
@pytest.mark.parametrize("call", [1, 3])
def test_a_failure_while_cancelled_rows_leave_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, faults: Any, call: int, error: Exception
) -> None:
    keep, count, asked = Scheduler.keep_prefix, 0, threading.Event()

    def cancel(tokens: Any, first: Any) -> None:
        if asked.wait(20) and [*map(len, tokens)] == [1, 1]:
            for stream in given:
                stream.cancel()

    def failing(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise error
        return keep(*args)

    faults(cancel)
    monkeypatch.setattr(Scheduler, "keep_prefix", failing)
    with Decoder(random_pair(), max_rows=2, lookahead="off") as decoder:
        given = [
            decoder.stream(text * 40, seed=1, max_tokens=400, timeout=60)
            for text in ("one ", "two ", "x ")
        ]
        asked.set()
        for stream in given:
            with suppress(WorkerError):
                list(stream)
        ends = [each.finish_reason for stream in given for each in stream.completions]
        # A bug ends the rows that still had their slots with an error.
        lost = 0 if isinstance(error, MemoryError) else 2 - call // 2
        assert ends == ["cancelled"] * (3 - lost) and count >= call


def test_a_lost_device_closes_the_decoder_and_says_so(faults: Any) -> None:
    armed = threading.Event()

    def lost(tokens: Any, first: Any) -> None:
        if armed.is_set():
            raise torch.AcceleratorError(
                "CUDA error: an illegal memory access was encountered", 700
            )

    faults(lost)
    decoder = Decoder(random_pair(), max_rows=2)
    running = [decoder.stream("x", max_tokens=400) for _ in range(4)]
    next(running[0])
    armed.set()
    for stream in running:
        with pytest.raises(WorkerError, match="illegal memory access"):
            list(stream)
    with pytest.raises(DecoderClosedError, match="restart the process.*illegal memory"):
        decoder.generate("x")
    assert decoder.closed
    # A shared decoder is opened anew, so that a process that has other devices can go on.
    decoder.close()


def test_after_any_failure_slots_are_clean(faults: Any, expected: list[Any]) -> None:
    armed = threading.Event()
    armed.set()

    def bug(tokens: Any, first: Any) -> None:
        if armed.is_set() and max(first) > 30:
            raise ValueError("a bug in the model")

    faults(bug)
    with Decoder(random_pair(), lookahead="off") as decoder:
        failed = decoder.generate_batch(*requests(10), return_exceptions=True)
        assert all(isinstance(each, WorkerError) for each in failed)
        assert decoder.running == 0
        armed.clear()
        batch = decoder.generate_batch(*requests(10))
        assert [said(each) for (each,) in batch] == expected


# -- callers -------------------------------------------------------------------------------------


def test_a_stream_that_nobody_reads_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_UNREAD", 50)
    with Decoder(endless()) as decoder:
        stream = decoder.stream("x", max_tokens=100_000)
        assert eventually(lambda: stream.mailbox.sent > 50)
        assert eventually(lambda: not decoder.running)
        with pytest.raises(StreamOverrunError, match="50 tokens"):
            count = 0
            for _ in stream:
                count += 1
        assert count == 50 and decoder.metrics.tokens < 1000
        with decoder.stream("x", max_tokens=300) as read:  # who reads in time gets everything
            assert len(list(read)) == 300
        assert len(decoder.generate("x", max_tokens=300)[0].steps) == 300


async def test_an_async_stream_that_nobody_reads_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "MAX_UNREAD", 50)
    with Decoder(endless()) as decoder:
        stream = decoder.astream("x", max_tokens=100_000)
        await asyncio.to_thread(eventually, lambda: stream.mailbox.sent > 50)
        count = 0
        with pytest.raises(StreamOverrunError):
            async for _ in stream:
                count += 1
        assert count == 50
        assert await asyncio.to_thread(eventually, lambda: not decoder.running)


LEFT_BEHIND = """
import sys, threading
from baco_integrations import Decoder, ModelPair
decoder = Decoder(ModelPair.tiny(progress=False))
streams = [decoder.stream("Name a city.", max_tokens=400, seed=n) for n in range(6)]
next(streams[0])
print("running", flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "raise SystemExit", "del decoder, streams"])
@pytest.mark.slow
def test_the_interpreter_exits_with_rows_running(end: str) -> None:
    started = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT_BEHIND.format(end=end)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "running\n", "")
    assert time.monotonic() - started < 100


RENDERING = """
import asyncio, threading
from baco_integrations import Decoder, ScriptedPair

begun = []

class Stuck(ScriptedPair):
    def render_base(self, messages, *, tokenize=False):
        print("rendering\\n", end="", flush=True)  # at once, as threads print together
        begun.append(messages)
        threading.Event().wait()

async def main():
    decoder = Decoder(Stuck({"": {" a": 1}}, {}))
    kept = [decoder.astream("x") for _ in range(6)]
    while len(begun) < 4:
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


@pytest.mark.slow
def test_the_interpreter_exits_although_rendering_never_ends() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", RENDERING],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "rendering\n" * 4, "")


def test_a_vocabulary_that_takes_long_keeps_nobody_waiting_beyond_the_time() -> None:
    with Decoder(endless()) as decoder:
        compiling = decoder._renderer._compiling
        assert compiling.acquire(timeout=5)
        late = threading.Timer(10, compiling.release)
        late.start()
        began = time.monotonic()
        with pytest.raises(DeadlineError):
            decoder.generate("x", regex="[a-z]+", timeout=0.05)
        late.cancel()
        assert time.monotonic() - began < 9


class Broken:
    def route(self, inputs: Any) -> Any:
        raise ZeroDivisionError


def test_an_error_of_a_batch_that_is_kept_keeps_nothing_running() -> None:
    endlessly = SamplingParams(max_tokens=100_000)
    with Decoder(endless(0.001)) as decoder:
        with pytest.raises(ZeroDivisionError) as kept:
            decoder.generate_batch(["x", "y"], [endlessly.replace(router=Broken()), endlessly])
        assert eventually(lambda: not decoder.running)
        assert kept.value and not decoder.waiting


def test_results_of_a_whole_life_are_plain_data() -> None:
    with Decoder(endless()) as decoder:
        decoder.generate("x", max_tokens=5)
        assert json.dumps(vars(decoder.metrics))


class Panic(BaseException):
    """What the engine raises where it gives up on itself."""


@pytest.mark.parametrize(
    ("method", "lookahead"), [("allow", "off"), ("allow", 2), ("accept", "off"), ("guess", 2)]
)
def test_a_matcher_that_raises_fails_its_own_row(
    monkeypatch: pytest.MonkeyPatch, expected: list[Any], method: str, lookahead: Any
) -> None:
    sound = getattr(TextMatcher, method)
    marked: list[TextMatcher] = []

    def faulty(matcher: TextMatcher, given: Any) -> Any:
        if not marked:
            marked.append(matcher)
        if matcher is marked[0]:
            raise Panic("no more")
        return sound(matcher, given)

    monkeypatch.setattr(TextMatcher, method, faulty)
    with Decoder(random_pair(), lookahead=lookahead) as decoder:
        batch = decoder.generate_batch(*requests(5), return_exceptions=True)
    failed = [each for each in batch if isinstance(each, WorkerError)]
    assert len(failed) == 1 and isinstance(failed[0].__cause__, Panic)
    for each, alone in zip(batch, expected[:5], strict=True):
        assert each is failed[0] or said(each[0]) == alone


def test_what_the_grammar_engine_gives_up_on_is_told_in_its_words() -> None:
    # The first token leads further than any trial goes.
    tokens = ["x" * 300, *"abc "]
    likely = dict.fromkeys(tokens, 1.0)
    pair = ScriptedPair(lambda _: likely, lambda _: likely, vocabulary=tokens)
    tiring = SamplingParams(regex="x{300}([a-z ]{1,1000}){1,1000}", max_tokens=400, seed=1)
    with Decoder(pair) as decoder:
        error, free = decoder.generate_batch(
            ["x"] * 2, [tiring, tiring.replace(regex=None, max_tokens=9)], return_exceptions=True
        )
    assert type(error) is DecoderError and len(free[0].steps) == 9
    assert "engine gave up after" in str(error) and "too many expressions" in str(error)
    assert "probability" not in str(error)
