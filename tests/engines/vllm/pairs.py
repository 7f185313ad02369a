"""Tiny pairs that both engines load, and requests for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import torch

from baco_integrations import Completion, Decoder, ModelPair, SamplingParams
from baco_integrations.core.routing import ROUTERS
from baco_integrations.engines.base import EngineRequest, EngineSettings, TokenOutput
from baco_integrations.engines.open import open_engine
from tests.families import make_pair_folder

TEXTS = (
    "Name a city.",
    "Hi",
    "A long story, please, about the sea and the weather, which never ends; and then tell me why "
    "you'd like to visit it. I'd go to the sea, and you?",
)
SETTINGS = ((0.35, 0.0), (0.7, 1.0), (0.9, 0.6))
"""Gammas and temperatures."""


def make_folders(folder: Path, family: str) -> tuple[Path, Path]:
    """Save a pair whose sides agree often; vLLM's kernels want heads of 32."""
    gemma: dict[str, Any] = {"tie_word_embeddings": True, "query_pre_attn_scalar": 32}
    return make_pair_folder(
        folder,
        family,
        noise=0.15,
        dtype=torch.float32,
        padded=5,
        extra_specials=("<|extra|>",),
        hidden_size=128,
        head_dim=32,
        **(gemma if family.startswith("gemma") else {}),
    )


def load(folders: tuple[Path, Path], base_prompt: str = "qa", **options: Any) -> ModelPair:
    """Load a pair, with `options` of vLLM's engine if there are any.

    Its worker is in this process, where a test reaches it, and the only one there at a time.
    """
    engine: dict[str, Any] = {}
    if options:
        eager = {"enforce_eager": True, "block_size": 32, "max_model_len": 512}
        here = {} if "tensor_parallel_size" in options else {"distributed_executor_backend": "uni"}
        engine = {"engine": "vllm", "engine_options": eager | here | options}
    return ModelPair.from_pretrained(*folders, dtype="float32", base_prompt=base_prompt, **engine)


def requests(tokens: int = 24) -> tuple[list[str], list[SamplingParams]]:
    """Conversations and settings: every router, several gammas, greedy and sampled."""
    params = [
        SamplingParams(
            router=router,
            temperature=temperature,
            seed=seed,
            max_tokens=tokens,
            **({"gamma": gamma} if ROUTERS[router].rule else {}),
        )
        for seed, router in enumerate(ROUTERS)
        for gamma, temperature in SETTINGS
    ]
    return [TEXTS[place % len(TEXTS)] for place in range(len(params))], params


def decode(decoder: Decoder, tokens: int = 24) -> list[Completion]:
    """Decode all `requests` in one batch."""
    return [completion for (completion,) in decoder.generate_batch(*requests(tokens))]


def gist(completions: Sequence[Completion]) -> list[Any]:
    """What two engines have to agree on: each token and who gave it."""
    return [[(s.token_id, s.source) for s in each.steps] for each in completions]


class Sink:
    """Keeps tokens until the last one."""

    approximate = False

    def __init__(self) -> None:
        self.tokens: list[tuple[int, int]] = []
        self.error: BaseException | None = None
        self.ended = Event()

    def put(self, token: TokenOutput, finish: str | None) -> bool:
        self.tokens.append((token.token, token.source))
        if finish:
            self.ended.set()
        return False

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.ended.set()

    def cancelled(self) -> None:
        self.ended.set()


def run(pair: ModelPair, prompts: list[tuple], at_once: bool = False) -> list[Sink]:
    """Decode prompts of base and aligned, all at once or one after the other."""
    engine, sinks = open_engine(pair, EngineSettings()), [Sink() for _ in prompts]
    params = SamplingParams(temperature=0, router="rand", gamma=0.5)
    for prompt, sink in zip(prompts, sinks, strict=True):
        engine.submit([EngineRequest(prompt, params, 5, 0, frozenset(), 20, 20, sink)])
        assert at_once or sink.ended.wait(120)
    assert all(sink.ended.wait(120) for sink in sinks)
    engine.close()
    return sinks
