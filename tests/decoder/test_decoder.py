"""The shared decoder as its callers see it: streams, batches, cancellation, sharing, faults."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from baco_integrations import BacoError, Decoder, SamplingParams, ScriptedPair
from baco_integrations.core.errors import (
    DecoderClosedError,
    ParameterError,
    PromptError,
    QueueFullError,
    WorkerError,
)
from baco_integrations.decoder import decoder as decoder_module
from baco_integrations.engines import scripted
from baco_integrations.engines.base import Engine
from baco_integrations.engines.open import ENGINES
from baco_integrations.engines.scripted import ScriptedEngine
from baco_integrations.langchain import ChatBACo
from baco_integrations.models.scripted import Context
from tests.pairs import random_pair

WORDS = [" red", " fox", " the", " sea", " and"]


def endless(delay: float = 0.0) -> ScriptedPair:
    """A pair that never ends its turn; each forward takes at least `delay` seconds."""

    def words(context: Context) -> dict[str, float]:
        time.sleep(delay)
        return dict.fromkeys(WORDS, 0.2)

    return ScriptedPair(words, words, vocabulary=WORDS)


def phrase(*tokens: str) -> ScriptedPair:
    """A pair that says one thing."""
    texts = ["".join(tokens[:place]) for place in range(len(tokens))]
    table = {text: {token: 1.0} for text, token in zip(texts, tokens, strict=True)}
    return ScriptedPair(table, table)


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


@pytest.fixture
def slow() -> Iterator[Decoder]:
    with Decoder(endless(0.002), max_rows=4) as decoder:
        yield decoder


# -- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "stop", "text", "reason"),
    [
        ((" one", " two", " three"), [], "one two three", "stop"),
        ((" one", " two", " three"), [" two"], "one", "stop"),
        ((" one", " two", " three"), ["e t"], "on", "stop"),  # across tokens
        ((" one", " two", " three"), ["e two three four"], "one two three", "stop"),  # never comes
        ((" one", " two", " three"), ["wo", " two"], "one", "stop"),  # of equals, the longer wins
        (("\n", " \n", " one"), [], "one", "stop"),  # no white space in front
        (("\n", " one", "\n", " two"), ["\n"], "one", "stop"),
        ((" stop",), ["stop"], "", "stop"),
    ],
)
def test_stop_strings(tokens: tuple, stop: list, text: str, reason: str) -> None:
    with Decoder(phrase(*tokens)) as decoder:
        (completion,) = decoder.generate("x", stop=stop)
        streamed = [step.text for step in decoder.stream("x", stop=stop)]
    assert (completion.text, completion.finish_reason) == (text, reason)
    assert "".join(streamed) == text
    assert len(completion.steps) == completion.usage.completion_tokens


def test_a_partial_stop_string_is_held_back_until_it_is_settled() -> None:
    with Decoder(phrase(" a", "bc", "d", "abx", "y")) as decoder:
        texts = [step.text for step in decoder.stream("x", stop=["abcz", "abx"])]
    assert texts == ["", "", "abcd", ""]  # the stop string "abx" came whole


def test_length() -> None:
    with Decoder(endless()) as decoder:
        (completion,) = decoder.generate("x", max_tokens=5)
        assert (completion.finish_reason, len(completion.steps)) == ("length", 5)
    for windows in ((20, 12), (12, 20)):
        pair = endless()
        pair.context = windows  # "user: x" takes 7
        with Decoder(pair) as decoder:
            (completion,) = decoder.generate("x", max_tokens=50)
        assert (completion.finish_reason, len(completion.steps)) == ("length", 5)
        assert completion.usage == (7, 7, 5) and completion.usage.total_tokens == 12


def test_the_base_prompts_own_stop_strings_end_router_base() -> None:
    pair = phrase(" Oslo", ".", "\n\n", "Q", ":", " Next", "?")
    pair.base_stop = ("\nQ:",)
    with Decoder(pair) as decoder:
        (alone,) = decoder.generate("x", router="base")
        assert (alone.text, alone.finish_reason) == ("Oslo.\n", "stop")
        (aligned,) = decoder.generate("x", router="aligned")
        assert aligned.text == "Oslo.\n\nQ: Next?"


def test_a_character_split_over_tokens_comes_whole() -> None:
    pair = random_pair("llama", "byte-level")
    with Decoder(pair) as decoder:
        for seed in range(20):
            steps = list(decoder.stream("Emoji?", seed=seed, max_tokens=40, temperature=2.0))
            ids = [step.token_id for step in steps if step.token_id not in pair.aligned_eos]
            assert "".join(step.text for step in steps) == pair.decode(ids).lstrip()


# -- asking ----------------------------------------------------------------------------------


async def test_async_equals_sync_and_leaves_the_loop_free(slow: Decoder) -> None:
    params = SamplingParams(seed=3, max_tokens=40, n=2)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.002)
            ticks += 1

    ticking = asyncio.create_task(tick())
    completions = await slow.agenerate("x", params)
    ticking.cancel()
    assert ticks >= 20
    assert completions == await asyncio.to_thread(slow.generate, "x", params)
    streamed = [step async for step in slow.astream("x", params)]
    assert tuple(s for s in streamed if s.sample == 1) == completions[1].steps


async def test_gathered_calls_meet_in_one_batch(slow: Decoder) -> None:
    await asyncio.gather(*(slow.agenerate("x", max_tokens=20) for _ in range(8)))
    assert slow.metrics.largest_batch == 4  # max_rows
    assert slow.metrics.rows_per_iteration > 3


def test_threads_meet_in_one_batch() -> None:
    with Decoder(endless(0.002), max_rows=16) as decoder:
        threads = [
            threading.Thread(target=decoder.generate, args=("x", SamplingParams(max_tokens=30)))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert decoder.metrics.largest_batch == 12
        assert decoder.metrics.tokens == 360


def test_a_batch_keeps_its_order_and_settings() -> None:
    with Decoder(phrase(" a", " b", " c")) as decoder:
        params = [SamplingParams(max_tokens=tokens) for tokens in (1, 2, 3)]
        results = decoder.generate_batch(["x", "yy", "zzz"], params)
        assert [completion.text for (completion,) in results] == ["a", "a b", "a b c"]
        assert decoder.generate_batch([], params=None) == []


def test_a_bad_conversation_never_disturbs_its_neighbours() -> None:
    with Decoder(phrase(" a")) as decoder:
        results = decoder.generate_batch(["x", "", [], "y" * 9999, "z"], return_exceptions=True)
        assert [type(result) for result in results[1:4]] == [PromptError] * 3
        assert [results[place][0].text for place in (0, 4)] == ["a", "a"]
        tokens = decoder.metrics.tokens
        with pytest.raises(PromptError):
            decoder.generate_batch(["x", ""])
        assert decoder.metrics.tokens == tokens  # nothing was decoded


def test_a_row_that_joins_keeps_its_own_settings(slow: Decoder) -> None:
    params = [
        SamplingParams(seed=seed, max_tokens=40, router="rand", gamma=g)
        for seed, g in enumerate((0.0, 1.0))
    ]
    alone = [slow.generate("x", own)[0].steps for own in params]
    first = slow.stream("x", params[0])
    begun = [next(first) for _ in range(5)]
    second = slow.stream("x", params[1])  # joins; nobody leaves
    assert (*begun, *first) == alone[0]
    assert tuple(second) == alone[1]
    assert {step.source for step in alone[0]} == {"aligned"}
    assert {step.source for step in alone[1]} == {"base"}


# -- cancelling ------------------------------------------------------------------------------


def test_closing_a_stream_frees_its_rows(slow: Decoder) -> None:
    stream = slow.stream("x", n=3, max_tokens=10_000)
    next(stream)
    iterations = slow.metrics.iterations
    stream.close()
    assert not slow.running
    assert slow.metrics.iterations <= iterations + 2
    assert list(stream) == []
    assert [c.finish_reason for c in stream.completions] == ["cancelled"] * 3
    assert all(c.text and c.usage.completion_tokens == len(c.steps) for c in stream.completions)


@pytest.mark.parametrize("running", [True, False])
def test_closing_from_another_thread_wakes_the_reader(slow: Decoder, running: bool) -> None:
    busy = slow.stream("x", n=3 if running else 4, max_tokens=10_000)
    next(busy)
    stream = slow.stream("y", max_tokens=10_000)
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    if running:
        assert eventually(lambda: slow.running == 4)
    stream.cancel()
    reader.join(5)
    assert not reader.is_alive()
    assert [completion.finish_reason for completion in stream.completions] == ["cancelled"]
    busy.close()


async def test_waiting_for_a_token_can_time_out_without_ending_the_stream() -> None:
    with Decoder(endless(0.2)) as decoder:
        async with decoder.astream("x", max_tokens=2) as stream:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(stream), 0.01)
            assert len([step async for step in stream]) == 2


def test_a_stream_keeps_its_decoder_alive() -> None:
    stream = Decoder(phrase(" a", " b")).stream("x")
    gc.collect()
    assert "".join(step.text for step in stream) == "a b"


def test_an_abandoned_stream_frees_its_rows(slow: Decoder) -> None:
    stream = slow.stream("x", max_tokens=10_000)
    next(stream)
    del stream
    gc.collect()
    assert eventually(lambda: not slow.running)


async def test_a_cancelled_task_frees_its_rows(slow: Decoder) -> None:
    task = asyncio.create_task(slow.agenerate("x", max_tokens=10_000))
    assert await asyncio.to_thread(eventually, lambda: bool(slow.running))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(eventually, lambda: not slow.running)


async def test_breaking_out_of_an_async_stream_frees_its_rows(slow: Decoder) -> None:
    async for _ in slow.astream("x", max_tokens=10_000):
        break
    gc.collect()
    assert await asyncio.to_thread(eventually, lambda: not slow.running)


def test_cancelling_leaves_the_neighbours_alone(slow: Decoder) -> None:
    params = SamplingParams(seed=4, max_tokens=60)
    alone = slow.generate("neighbour", params)
    streams = [slow.stream("x", max_tokens=10_000) for _ in range(3)]
    running = slow.stream("neighbour", params)
    for stream in streams:
        next(stream)
        stream.close()
    assert tuple(running) == alone[0].steps


def test_a_waiting_request_can_be_cancelled(slow: Decoder) -> None:
    busy = slow.stream("x", n=4, max_tokens=10_000)
    next(busy)
    waiting = slow.stream("y")
    waiting.close()
    busy.close()
    assert eventually(lambda: not slow.running and not slow.waiting)


# -- sharing and closing ---------------------------------------------------------------------


def test_one_decoder_per_pair() -> None:
    pair = phrase(" a")
    first, second = Decoder.shared(pair), Decoder.shared(pair)
    assert first is second
    first.close()
    assert second.generate("x")[0].text == "a"
    second.close()
    with pytest.raises(DecoderClosedError):
        second.generate("x")
    with Decoder.shared(pair) as third:
        assert third is not first
        assert third.generate("x")[0].text == "a"


def test_nobody_waits_for_the_decoder_of_another_pair_to_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opening, let = threading.Event(), threading.Event()

    class Late(ScriptedPair):
        engine = "late"

    def open_late(*given: Any, **how: Any) -> Engine:
        opening.set()
        assert let.wait(20)
        return ScriptedEngine(*given, **how)

    monkeypatch.setattr(scripted, "open_late", open_late, raising=False)
    monkeypatch.setitem(ENGINES, "late", "baco_integrations.engines.scripted:open_late")
    late, opened = Late({"": {" a": 1}}, {}), []
    threads = [
        threading.Thread(target=lambda: opened.append(Decoder.shared(late))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert opening.wait(20)
    with Decoder.shared(phrase(" a")) as decoder:
        assert decoder.generate("x")[0].text == "a" and not opened
    let.set()
    for thread in threads:
        thread.join()
    assert len(opened) == 3 and len(set(map(id, opened))) == 1
    for decoder in opened:
        decoder.close()
    assert opened[0].closed


def test_users_count_while_they_live() -> None:
    class User:
        pass

    pair, first, second, third = phrase(" a"), User(), User(), User()
    decoder = Decoder.shared(pair, first)
    for user in (first, second, third):
        assert Decoder.shared(pair, user) is decoder
    del second
    gc.collect()
    decoder.close(first)
    assert not decoder.closed
    decoder.close(third)
    assert decoder.closed


def test_whoever_opens_the_shared_decoder_says_how() -> None:
    pair = phrase(" a")
    with Decoder.shared(pair, max_rows=3, prefix_bytes=0) as decoder:
        assert decoder.max_rows == 3
        with Decoder.shared(pair) as same, Decoder.shared(pair, prefix_bytes=0, max_rows=3):
            assert same is decoder
        with pytest.raises(ParameterError, match="'max_rows': 3.*before anything else"):
            Decoder.shared(pair, max_rows=4)
    with Decoder.shared(pair, max_rows=4) as other:
        assert other.max_rows == 4


def test_closing_fails_what_runs_and_what_waits() -> None:
    decoder = Decoder(endless(0.002), max_rows=1)
    running, waiting = decoder.stream("x", max_tokens=10_000), decoder.stream("y")
    next(running)
    decoder.close()
    for stream in (running, waiting):
        with pytest.raises(DecoderClosedError):
            list(stream)
    decoder.close()


def test_an_abandoned_decoder_stops_its_worker() -> None:
    decoder = Decoder(phrase(" a"))
    worker = decoder.engine.thread
    del decoder
    gc.collect()
    worker.join(5)
    assert not worker.is_alive()


def _generate_in_child(decoder: Decoder, results: object) -> None:
    try:
        decoder.generate("x")
    except DecoderClosedError as error:
        results.put(str(error))  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_told_so() -> None:
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    with Decoder(phrase(" a")) as decoder:
        child = fork.Process(target=_generate_in_child, args=(decoder, results))
        child.start()
        child.join(20)
        assert child.exitcode == 0
        assert "forked" in results.get()
        assert decoder.generate("x")[0].text == "a"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_opens_a_decoder_of_its_own_and_exits() -> None:
    pair = endless(0.001)
    with Decoder.shared(pair) as decoder, decoder.stream("x", max_tokens=10_000) as stream:
        next(stream)  # the worker is busy, and may hold any lock
        for _ in range(5):
            if (child := os.fork()) == 0:
                ok = len(Decoder.shared(pair).generate("x", max_tokens=2)[0].steps) == 2
                decoder.close()
                stream.close()
                os._exit(0 if ok else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert next(stream).text


def in_a_child(call: Callable[[], object]) -> int:
    """Fork, and return 0 where a call works, 1 where it is refused; what hangs is killed."""
    if (child := os.fork()) == 0:
        signal.alarm(20)
        try:
            call()
        except DecoderClosedError:
            os._exit(1)
        except BaseException:
            os._exit(2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def locks_within(*things: object) -> list[Any]:
    """Return all locks that objects of the package hold."""
    found, todo = {}, [*things]
    while todo:
        each = todo.pop()
        if id(each) in found:
            continue
        found[id(each)] = each
        if isinstance(each, dict | list | tuple) or type(each).__module__.startswith("baco_"):
            todo += gc.get_referents(each)
    kinds = type(threading.Lock()), type(threading.RLock())
    return [each for each in found.values() if isinstance(each, kinds)]


@pytest.fixture
def busy() -> Iterator[Decoder]:
    """A decoder of a real pair while other threads hold all locks of the package."""
    with Decoder.shared(random_pair()) as decoder:
        decoder.generate("x", max_tokens=1)
        stream = decoder.stream("x", max_tokens=4)
        modules = [vars(m) for name, m in sys.modules.items() if name.startswith("baco_")]
        turn = decoder_module._TURNS.turn(id(decoder.pair))
        locks = [*locks_within(modules, decoder, stream, turn), decoder.engine.changed]
        held, let = threading.Barrier(len(locks) + 1), threading.Event()

        def hold(lock: Any) -> None:
            with lock:
                held.wait(20)
                let.wait(60)

        holders = [threading.Thread(target=hold, args=(lock,)) for lock in locks]
        for holder in holders:
            holder.start()
        held.wait(20)
        decoder.kept = stream  # type: ignore[attr-defined]
        yield decoder
        let.set()
        for holder in holders:
            holder.join()


CALLS: dict[str, tuple[Callable[[Any], object], int]] = {
    "generate": (lambda d: d.generate("x"), 1),
    "generate a long one": (lambda d: d.generate("word " * 9000), 1),
    "stream": (lambda d: d.stream("x"), 1),
    "read a stream": (lambda d: list(d.kept), 1),
    "close a stream": (lambda d: d.kept.close(), 0),
    "generate_batch": (lambda d: d.generate_batch(["x"], return_exceptions=True), 1),
    "agenerate": (lambda d: asyncio.run(d.agenerate("x")), 1),
    "astream": (lambda d: d.astream("x"), 1),
    "metrics": (lambda d: (d.metrics.tokens, d.max_rows, d.closed), 0),
    "close": (lambda d: d.close(), 0),
    "shared": (lambda d: Decoder.shared(d.pair).generate("x", max_tokens=2), 0),
    "shared by a user": (lambda d: Decoder.shared(d.pair, Mine(None)).generate("x"), 0),
    "a fresh one": (lambda d: Decoder(d.pair).generate("x", max_tokens=2), 0),
    "a fresh one, async": (lambda d: asyncio.run(Decoder(d.pair).agenerate("x")), 0),
    "a pair by name": (lambda d: ChatBACo(pair="tiny", max_tokens=1).invoke("x"), 0),
}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", CALLS)
def test_a_forked_child_waits_for_no_lock_of_its_parent(busy: Decoder, name: str) -> None:
    call, expected = CALLS[name]
    assert in_a_child(lambda: call(busy)) == expected


# -- faults ----------------------------------------------------------------------------------


def test_a_failing_worker_tells_everyone_and_goes_on() -> None:
    failing = threading.Event()

    def words(context: Context) -> dict[str, float]:
        time.sleep(0.001)
        if failing.is_set():
            raise OSError("device lost")
        return dict.fromkeys(WORDS, 0.2)

    with Decoder(ScriptedPair(words, words, vocabulary=WORDS), max_rows=2) as decoder:
        streams = [decoder.stream("x", max_tokens=10_000) for _ in range(3)]
        next(streams[0])
        failing.set()
        for stream in streams:
            with pytest.raises(WorkerError, match="device lost") as caught:
                list(stream)
            assert isinstance(caught.value.__cause__, OSError)
        failing.clear()
        assert len(decoder.generate("x", max_tokens=3)[0].steps) == 3


class Surprise(BaseException):
    """What pytest.fail and sys.exit raise is no Exception either."""


def test_whatever_a_script_raises_reaches_the_caller() -> None:
    def words(context: Context) -> dict[str, float]:
        raise Surprise

    with Decoder(ScriptedPair(words, words, vocabulary=WORDS)) as decoder:
        with pytest.raises(WorkerError) as caught:
            decoder.generate("x")
        assert isinstance(caught.value.__cause__, Surprise)


def test_a_script_that_asks_its_own_decoder_is_refused() -> None:
    def words(context: Context) -> dict[str, float]:
        decoder.generate("x")
        return {}

    decoder = Decoder(ScriptedPair(words, words, vocabulary=WORDS))
    with decoder, pytest.raises(BacoError, match="own decoder"):
        decoder.generate("x")


@pytest.mark.parametrize("weird", [{}, {" fox": 0.0}])
def test_a_row_without_a_distribution_fails_alone(weird: dict[str, float]) -> None:
    def words(context: Context) -> dict[str, float]:
        return weird if "bad" in context.prompt else dict.fromkeys(WORDS, 0.2)

    with Decoder(ScriptedPair(words, words, vocabulary=WORDS)) as decoder:
        neighbour = decoder.stream("good", max_tokens=50)
        with pytest.raises(WorkerError, match="not finite"):
            decoder.generate("bad")
        assert len(list(neighbour)) == 50


class Mine:
    """A router of the user's own: base where it is asked to be."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def route(self, inputs: object) -> object:
        return self.answer(inputs) if callable(self.answer) else self.answer


def test_a_router_of_ones_own() -> None:
    even = Mine(lambda inputs: inputs.position % 2 == 0)
    with Decoder(endless()) as decoder:
        (completion,) = decoder.generate("x", router=even, max_tokens=6)
    assert [step.source for step in completion.steps] == ["base", "aligned"] * 3
    assert (completion.router, completion.gamma) == ("Mine", 0.6)


@pytest.mark.parametrize(
    "answer",
    [
        lambda inputs: 1 / 0,
        lambda inputs: pytest.fail("no"),
        lambda inputs: True,
        lambda inputs: torch.ones(7, dtype=torch.bool),
        lambda inputs: torch.ones(len(inputs.p_max)),
    ],
)
def test_a_failing_router_harms_only_its_own_request(answer: object) -> None:
    params = SamplingParams(seed=2, max_tokens=30)
    with Decoder(endless(0.001)) as decoder:
        alone = decoder.generate("x", params)
        neighbour = decoder.stream("x", params)
        with pytest.raises((ZeroDivisionError, ParameterError, WorkerError)):
            decoder.generate("x", router=Mine(answer))
        assert tuple(neighbour) == alone[0].steps


def test_a_full_queue_refuses() -> None:
    with Decoder(endless(0.002), max_rows=1, max_waiting=2) as decoder:
        running = decoder.stream("x", max_tokens=10_000)
        next(running)
        with pytest.raises(QueueFullError, match="holds 2"):
            decoder.generate("x", n=3)
        assert decoder.waiting == 0  # all or none
        running.close()


@pytest.mark.parametrize("options", [{"max_rows": 0}, {"max_rows": True}, {"max_waiting": 1.5}])
def test_bad_sizes(options: dict) -> None:
    with pytest.raises(BacoError, match=next(iter(options))):
        Decoder(phrase(" a"), **options)
