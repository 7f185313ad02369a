"""The vLLM engine decodes what the definition says, and what the local engine decodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baco_integrations import Decoder, SamplingParams
from baco_integrations.core.errors import (
    DeadlineError,
    DecoderClosedError,
    ParameterError,
    WorkerError,
)
from baco_integrations.core.routing import ROUTERS
from baco_integrations.engines.base import EngineSettings
from baco_integrations.engines.open import open_engine
from tests.conformance.definition import check
from tests.conformance.test_definition import messages, quiet, request
from tests.conformance.test_invariants import generate
from tests.engines.vllm.pairs import TEXTS, decode, gist, load, make_folders, requests, run

pytest.importorskip("vllm", reason="vLLM is not installed; CONTRIBUTING says how to run these")

FAMILIES = ("llama", "qwen2", "qwen3", "olmo2", "mistral", "gemma2", "gemma3")
SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {"max_num_batched_tokens": 2048},
    "chunked prefill": {"max_num_batched_tokens": 24},
    "preemption": {"num_gpu_blocks_override": 17},
}


@pytest.fixture(scope="module")
def fused(llama: tuple[Path, Path]) -> Iterator[Decoder]:
    """A decoder that most tests share, beside which others come and go."""
    with Decoder(load(llama, **SCENARIOS["plain"], distributed_executor_backend="mp")) as decoder:
        yield decoder


@pytest.fixture
def preempted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that have lost their place."""
    from vllm.v1.core.sched.scheduler import Scheduler

    lost, preempt = [], Scheduler._preempt_request

    def noting(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        lost.append(request.request_id)
        return preempt(self, request, *args, **kwargs)

    monkeypatch.setattr(Scheduler, "_preempt_request", noting)
    return lost


@pytest.mark.parametrize("base_prompt", ["chat_template", "qa"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_router_in_one_mixed_batch(
    llama: tuple[Path, Path], scenario: str, base_prompt: str, preempted: list[str]
) -> None:
    reference = load(llama, base_prompt)
    pair = load(llama, base_prompt, **SCENARIOS[scenario])
    with Decoder(pair, max_rows=24) as decoder:
        completions = decode(decoder, 32)
    with Decoder(reference) as decoder:
        assert gist(completions) == gist(decode(decoder, 32))
    steps = [
        check(reference, text, params, completion, rtol=1e-3, atol=1e-5)
        for text, params, completion in zip(*requests(32), completions, strict=True)
    ]
    assert sum(steps) > 1000
    assert {step.source for each in completions for step in each.steps} == {"base", "aligned"}
    assert (len(preempted) >= 5) == (scenario == "preemption")


# The same requests each time: in float32 one in many thousands may meet a tie.
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(messages, request), min_size=1, max_size=5))
def test_random_requests_in_random_batches(
    llama: tuple[Path, Path], fused: Decoder, batch: list
) -> None:
    params = [quiet(**values | {"alternatives": 0}) for _, values in batch]
    results = fused.generate_batch([text for text, _ in batch], params)
    for (text, _), own, completions in zip(batch, params, results, strict=True):
        assert [completion.sample for completion in completions] == list(range(own.n))
        for completion in completions:
            check(load(llama), text, own, completion, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(tmp_path: Path, family: str) -> None:
    folders = make_folders(tmp_path, family)
    # First, for vLLM changes the modules of some families for the whole process.
    with Decoder(load(folders)) as decoder:
        expected = gist(decode(decoder))
    with Decoder(load(folders, max_num_batched_tokens=40), max_rows=16) as decoder:
        assert gist(decode(decoder)) == expected


def test_either_prompt_may_be_the_longer_one(llama: tuple[Path, Path]) -> None:
    """By less than a block, by several, by more than is read at a time, and by nothing."""
    lengths = ((1, 200), (200, 1), (64, 96), (96, 64), (50, 51), (33, 130), (130, 33), (40, 40))
    prompts = [
        (tuple(range(20, 20 + base)), tuple(range(30, 30 + aligned))) for base, aligned in lengths
    ]
    expected = [sink.tokens for sink in run(load(llama), prompts)]
    for options in ({"max_num_batched_tokens": 48}, {"num_gpu_blocks_override": 17}):
        found = [sink.tokens for sink in run(load(llama, **options), prompts, at_once=True)]
        assert found == expected


def test_prompts_that_begin_alike_are_read_once(llama: tuple[Path, Path]) -> None:
    pair = load(llama, "chat_template", enable_chunked_prefill=True)
    params = SamplingParams(seed=1, max_tokens=16, gamma=0.8)
    text = TEXTS[2]
    with Decoder(pair) as decoder:
        (first,) = decoder.generate(text, params)
        assert decoder.metrics.reused == 0
        (again,) = decoder.generate(text, params)
        assert decoder.metrics.reused >= 64
        (longer,) = decoder.generate(text + " And then?", params)
    with Decoder(load(llama, "chat_template")) as decoder:
        assert decoder.generate(text, params)[0].text == first.text == again.text
        assert decoder.generate(text + " And then?", params)[0].text == longer.text


@pytest.mark.parametrize("text", TEXTS)
def test_both_ends_are_the_models_own_generate(
    llama: tuple[Path, Path], fused: Decoder, text: str
) -> None:
    pair = load(llama)
    for side in ("aligned", "base"):
        model, ends = getattr(pair, side), getattr(pair, f"{side}_eos")
        prompt = getattr(pair, f"render_{side}")(text, tokenize=True)
        expected = generate(model, prompt, ends, getattr(pair, f"{side}_size"))
        names = [n for n, s in ROUTERS.items() if s.rule] if side == "aligned" else ["base"]
        for router in names:
            gamma = {"gamma": 0} if side == "aligned" else {}
            params = SamplingParams(router=router, temperature=0, max_tokens=30, **gamma)
            (completion,) = fused.generate(text, params)
            found = [step.token_id for step in completion.steps]
            assert found == expected[: len(found)]
            assert len(found) == len(expected) or "\nQ:" in pair.decode(expected)


def test_seeds_samples_and_streams(fused: Decoder) -> None:
    texts = [fused.generate("Hi", seed=seed, max_tokens=20)[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    many = fused.generate("Hi", seed=5, n=5, max_tokens=16)
    few = fused.generate("Hi", seed=5, n=2, max_tokens=16)
    assert [each.text for each in few] == [each.text for each in many[:2]]
    assert len({each.text for each in many}) > 1
    params = SamplingParams(seed=3, max_tokens=30, stop=["e", "ab"])
    (whole,) = fused.generate("Hi", params)
    stream = fused.stream("Hi", params)
    assert tuple(stream) == whole.steps
    assert stream.completions == [whole]


def test_what_vllm_cannot_do_is_refused(fused: Decoder, llama: tuple[Path, Path]) -> None:
    class Never:
        def route(self, inputs: Any) -> Any:
            return inputs.p_max < 0

    for name, asked in {
        "json_schema, regex, choices and tools": {"regex": "[a-z]+"},
        "router": {"router": Never()},
        "alternatives": {"alternatives": 2},
    }.items():
        with pytest.raises(ParameterError, match=f"^{name} must be left out with this engine"):
            fused.generate("Hi", **asked)
    pair = load(llama, max_num_batched_tokens=64)
    with pytest.raises(ParameterError, match="only must be left out with engine='vllm'"):
        open_engine(pair, EngineSettings(), only="base")
    for options, named in (
        ({"modle": 1}, "{'modle': 1}"),
        ({"max_num_seqs": 3}, "{'max_num_seqs': 3}"),
        ({"data_parallel_size": 2}, "data_parallel_size"),
    ):
        with pytest.raises(ParameterError, match=named):
            Decoder(load(llama, **options))


def test_requests_end_alone(fused: Decoder) -> None:
    """Cancelled, late and refused requests leave others as they would be."""
    (expected,) = fused.generate(TEXTS[0], seed=1, max_tokens=60, router="aligned")
    stream = fused.stream(TEXTS[1], max_tokens=400, router="aligned", temperature=1)
    other = fused.stream(TEXTS[0], seed=1, max_tokens=60, router="aligned")
    next(iter(stream))
    stream.close()
    assert stream.completions[0].finish_reason == "cancelled"
    with pytest.raises(DeadlineError):
        fused.generate(TEXTS[1], max_tokens=400, timeout=1e-4)
    assert [step.token_id for step in other] == [step.token_id for step in expected.steps]
    assert fused.running == fused.waiting == 0


def test_what_runs_when_it_is_closed_fails(llama: tuple[Path, Path]) -> None:
    decoder = Decoder(load(llama, max_num_batched_tokens=64))
    stream = decoder.stream("Hi", max_tokens=400, router="aligned")
    next(iter(stream))
    decoder.close()
    with pytest.raises(DecoderClosedError):
        list(stream)
    with pytest.raises(DecoderClosedError):
        decoder.generate("Hi")


def test_random_numbers_of_others_go_on(llama: tuple[Path, Path]) -> None:
    import random

    import torch

    random.seed(4), torch.manual_seed(4)
    expected = random.random(), torch.rand(1)
    random.seed(4), torch.manual_seed(4)
    with Decoder(load(llama, max_num_batched_tokens=64)):
        assert (random.random(), torch.rand(1)) == expected


@pytest.mark.slow
def test_a_killed_worker_fails_its_requests(
    llama: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # two share what cores there are
    pair = load(llama, tensor_parallel_size=2)
    with Decoder(load(llama)) as decoder:
        expected = gist(decode(decoder))
    with Decoder(pair, max_rows=24) as decoder:
        assert gist(decode(decoder)) == expected
        stream = decoder.stream("Hi", max_tokens=400, router="aligned")
        next(iter(stream))
        decoder.engine.llm.model_executor.workers[1].proc.kill()
        with pytest.raises(WorkerError, match="worker failed"):
            list(stream)
        with pytest.raises(DecoderClosedError, match="vLLM has failed: open another decoder"):
            decoder.generate("Hi")
