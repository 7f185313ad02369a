"""A plain vLLM server with the plugin: streams over HTTP tell the same as the local engine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from baco_integrations import Decoder, SamplingParams
from baco_integrations.engines.vllm import ARCHITECTURE
from baco_integrations.engines.vllm.channel import LOGPROBS, decode
from tests.engines.vllm.pairs import TEXTS, load

pytest.importorskip("vllm", reason="vLLM is not installed; CONTRIBUTING says how to run these")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STARTS_S = 600
KINDS: dict[str, list[str]] = {
    "one process": ["--enforce-eager", "--max-num-batched-tokens", "64"],
    "tensor parallel": ["--enforce-eager", "--tensor-parallel-size", "2"],
    "data parallel": ["--enforce-eager", "--data-parallel-size", "2"],
    "compiled": [],
    "compiled before": [],
}


@contextmanager
def serving(folders: tuple[Path, Path], *flags: str) -> Iterator[Any]:
    """Run a server; yield a client of it."""
    import httpx
    from openai import OpenAI

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base, aligned = map(str, folders)
    overrides = {"architectures": [ARCHITECTURE], "baco_base": base}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", aligned]
    command += ["--served-model-name", "pair", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", "512", "--max-num-seqs", "16", "--block-size", "32"]
    command += ["--hf-overrides", json.dumps(overrides), *flags]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    server = subprocess.Popen(command, env=os.environ | quiet)
    address, started = f"http://127.0.0.1:{port}", time.monotonic()
    try:
        while True:
            assert server.poll() is None and time.monotonic() - started < STARTS_S
            try:
                if httpx.get(f"{address}/health").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        yield OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    finally:
        server.terminate()
        server.wait(60)


def ask(client: Any, pair: Any, text: str, params: SamplingParams, own: bool) -> list[Any]:
    """Stream an answer: a chat with one prompt for both, or a completion with two."""
    prompt = pair.render_aligned(text, tokenize=True)
    extra: dict[str, Any] = {"router": params.router, "gamma": params.gamma}
    if own:
        extra["base_prompt_ids"] = pair.render_base(text, tokenize=True)
    common = {
        "model": "pair",
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "seed": params.seed,
        "stream": True,
        "extra_body": {"vllm_xargs": extra, "return_tokens_as_token_ids": True},
    }
    told = []
    if own:
        for chunk in client.completions.create(prompt=prompt, logprobs=LOGPROBS, **common):
            found = chunk.choices[0].logprobs
            values = [list(top.values()) for top in found.top_logprobs]
            told += zip(found.tokens, values, strict=True)
    else:
        messages = [{"role": "user", "content": text}]
        chat = client.chat.completions.create
        for chunk in chat(messages=messages, logprobs=True, top_logprobs=LOGPROBS, **common):
            found = chunk.choices[0].logprobs
            for token in found.content if found else ():
                told.append((token.token, [top.logprob for top in token.top_logprobs]))
    return [decode(int(name.removeprefix("token_id:")), values) for name, values in told]


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_streams_over_http(llama: tuple[Path, Path], kind: str) -> None:
    pairs = {own: load(llama, "qa" if own else "chat_template") for own in (True, False)}
    asked = [
        (
            TEXTS[number % 3],
            SamplingParams(
                router=("p-punc", "h", "rand", "p-fc")[number % 4],
                gamma=(0.3, 0.6, 0.9)[number % 3],
                temperature=(0.0, 1.0)[number % 2],
                seed=number,
                max_tokens=20,
            ),
            number % 5 != 0,
        )
        for number in range(24)
    ]
    with serving(llama, *KINDS[kind]) as client, ThreadPoolExecutor(24) as pool:
        told = list(pool.map(lambda each: ask(client, pairs[each[2]], *each), asked))
        if kind == "one process":
            check_refusals(client)
    with Decoder(pairs[True]) as own, Decoder(pairs[False]) as same:
        for (text, params, has_own), found in zip(asked, told, strict=True):
            (completion,) = (own if has_own else same).generate(text, params)
            assert len(found) == len(completion.steps)
            for step, token in zip(completion.steps, found, strict=True):
                assert (token.token, ("base", "aligned")[token.source]) == step[0:3:2]
                wanted = (step.p_base, step.p_aligned, step.p_sampled, step.p_max, step.entropy)
                assert token[2:7] == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def check_refusals(client: Any) -> None:
    """What is wrong about a request is said with status 400."""
    from openai import BadRequestError

    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(BadRequestError, match="gama must be one of .* Did you mean 'gamma'"):
        client.chat.completions.create(
            model="pair", messages=messages, extra_body={"vllm_xargs": {"gama": 1}}
        )
    with pytest.raises(BadRequestError, match=r"presence_penalty must be 0\.0 with this model"):
        client.chat.completions.create(model="pair", messages=messages, presence_penalty=1)
    answer = client.chat.completions.create(model="pair", messages=messages, n=3, max_tokens=8)
    assert len({choice.message.content for choice in answer.choices}) == 3
