"""Model classes and clients of servers get the same from vLLM as from the local engine."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from baco_integrations import Decoder, SamplingParams
from baco_integrations.langchain import ChatBACo
from baco_integrations.llama_index import BACoLLM
from baco_integrations.remote import RemoteDecoder
from tests.engines.vllm.pairs import TEXTS, gist, load

pytest.importorskip("vllm", reason="vLLM is not installed; CONTRIBUTING says how to run these")

OPTIONS = {"enforce_eager": True, "block_size": 32, "max_model_len": 512}
HERE: dict[str, Any] = {
    "engine": "vllm",
    "engine_options": {**OPTIONS, "distributed_executor_backend": "uni"},
}
SETTINGS: dict[str, Any] = {"router": "p-punc", "gamma": 0.7, "seed": 5, "max_tokens": 24}


@pytest.fixture
def models(llama: tuple[Path, Path]) -> dict[str, Any]:
    """The pair, as model classes name it, and settings."""
    base, aligned = map(str, llama)
    return {"base": base, "aligned": aligned, "dtype": "float32", "base_prompt": "qa", **SETTINGS}


def test_langchain(models: dict[str, Any]) -> None:
    expected = ChatBACo(**models).invoke("Hi")
    chat = ChatBACo(**models, **HERE)
    found = chat.invoke("Hi")
    assert found.text == expected.text and found.usage_metadata == expected.usage_metadata
    assert found.response_metadata == expected.response_metadata
    assert "".join(chunk.text for chunk in chat.stream("Hi")) == expected.text
    assert chat.bind(gamma=0.0).invoke("Hi").response_metadata["gamma"] == 0.0


def test_llama_index(models: dict[str, Any]) -> None:
    expected = BACoLLM(**models).complete("Hi")
    found = BACoLLM(**models, **HERE).complete("Hi")
    assert found.text == expected.text
    assert found.raw["base_share"] == expected.raw["base_share"]


@contextmanager
def serving(folders: tuple[Path, Path]) -> Iterator[str]:
    """Run ``baco serve`` with vLLM; yield its address."""
    command = [str(Path(sys.executable).parent / "baco"), "serve", "--port", "0"]
    command += ["--pair", "pair={}+{}".format(*folders), "--dtype", "float32"]
    command += ["--base-prompt", "qa", "--engine", "vllm", "--engine-options", json.dumps(OPTIONS)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        yield next(
            found[1] for line in server.stderr if (found := re.match(r"Serving: (\S+)", line))
        )
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert server.returncode == 0


@pytest.mark.slow
def test_baco_serve(llama: tuple[Path, Path]) -> None:
    params = [SamplingParams(**{**SETTINGS, "gamma": gamma}) for gamma in (0.2, 0.6, 0.9)]
    with serving(llama) as address, RemoteDecoder(address, pair="pair") as decoder:
        found = [each for (each,) in decoder.generate_batch(TEXTS, params)]
    with Decoder(load(llama)) as decoder:
        expected = [each for (each,) in decoder.generate_batch(TEXTS, params)]
    assert gist(found) == gist(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.text, mine.finish_reason) == (theirs.text, theirs.finish_reason)
        assert [step.p_sampled for step in mine.steps] == pytest.approx(
            [step.p_sampled for step in theirs.steps], rel=1e-3
        )
