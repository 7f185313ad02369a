"""Streams wherever they are read: on other loops, by several readers, before they have begun."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest
from llama_index.core import Document, SummaryIndex

from baco_integrations import Decoder, SamplingParams, ScriptedPair
from baco_integrations.core.errors import (
    DeadlineError,
    DecoderClosedError,
    DecoderError,
    PromptError,
    QueueFullError,
    StreamOverrunError,
)
from baco_integrations.decoder import stream as streams
from baco_integrations.decoder.decoder import MAX_RENDERING
from baco_integrations.decoder.stream import AsyncStream
from baco_integrations.llama_index import BACoLLM
from tests.pairs import random_pair
from tests.scripted import WORDS, cities, endless, eventually

LONG = "word " * 1000


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run on a new loop; what hangs fails."""
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def read(stream: AsyncIterator[Any], most: int = 10**9) -> list[Any]:
    steps: list[Any] = []
    while len(steps) < most:
        try:
            steps.append(await anext(stream))
        except StopAsyncIteration:
            break
    return steps


async def opened(decoder: Decoder, *args: Any, **settings: Any) -> AsyncStream:
    return decoder.astream(*args, **settings)


def held(let: threading.Event) -> ScriptedPair:
    """A pair that never ends its turn, and decodes nothing before it is let."""

    def words(context: Any) -> dict[str, float]:
        assert let.wait(20)
        return dict.fromkeys(WORDS, 0.2)

    return ScriptedPair(words, words, vocabulary=WORDS)


# -- other loops -----------------------------------------------------------------------------


def test_a_stream_moves_from_loop_to_loop() -> None:
    with Decoder(endless(0.001)) as decoder:
        expected = decoder.generate("x", seed=1, max_tokens=60)
        stream = run(opened(decoder, "x", seed=1, max_tokens=60))
        steps = [*run(read(stream, 3)), *run(read(stream, 20)), *run(read(stream))]
        assert (tuple(steps), stream.completions) == (expected[0].steps, expected)

        stream = run(opened(decoder, "x", max_tokens=10_000))
        run(read(stream, 3))
        run(stream.aclose())
        assert not decoder.running
        assert [each.finish_reason for each in stream.completions] == ["cancelled"]


def test_a_stream_is_read_in_a_thread_while_its_own_loop_is_blocked() -> None:
    async def main(decoder: Decoder) -> list[Any]:
        stream = decoder.astream("x", max_tokens=40)
        steps = await read(stream, 2)
        reader = threading.Thread(target=lambda: steps.extend(run(read(stream))))
        reader.start()
        reader.join()
        return steps

    with Decoder(endless(0.001)) as decoder:
        assert len(run(main(decoder))) == 40


def test_many_loops_read_at_once() -> None:
    params = SamplingParams(seed=3, max_tokens=30)
    with Decoder(endless(0.001), max_rows=16) as decoder:
        expected = decoder.generate("x", params)[0].steps
        made = [run(opened(decoder, "x", params)) for _ in range(8)]
        got: list[list[Any]] = []

        async def several(own: Sequence[AsyncStream]) -> None:
            got.extend(await asyncio.gather(*map(read, (*own, decoder.astream("x", params)))))

        threads = [
            threading.Thread(target=run, args=(several(made[start : start + 2]),))
            for start in range(0, 8, 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [tuple(steps) for steps in got] == [expected] * 12


def test_what_llama_index_reads_on_loops_of_its_own() -> None:
    llm = BACoLLM(pair=cities(), gamma=0)
    index = SummaryIndex.from_documents([Document(text="Rome lies on the Tiber.")])
    engine = index.as_query_engine(llm=llm, streaming=True, response_mode="tree_summarize")

    async def deltas(pieces: Any) -> str:
        return "".join([piece.delta async for piece in pieces])

    async def shown() -> str:
        return str(await engine.aquery("Tiber?"))  # core runs another loop in a thread

    assert run(deltas(run(llm.astream_complete("Hi")))) == "Rome."
    assert run(shown()) == "Rome."
    answer = run(engine.aquery("Tiber?"))
    assert run(answer._async_str()) == "Rome."


def test_a_stream_outlives_its_loop_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_UNREAD", 50)
    with Decoder(endless()) as decoder:
        stream = run(opened(decoder, "x", max_tokens=10_000))
        assert eventually(lambda: stream.mailbox.sent > 50 and not decoder.running)
        assert len(run(read(stream, 50))) == 50
        with pytest.raises(StreamOverrunError):
            run(read(stream))


def test_a_stream_that_is_dropped_unread_frees_its_rows() -> None:
    with Decoder(endless(0.001)) as decoder:
        stream = run(opened(decoder, "x", max_tokens=10_000))
        assert eventually(lambda: decoder.metrics.tokens > 20)  # it goes on
        del stream
        gc.collect()
        assert eventually(lambda: not decoder.running)


def test_a_loop_that_is_closed_on_its_reader_frees_the_rows() -> None:
    async def begun() -> None:
        while not decoder.metrics.tokens:
            await asyncio.sleep(0.001)

    with Decoder(endless(0.001)) as decoder:
        loop = asyncio.new_event_loop()
        task = loop.create_task(read(decoder.astream("x", max_tokens=10_000)))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.run_until_complete(asyncio.wait_for(begun(), 10))
        loop.close()
        del task, loop

        def freed() -> bool:
            gc.collect()
            return not decoder.running

        assert decoder.metrics.tokens and eventually(freed)


def test_who_wants_completions_only_is_sent_no_steps() -> None:
    with Decoder(endless()) as decoder:
        (completion,) = decoder.generate("x", max_tokens=3)
        for streaming, expected in ((False, 1), (True, 4)):
            events: list[Any] = []
            mailbox = streams.Mailbox(decoder.engine, events.append, streaming=streaming)
            for event in (*completion.steps, completion):
                mailbox.publish(event)
            assert mailbox.sent == len(events) == expected
            assert mailbox.decoded == {0: 3}


# -- several readers -------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True])
def test_two_readers_share_a_stream_and_both_see_its_end(apart: bool) -> None:
    with Decoder(endless(0.0005)) as decoder:
        stream = run(opened(decoder, "x", n=3, max_tokens=50))
        got: list[Any] = []

        async def reading(readers: int) -> None:
            for steps in await asyncio.gather(*(read(stream) for _ in range(readers))):
                got.extend(steps)

        threads = [
            threading.Thread(target=run, args=(reading(1 if apart else 3),))
            for _ in range(3 if apart else 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for sample, completion in enumerate(stream.completions):
            steps = [step for step in got if step.sample == sample]
            assert len(steps) == 50 and set(map(id, steps)) == set(map(id, completion.steps))
        assert len(stream.completions) == 3


async def test_what_comes_just_before_a_reader_waits_is_not_missed() -> None:
    class Late(set):  # type: ignore[type-arg]
        def add(self, waiter: Any) -> None:
            stream._events.extend(held)
            super().add(waiter)

    with Decoder(endless()) as decoder:
        stream = decoder.astream("Go on.", max_tokens=2)
        assert await asyncio.to_thread(eventually, lambda: len(stream._events) == 3)
        held = [*stream._events]
        stream._events.clear()
        stream._waiters = Late()
        assert len(await asyncio.wait_for(read(stream), 5)) == 2


async def test_closing_elsewhere_wakes_a_reader() -> None:
    with Decoder(endless(0.002), max_rows=1) as decoder:
        busy, stream = (decoder.stream("x", max_tokens=10_000) for _ in range(2))
        reader = threading.Thread(target=lambda: list(stream))
        reader.start()
        stream.close()
        reader.join(10)
        assert not reader.is_alive()
        waiting = decoder.astream("x", max_tokens=10_000)
        reading = asyncio.create_task(read(waiting))
        await asyncio.sleep(0.01)
        await asyncio.wait_for(waiting.aclose(), 10)
        assert await asyncio.wait_for(reading, 10) == []
        busy.close()


async def test_timeouts_leave_nothing_behind() -> None:
    let = threading.Event()
    with Decoder(held(let)) as decoder:
        async with decoder.astream("x", max_tokens=2) as stream:
            for _ in range(5):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(stream), 0.001)
            assert not stream._waiters
            let.set()
            assert len(await read(stream)) == 2


async def test_a_reader_with_much_to_read_lets_its_loop_turn() -> None:
    with Decoder(endless()) as decoder:
        stream = decoder.astream("x", max_tokens=320)
        assert await asyncio.to_thread(eventually, lambda: stream.mailbox.sent == 321)
        turns = 0

        async def turning() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(turning())
        assert len(await read(stream)) == 320
        task.cancel()
        assert turns >= 10


# -- rendering beside the loop ---------------------------------------------------------------


class Slow(ScriptedPair):
    """An endless pair that renders long conversations only when it is let."""

    def __init__(self, context: int = 10**6) -> None:
        words = dict.fromkeys(WORDS, 0.2)
        super().__init__(lambda _: words, lambda _: words, vocabulary=WORDS, context=context)
        self.let = threading.Event()
        self.begun: list[Any] = []
        self.rendered: list[str] = []

    def render_base(self, messages: Any, *, tokenize: bool = False) -> Any:
        if tokenize:
            if len(str(messages)) > 4096:
                self.begun.append(messages)
                assert self.let.wait(20)
            self.rendered.append(messages[0]["content"].strip()[-5:])
        return super().render_base(messages, tokenize=tokenize)


async def test_what_takes_long_to_render_holds_up_neither_the_loop_nor_others() -> None:
    with Decoder(pair := Slow()) as decoder:
        settings = {"max_tokens": 3, "seed": 5}
        asked = [LONG + "first", LONG + "other"]
        tasks = [asyncio.create_task(decoder.agenerate(each, **settings)) for each in asked]
        stream = decoder.astream(LONG + "fifth", **settings)
        await asyncio.sleep(0.02)
        (answer,) = await asyncio.wait_for(decoder.agenerate("third", **settings), 10)
        assert pair.rendered == ["third"] and not any(task.done() for task in tasks)
        pair.let.set()
        answers = [(await task)[0] for task in tasks]
        assert len(await read(stream)) == 3
        assert await asyncio.to_thread(decoder.generate, "third", **settings) == [answer]
        assert await asyncio.to_thread(decoder.generate, asked[0], **settings) == [answers[0]]
        assert not decoder._unrendered


async def test_nothing_is_rendered_on_the_loop() -> None:
    threads = set()

    class Noting(Slow):
        def render_base(self, messages: Any, *, tokenize: bool = False) -> Any:
            threads.add(threading.current_thread())
            return super().render_base(messages, tokenize=tokenize)

    with Decoder(Noting()) as decoder:
        for _ in range(3):
            await decoder.agenerate("Go on.", max_tokens=1)
        await read(decoder.astream("Go on.", max_tokens=1))
        assert threads and threading.main_thread() not in threads


async def test_all_threads_are_busy_and_who_waits_is_told_in_time() -> None:
    with Decoder(pair := Slow(), max_waiting=MAX_RENDERING + 1) as decoder:
        busy = [decoder.astream(LONG, max_tokens=3) for _ in range(MAX_RENDERING)]
        waiting = decoder.astream("Go on.", max_tokens=3, timeout=0.03)
        with pytest.raises(QueueFullError, match="max_waiting"):
            decoder.astream("Go on.")
        with pytest.raises(DeadlineError, match="0.03 s, with 0 of at most 3 tokens"):
            await asyncio.wait_for(read(waiting), 10)
        pair.let.set()
        assert [len(await read(each)) for each in busy] == [3] * MAX_RENDERING
        assert len(pair.rendered) == MAX_RENDERING  # nothing was rendered for nobody


async def test_the_time_is_over_while_it_is_rendered() -> None:
    with Decoder(pair := Slow()) as decoder:
        for ask in (decoder.agenerate, lambda *given, **s: read(decoder.astream(*given, **s))):
            with pytest.raises(DeadlineError):
                await asyncio.wait_for(ask(LONG, max_tokens=3, timeout=0.03), 10)
        pair.let.set()
        assert await asyncio.to_thread(eventually, lambda: not decoder._unrendered)
        assert decoder.metrics.admitted == 0
        assert len(await decoder.agenerate(LONG, max_tokens=3, timeout=1e300)) == 1


def test_whoever_fails_to_render_in_time_is_late() -> None:
    class Failing(ScriptedPair):
        def render_base(self, messages: Any, *, tokenize: bool = False) -> Any:
            time.sleep(0.1)
            raise ValueError("gave up")

    with Decoder(Failing({"": {" a": 1}}, {})) as decoder:
        with pytest.raises(DeadlineError):
            decoder.generate("Go on.", timeout=0.03)
        with pytest.raises(PromptError, match="ValueError: gave up"):
            decoder.generate("Go on.", timeout=60)


@pytest.mark.parametrize("sync", [True, False])
async def test_the_time_is_over_although_the_worker_is_busy(sync: bool) -> None:
    let = threading.Event()
    with Decoder(held(let)) as decoder:
        settings = {"max_tokens": 3, "timeout": 0.03}
        with pytest.raises(DeadlineError):
            if sync:
                decoder.generate("Go on.", **settings)
            else:
                await asyncio.wait_for(decoder.agenerate("Go on.", **settings), 10)
        let.set()
        assert await asyncio.to_thread(eventually, lambda: not decoder.running)


async def test_what_is_cancelled_while_it_is_rendered_never_runs() -> None:
    with Decoder(pair := Slow()) as decoder:
        task = asyncio.create_task(decoder.agenerate(LONG, max_tokens=3))
        busy = [decoder.astream(LONG, max_tokens=3) for _ in range(MAX_RENDERING)]
        late = asyncio.create_task(decoder.agenerate("late", max_tokens=3))
        stream = decoder.astream(LONG, max_tokens=3)
        reading = asyncio.create_task(read(stream))
        await asyncio.sleep(0.01)
        for each in (task, late):
            each.cancel()
            with pytest.raises(asyncio.CancelledError):
                await each
        for one in (stream, *busy):
            await asyncio.wait_for(one.aclose(), 10)
        assert await asyncio.wait_for(reading, 10) == []
        pair.let.set()
        assert await asyncio.to_thread(eventually, lambda: not decoder._unrendered)
        assert decoder.metrics.admitted == 0 and len(pair.rendered) <= MAX_RENDERING


async def test_what_is_wrong_with_a_conversation_is_told() -> None:
    with Decoder(pair := Slow(context=5000), max_rows=1, max_waiting=1) as decoder:
        pair.let.set()
        for ask in (decoder.agenerate, lambda *given, **s: read(decoder.astream(*given, **s))):
            with pytest.raises(PromptError, match="[0-9] tokens"):
                await ask(LONG)
            with pytest.raises(QueueFullError):
                await ask("Go on.", n=2)
        with pytest.raises(PromptError, match="content"):
            decoder.astream([{"role": "user", "content": "Go on."}, {"role": "user"}])  # at once
        assert decoder.metrics.admitted == 0


async def test_a_decoder_that_closes_tells_who_waits_to_be_rendered() -> None:
    with Decoder(pair := Slow()) as decoder:
        late = [asyncio.create_task(decoder.agenerate(LONG)) for _ in range(MAX_RENDERING + 2)]
        await asyncio.sleep(0)
        assert await asyncio.to_thread(eventually, lambda: len(pair.begun) == MAX_RENDERING)
        await asyncio.to_thread(decoder.close)
        for each in late:
            with pytest.raises(DecoderClosedError):
                await asyncio.wait_for(each, 10)  # although rendering goes on
        with pytest.raises(DecoderClosedError):
            await decoder.agenerate("Go on.")
        pair.let.set()
        assert await asyncio.to_thread(eventually, lambda: not decoder._unrendered)
        assert len(pair.rendered) == MAX_RENDERING


async def test_a_conversation_is_rendered_as_it_was() -> None:
    class Seeing(Slow):
        def render_aligned(self, messages: Any, **settings: Any) -> Any:
            self.seen = messages[0]["content"], messages[1]["tool_calls"][0]["function"]
            return super().render_aligned(messages, **settings)

    with Decoder(pair := Seeing()) as decoder:
        function = {"name": "f", "arguments": {"a": 1}}
        called = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
        history = [{"role": "user", "content": LONG}, called]
        asked = decoder.astream(history, max_tokens=3)
        history[0]["content"] = "other"
        function["arguments"]["a"] = 2
        pair.let.set()
        await read(asked)
        assert pair.seen == (LONG, {"name": "f", "arguments": {"a": 1}})


async def test_a_decoder_that_closes_while_it_is_asked_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Decoder(endless()) as decoder:
        submit = decoder._rendering.submit

        def late(task: Any) -> None:
            decoder.close()  # in another thread, after it was found open
            submit(task)

        monkeypatch.setattr(decoder._rendering, "submit", late)
        with pytest.raises(DecoderClosedError):
            await asyncio.wait_for(decoder.agenerate("Go on."), 10)
        # The caller is told before the thread comes to it.
        assert await asyncio.to_thread(eventually, lambda: not decoder._unrendered)


async def test_where_no_thread_can_be_started_a_request_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Decoder(endless()) as decoder:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(DecoderError, match="can't start new thread"):
                await decoder.agenerate("Go on.")
        assert not decoder._unrendered
        assert len(await decoder.agenerate("Go on.", max_tokens=2)) == 1


async def test_a_router_that_asks_its_own_decoder_is_refused() -> None:
    class Asking:
        def route(self, inputs: Any) -> Any:
            return asyncio.run(decoder.agenerate(LONG, max_tokens=3))

    with Decoder(endless()) as decoder, pytest.raises(DecoderError, match="asked its own decoder"):
        await asyncio.wait_for(decoder.agenerate("x", router=Asking(), max_tokens=3), 10)


async def test_a_tokenizer_renders_for_many_at_once() -> None:
    asked = [f"{number} {'word ' * (10 + 900 * (number % 2))}" for number in range(16)]
    params = SamplingParams(max_tokens=1)
    with Decoder(random_pair(), max_rows=2) as decoder:

        def told(text: str) -> str:
            try:
                return str(decoder.generate(text, params)[0].usage)
            except PromptError as error:
                return str(error)

        async def atold(text: str) -> str:
            try:
                return str((await decoder.agenerate(text, params))[0].usage)
            except PromptError as error:
                return str(error)

        expected = [told(each) for each in asked]
        threads = asyncio.gather(*(asyncio.to_thread(told, each) for each in asked))
        assert await asyncio.gather(*map(atold, asked)) == await threads == expected
        assert len(set(expected)) >= 3


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("what", ["a long conversation", "a stream", "an async stream"])
def test_a_forked_child_is_told_so(what: str) -> None:
    with Decoder(pair := Slow()) as decoder:
        pair.let.set()
        run(decoder.agenerate(LONG, max_tokens=1))  # the thread has begun
        stream = decoder.stream("Go on.", max_tokens=4000)
        astream = run(opened(decoder, "Go on.", max_tokens=4000))
        if (child := os.fork()) == 0:
            try:
                if what == "a long conversation":
                    run(decoder.agenerate(LONG, max_tokens=1))
                elif what == "a stream":
                    list(stream)
                else:
                    run(read(astream))
            except DecoderClosedError:
                os._exit(0)
            os._exit(1)
        stream.close()
        run(astream.aclose())
        deadline = time.monotonic() + 20
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert done[1] == 0 and done[0] == child


TOOL = {"function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}}
CALL = ["<tool_call>\n", '{"na', 'me": "f", "arguments": {', '"a": 1', "}}", "\n", "</tool_"]


def calling(before: Callable[[int], object] = int) -> ScriptedPair:
    def script(seen: Any) -> dict[str, float]:
        before(len(seen.tokens))
        return {CALL[min(len(seen.tokens), len(CALL) - 1)]: 1.0}

    return ScriptedPair(script, script, vocabulary=CALL)


@pytest.mark.parametrize("length", range(1, len(CALL) + 1))
def test_what_is_cut_off_within_a_call_is_no_text(length: int) -> None:
    settings: dict[str, Any] = {"tools": [TOOL], "max_tokens": length, "seed": 1}
    with Decoder(calling()) as decoder:
        (whole,) = decoder.generate("x", **settings)
        stream = decoder.stream("x", **settings)
        steps = list(stream)
    assert whole.text == "".join(step.text for step in steps) == ""
    for (call,) in (whole.tool_calls, stream.completions[0].tool_calls):
        assert (call.error is None) == (length >= CALL.index("}}") + 1)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_call_that_a_cancelled_stream_has_begun_is_not_valid(length: int) -> None:
    go_on = threading.Event()
    with Decoder(calling(lambda decided: decided < length or go_on.wait(20))) as decoder:
        stream = decoder.stream("x", tools=[TOOL], seed=1)
        for _ in range(length):
            next(stream)
        stream.cancel()  # as closing does, while one more token is on its way
        go_on.set()
        stream.close()
    (completion,) = stream.completions
    assert completion.finish_reason == "cancelled" and completion.text == ""
    (call,) = completion.tool_calls
    assert call.error == "The text ends within the call."


def test_text_that_spells_an_end_token_ends_nothing() -> None:
    said = ["a", "<|im_end|>", "b", "<end", ">", "</s>"]
    script = {"".join(said[:length]): {said[length]: 1.0} for length in range(len(said))}
    with Decoder(ScriptedPair(script, script)) as decoder:
        (completion,) = decoder.generate("x", seed=1)
        steps = list(decoder.stream("x", seed=1))
    assert completion.text == "".join(said) == "".join(step.text for step in steps)
    assert completion.finish_reason == "stop" and len(completion.steps) == len(said) + 1
