"""A server's pair decodes as it would here, whoever asks, and whatever becomes of the asker."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import pytest

from baco_integrations import Decoder, SamplingParams, ScriptedPair
from baco_integrations.core.errors import (
    BacoError,
    DeadlineError,
    DecoderClosedError,
    ParameterError,
    PromptError,
    QueueFullError,
)
from baco_integrations.remote.decoder import MOST_SHARED, RemoteDecoder
from tests.remote.other_servers import other_server
from tests.scripted import Meeting, endless, eventually, idle
from tests.server.serving import Serving, serving

PROMPT = "Suggest a gift."
TOOL = {
    "type": "function",
    "function": {
        "name": "pick",
        "parameters": {
            "type": "object",
            "properties": {"thing": {"enum": ["scarf", "mug"]}, "why": {"type": "string"}},
            "required": ["thing", "why"],
        },
    },
}
HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Suggest a gift.  "},
    {
        "role": "assistant",
        "tool_calls": [
            {"id": "a", "function": {"name": "pick", "arguments": {"why": "wärm", "n": 1.5}}}
        ],
    },
    {"role": "tool", "content": "\u2028 line\x85breaks\r\n", "tool_call_id": "a"},
    {"role": "user", "content": "And?"},
]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (PROMPT, {}),
    "samples": (PROMPT, {"n": 3, "gamma": 0.9}),
    "threshold": (PROMPT, {"threshold": 1.5, "router": "h", "boundary": False}),
    "one side": (PROMPT, {"router": "base", "stop": "."}),
    "sides": (PROMPT, {"base": {"temperature": 2}, "aligned": {"top_k": 3}, "temperature": 0.1}),
    "alternatives": (PROMPT, {"alternatives": 3, "min_p": 0.05}),
    "stop": (PROMPT, {"stop": ["a", "it"]}),
    "schema": (PROMPT, {"json_schema": SCHEMA, "show_schema": False}),
    "choices": (PROMPT, {"choices": ["yes", "no"]}),
    "pattern": (PROMPT, {"regex": "[a-c]{2,5}"}),
    "calls": (PROMPT, {"tools": [TOOL], "max_tokens": 40}),
    "a call": (PROMPT, {"tools": [TOOL], "tool_choice": "any", "max_tokens": 40}),
    "cut call": (PROMPT, {"tools": [TOOL], "tool_choice": "pick", "max_tokens": 12}),
    "no call": (PROMPT, {"tools": [TOOL], "tool_choice": "none"}),
    "history": (HISTORY, {"tools": [TOOL]}),
    "go on": ([*HISTORY, {"role": "assistant", "content": "A"}], {"continue_final_message": True}),
    "raw": ("Once upon a", {"raw": True, "n": 2}),
    "raw ids": ([5, 6, 7], {"raw": True, "alternatives": 1}),
}


@pytest.mark.parametrize("case", CASES)
async def test_as_here(case: str, local: Decoder, remote: RemoteDecoder) -> None:
    prompt, settings = CASES[case]
    params = SamplingParams(**{"seed": 3, "max_tokens": 20, **settings})
    with local.stream(prompt, params) as stream:
        steps = [*stream]
    wanted = stream.completions
    assert wanted[0].steps
    with remote.stream(prompt, params) as there:
        assert [*there] == steps
    assert there.completions == wanted
    assert remote.generate(prompt, params) == wanted
    assert await remote.agenerate(prompt, params) == wanted
    async with remote.astream(prompt, params) as astream:
        assert [step async for step in astream] == steps
    assert astream.completions == wanted


def test_a_batch(local: Decoder, remote: RemoteDecoder) -> None:
    prompts = ["Suggest a gift.", "Name a pet.", "Suggest a hobby."]
    each = [SamplingParams(seed=seed, max_tokens=9, n=seed) for seed in (1, 2, 3)]
    told = [[c.text for c in answers] for answers in local.generate_batch(prompts, each)]
    assert [[c.text for c in answers] for answers in remote.generate_batch(prompts, each)] == told
    assert remote.generate_batch([], each[:0]) == []


def test_a_batch_with_errors(local: Decoder, remote: RemoteDecoder) -> None:
    prompts: list[Any] = ["Name a pet.", "", "word " * 3000, [{"role": "usr"}]]
    ask = {"seed": 1, "max_tokens": 4, "return_exceptions": True}
    here, there = (decoder.generate_batch(prompts, **ask) for decoder in (local, remote))
    assert [str(each) for each in here[1:]] == [str(each) for each in there[1:]]
    assert [type(each) for each in there] == [list, PromptError, PromptError, PromptError]
    assert there[0][0].text == here[0][0].text
    for refused in (prompts[1:], prompts[2:]):
        with pytest.raises(PromptError):
            remote.generate_batch(refused)


ERRORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "setting": (PROMPT, {"gamma": 2}),
    "unknown": (PROMPT, {"gama": 0.2}),
    "empty": ([], {}),
    "long": ("word " * 3000, {}),
    "pattern": (PROMPT, {"regex": "("}),
    "schema": (PROMPT, {"json_schema": {"type": "text"}}),
    "deep": ([{"role": "user", "content": ["x"]}], {}),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_errors_as_here(case: str, local: Decoder, remote: RemoteDecoder) -> None:
    prompt, settings = ERRORS[case]
    with pytest.raises(BacoError) as here:
        local.generate(prompt, **settings)
    with pytest.raises(type(here.value)) as there:
        remote.generate(prompt, **settings)
    assert str(there.value) == str(here.value)
    assert isinstance(here.value, ParameterError) and isinstance(there.value, ParameterError)
    for name in ("parameter", "allowed", "remedy"):
        assert getattr(there.value, name) == getattr(here.value, name)
    with pytest.raises(type(here.value)):
        [*remote.stream(prompt, **settings)]
    with pytest.raises(type(here.value)):
        [_ async for _ in remote.astream(prompt, **settings)]


def test_no_seed_draws_anew(remote: RemoteDecoder) -> None:
    one, other = (remote.generate("Hi", max_tokens=2)[0] for _ in range(2))
    assert one.seed != other.seed
    assert remote.generate("Hi", max_tokens=2, seed=one.seed)[0].text == one.text


def test_what_is_left_out_is_as_the_server_sets_it() -> None:
    with (
        serving({"p": endless()}, defaults={"max_tokens": 3, "gamma": 0.25, "n": 2}) as running,
        RemoteDecoder(running.api) as remote,
    ):
        (answer,) = remote.generate("Hi")
        assert (len(answer.steps), answer.gamma) == (3, 0.25)
        (answer,) = remote.generate("Hi", max_tokens=2, threshold=0.5)
        assert (len(answer.steps), answer.gamma) == (2, 0.5)
        assert [step.sample for step in remote.stream("Hi")] == [0, 0, 0]  # one answer is asked for


def test_a_router_of_ones_own_stays_here(remote: RemoteDecoder) -> None:
    class Mine:
        def route(self, inputs: Any) -> Any:
            raise AssertionError

    with pytest.raises(ParameterError, match="router must be the name of a router"):
        remote.generate("Hi", router=Mine())


# -- the pair --------------------------------------------------------------------------------------


def test_the_only_pair_need_not_be_named(served: Serving) -> None:
    pair = RemoteDecoder(served.api).pair
    assert (pair.known_name, pair.known_context) == (None, None)
    assert (pair.name, pair.context) == ("tiny", (1024, 1024))
    assert (pair.known_name, pair.known_context) == ("tiny", (1024, 1024))
    assert RemoteDecoder(served.url + "/v1/", pair="tiny@gamma=0.2").pair.context == (1024, 1024)
    assert RemoteDecoder(served.url, pair="tiny@gamma=0.2").generate("Hi")[0].gamma == 0.2


def test_one_of_several_pairs_must_be_named() -> None:
    with serving({"one": endless(), "two": endless()}) as running:
        with pytest.raises(ParameterError, match="pair must be one of one, two, which"):
            RemoteDecoder(running.api).generate("Hi")
        for ask in (lambda pair: pair.context, lambda pair: pair.encode("a")):
            with pytest.raises(ParameterError, match="pair must be one .*'?[Dd]id you mean 'two'"):
                ask(RemoteDecoder(running.api, pair="too").pair)
        assert RemoteDecoder(running.api, pair="two").generate("Hi", max_tokens=1)


def test_a_server_may_come_back_with_another_pair() -> None:
    with serving({"one": endless()}) as running:
        remote = RemoteDecoder(running.api)
        assert remote.generate("Hi", max_tokens=1)
        pairs = running.server.pairs._served
        pairs["two"] = pairs.pop("one")
        pairs["two"].name = "two"
        with pytest.raises(ParameterError, match="There is no model 'one'"):
            remote.generate("Hi", max_tokens=1)
        assert remote.generate("Hi", max_tokens=1) and remote.pair.name == "two"


def test_a_pair_that_is_not_loaded_yet_tells_its_context() -> None:
    with serving({"late": "tiny"}) as running:
        assert RemoteDecoder(running.api).pair.context == (1024, 1024)


def test_tokens_are_counted_by_the_server(local: Decoder, remote: RemoteDecoder) -> None:
    assert remote.pair.encode("A gift, as ever.") == local.pair.encode("A gift, as ever.")
    tools: dict[str, Any] = {"tokenize": True, "tools": [TOOL]}
    assert remote.pair.render_aligned(HISTORY, **tools) == local.pair.render_aligned(
        HISTORY, **tools
    )
    with pytest.raises(PromptError, match="a conversation with some text"):
        remote.pair.render_aligned([{"role": "user", "content": " "}])
    with pytest.raises(ParameterError, match="tokenize must be True"):
        remote.pair.render_aligned(HISTORY, tokenize=False)


# -- closing, and time -----------------------------------------------------------------------------


async def test_leaving_a_stream_frees_its_rows() -> None:
    with serving({"p": endless(0.001)}) as running:
        remote = RemoteDecoder(running.api)
        with remote.stream("Go on.", max_tokens=2000, n=2, seed=7) as stream:
            first = next(stream)
        assert idle(running.decoder)
        assert [c.finish_reason for c in stream.completions] == ["cancelled"] * 2
        cut = stream.completions[first.sample]
        assert cut.steps[0] == first and cut.text == "".join(step.text for step in cut.steps)
        assert (cut.seed, cut.usage.completion_tokens) == (7, len(cut.steps))
        async with remote.astream("Go on.", max_tokens=2000) as astream:
            await anext(astream)
        assert await asyncio.to_thread(idle, running.decoder)
        kept = remote.stream("Go on.", max_tokens=2000)
        next(kept)
        del kept
        assert await asyncio.to_thread(idle, running.decoder)
        task = asyncio.create_task(remote.agenerate("Go on.", max_tokens=2000))
        while not running.decoder.running:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(idle, running.decoder)
        assert not running.decoder.running


def test_another_thread_closes_a_stream_that_is_read() -> None:
    with other_server(None) as silent:
        stream = RemoteDecoder(silent.url, pair="p").stream("Go on.", n=2)
        reader = Thread(target=lambda: [*stream])
        reader.start()
        assert eventually(lambda: len(silent.asked) == 1)
        stream.close()
        reader.join(20)
        assert not reader.is_alive()
        assert [each.finish_reason for each in stream.completions] == ["cancelled"] * 2


async def test_a_request_fails_when_its_time_is_over() -> None:
    with serving({"p": endless(0.01)}) as running:
        remote = RemoteDecoder(running.api)
        settings: dict[str, Any] = {"max_tokens": 2000, "timeout": 0.2}
        told = r"longer than its timeout of 0\.2 s, with \d+ of at most 2000 tokens decoded"
        with pytest.raises(DeadlineError, match=told):
            remote.generate("Hi", **settings)
        with pytest.raises(DeadlineError, match=told):
            await remote.agenerate("Hi", **settings)
        with pytest.raises(DeadlineError, match=told):
            [*remote.stream("Hi", **settings)]
        with pytest.raises(DeadlineError, match=told):
            [_ async for _ in remote.astream("Hi", **settings)]
        assert idle(running.decoder)


def test_a_full_queue_is_told(impatient: None) -> None:
    with serving({"p": endless(0.001)}, engine={"max_rows": 1, "max_waiting": 1}) as running:
        remote = RemoteDecoder(running.api, max_retries=0)
        with remote.stream("Go on.", max_tokens=2000) as stream:
            next(stream)
            with pytest.raises(QueueFullError, match="the queue holds 1"):
                remote.generate("Hi", n=2)
            answers = remote.generate_batch(["Hi"] * 2, n=2, max_tokens=1, return_exceptions=True)
            assert [type(each) for each in answers] == [QueueFullError] * 2


# -- who asks --------------------------------------------------------------------------------------


def test_many_threads_at_once() -> None:
    with serving({"p": Meeting(50)}, engine={"max_rows": 64}) as running:
        remote = RemoteDecoder(running.api)

        def ask(seed: int) -> tuple[int, int]:
            (answer,) = remote.generate("Go on.", seed=seed, max_tokens=3)
            return answer.seed, len(answer.steps)

        with ThreadPoolExecutor(50) as threads:
            assert [*threads.map(ask, range(50))] == [(seed, 3) for seed in range(50)]


async def test_two_hundred_calls_at_once() -> None:
    with serving({"p": Meeting(200)}, engine={"max_rows": 256}) as running:
        remote = RemoteDecoder(running.api)
        calls = (remote.agenerate("Go on.", seed=seed, max_tokens=1) for seed in range(200))
        answers = await asyncio.gather(*calls)
        assert [each[0].seed for each in answers] == [*range(200)]


def test_one_decoder_for_several_event_loops(remote: RemoteDecoder) -> None:
    async def ask() -> str:
        return (await remote.agenerate("Hi", seed=1, max_tokens=5))[0].text

    async def both() -> list[str]:
        return await asyncio.gather(ask(), asyncio.to_thread(asyncio.run, ask()))

    assert {asyncio.run(ask()), *asyncio.run(both())} == {asyncio.run(ask())}


def test_a_stream_may_change_loops(remote: RemoteDecoder, local: Decoder) -> None:
    stream = remote.astream("Suggest a gift.", seed=1)
    first = asyncio.run(anext(stream))

    async def rest() -> list[Any]:
        return [step async for step in stream]

    assert (first, *asyncio.run(rest())) == local.generate("Suggest a gift.", seed=1)[0].steps


CHILD = """
import os, sys
from baco_integrations.core.errors import DecoderClosedError
from baco_integrations.remote.decoder import RemoteDecoder

url = sys.argv[1]
unused, used = RemoteDecoder.shared(url, pair="p"), RemoteDecoder.shared(url)
wanted = used.generate("Hi", seed=1, max_tokens=5)[0].text
stream = used.stream("Hi", max_tokens=3)
next(stream)
child = os.fork()
if not child:
    assert used.closed and not unused.closed
    for ask in (lambda: next(stream), lambda: used.generate("Hi")):
        try:
            ask()
            os._exit(1)
        except DecoderClosedError:
            pass
    for decoder in (unused, RemoteDecoder.shared(url)):
        assert decoder.generate("Hi", seed=1, max_tokens=5)[0].text == wanted
    sys.exit(7)
assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 7
[*stream]
assert used.generate("Hi", seed=1, max_tokens=5)[0].text == wanted
assert not {"torch", "transformers", "tokenizers", "fastapi"} & {*sys.modules}
left_open = used.stream("Hi", max_tokens=200)
next(left_open)
print("all well")
"""


def test_forks_and_an_import_without_torch() -> None:
    with serving({"p": endless()}) as running:
        command = [sys.executable, "-W", "error", "-c", CHILD, running.api]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("all well\n", "")


def test_who_shares_and_who_closes() -> None:
    class User:
        pass

    one, other = User(), User()
    with serving({"p": endless()}) as running:
        url = running.api
        decoder = RemoteDecoder.shared(url, api_key="a", user=one)
        assert RemoteDecoder.shared(url, api_key="a", user=other) is decoder
        assert RemoteDecoder.shared(url, api_key="b") is not decoder
        assert RemoteDecoder.shared(url, api_key="a", pair="p") is not decoder
        decoder.close(one)
        assert not decoder.closed and decoder.generate("Hi", max_tokens=1)
        stream = decoder.stream("Hi")
        decoder.close(other)
        assert decoder.closed
        with pytest.raises(DecoderClosedError, match="the decoder was closed"):
            [*stream]  # noqa: B018
        with pytest.raises(DecoderClosedError, match="this decoder is closed"):
            decoder.generate("Hi")
        again = RemoteDecoder.shared(url, api_key="a")
        assert again is not decoder
        for number in range(MOST_SHARED):
            RemoteDecoder.shared(url, api_key=f"key-{number}")
        assert RemoteDecoder.shared(url, api_key="a") is not again


def test_texts_with_any_characters() -> None:
    words = [" \u2028", " \x85", " 🦊", ' "\\', "\x0b"]
    script = {"": dict.fromkeys(words, 0.2)}
    for word in words:
        script[word] = {".": 1.0}
    pair = ScriptedPair(script, script)
    with serving({"p": pair}) as running, Decoder(pair) as local:
        remote = RemoteDecoder(running.api)
        for seed in range(8):
            wanted = local.generate("Hi", seed=seed, max_tokens=9)
            assert remote.generate("Hi", seed=seed, max_tokens=9) == wanted
            with remote.stream("Hi", seed=seed, max_tokens=9) as stream:
                assert tuple(stream) == wanted[0].steps
