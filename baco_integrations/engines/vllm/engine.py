"""The engine that decodes a pair inside vLLM, in a thread of this process."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch

from ...core.errors import MissingExtraError, ParameterError
from ...models.options import LoadOptions
from ...models.pair import ModelPair
from ...policy.params import ALIGNED, BASE
from ..base import Capabilities, EngineRequest, EngineSettings
from ..batch import accept
from ..faults import worker_failure
from ..sequence import SequenceState
from ..worker import Worker
from . import ARCHITECTURE, BASE_FOLDER
from .admission import BASE_PROMPT, INDEX, SETTINGS
from .channel import LOGPROBS, decode

ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
"""What is set before vLLM is imported, unless it is set already: it says little, and reports to
nobody."""


@dataclass(eq=False)
class VllmSequence(SequenceState):
    """A sequence, and what vLLM calls it once it has been admitted."""

    name: str = ""


class VllmEngine(Worker[VllmSequence]):
    """A thread that hands requests to vLLM and its tokens to their sinks.

    vLLM batches, preempts and shares prefixes in its own way; `max_rows` is its ``max_num_seqs``,
    and where `prefix_bytes` is 0 no prefix is shared. It drafts nothing.

    Args:
        pair: A pair that has been loaded with ``engine="vllm"``.
        settings: How the engine is opened.
    """

    def __init__(self, pair: ModelPair, settings: EngineSettings) -> None:
        super().__init__(pair.token_space, pair.context, settings)
        self.capabilities = Capabilities(grammar=False, custom_router=False, alternatives=False)
        self.llm = open_llm(pair, settings)
        self.admitted: dict[str, VllmSequence] = {}
        self.start()

    @property
    def sequences(self) -> Sequence[VllmSequence]:
        """All sequences that have been admitted."""
        return list(self.admitted.values())

    def make_sequence(self, request: EngineRequest) -> VllmSequence:
        """Return the sequence of a request that has come now."""
        return VllmSequence(request, self.space, time.monotonic())

    def remove(self, sequence: VllmSequence) -> None:
        """Let go of a sequence that has ended."""
        if self.admitted.pop(sequence.name, None) is not None:
            self.llm.abort_request([sequence.name])

    def reset(self) -> None:
        """Let go of all sequences."""
        self.release(self.sequences)

    def dispose(self) -> None:
        """End vLLM's processes, and free its memory."""
        self.llm.engine_core.shutdown()
        del self.llm

    def iterate(self) -> None:
        """Hand over what waits, let vLLM take a step, deliver its tokens."""
        for sequence in self.take_waiting(self.most_rows - len(self.admitted)):
            self.hand_over(sequence)
        if not self.admitted:
            return
        try:
            outputs = self.llm.step()
        except Exception as error:  # of vLLM or of one of its processes: it cannot go on
            self.lose(error)
            return
        if outputs:
            self.metrics.take_step(len(outputs))
        for output in outputs:
            if output.request_id in self.admitted:
                self.deliver(self.admitted[output.request_id], output)

    def hand_over(self, sequence: VllmSequence) -> None:
        """Give vLLM a request; one that it refuses fails alone."""
        request = sequence.request
        sequence.name = f"baco-{next(NUMBERS)}"
        self.metrics.admit(time.monotonic() - sequence.submitted)
        self.metrics.prefilled += sum(map(len, request.prompts))
        prompt = {"prompt_token_ids": list(request.prompts[ALIGNED])}
        try:
            self.llm.add_request(sequence.name, prompt, sampling_of(request))
        except Exception as error:
            sequence.fail(worker_failure(error))
            return
        self.admitted[sequence.name] = sequence

    def deliver(self, sequence: VllmSequence, output: Any) -> None:
        """Give a sequence what vLLM has decoded of it."""
        (sample,) = output.outputs
        if not sequence.tokens:
            self.metrics.reused += 2 * (output.num_cached_tokens or 0)
        with sequence.keeping_errors():
            for token, logprobs in zip(sample.token_ids, sample.logprobs or (), strict=True):
                known = decode(token, (each.logprob for each in logprobs.values()))
                if known is None:
                    raise ArithmeticError("a model's logits are not finite")
                self.metrics.tokens += 1
                self.metrics.from_base += known.source == BASE
                sequence.finished = accept(sequence, known)
                if sequence.finished:  # whatever else vLLM has decoded by then
                    break
            if output.finished and not sequence.finished:
                raise RuntimeError(f"vLLM ended a request early: {sample.finish_reason}")
        if sequence.error is not None:
            sequence.fail(sequence.error)
        if sequence.finished:
            self.release([sequence])

    def lose(self, error: Exception) -> None:
        """Fail all sequences, and refuse others: vLLM has failed."""
        with self.changed:
            self._closed = True
            self._why_closed = f"vLLM has failed: open another decoder ({error})"
            lost = [*self.admitted.values(), *self.queue]
            self.queue.clear()
        self.admitted = {}
        for sequence in lost:
            sequence.fail(worker_failure(error))


NUMBERS = count()
"""Numbers requests, so that each has a name of its own."""


def sampling_of(request: EngineRequest) -> Any:
    """Return vLLM's parameters of a request: it ends where the request does, and reports all."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = request.params
    given = params.model_dump(include=set(SETTINGS), exclude_none=True)
    extra = {**given, "seed": request.seed, INDEX: request.index}
    if request.prompts[BASE] != request.prompts[ALIGNED]:
        extra[BASE_PROMPT] = list(request.prompts[BASE])
    return SamplingParams(
        max_tokens=request.limit,
        ignore_eos=True,
        stop_token_ids=sorted(request.end),
        logprobs=LOGPROBS,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args=extra,
    )


def open_llm(pair: ModelPair, settings: EngineSettings) -> Any:
    """Open vLLM's engine with the fused model of a pair.

    Raises:
        MissingExtraError: vLLM is not installed.
        ParameterError: An option of the engine is unknown, or ours to give.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
        from vllm.v1.executor import Executor
    except ImportError as error:
        raise MissingExtraError("engine='vllm'", "vllm") from error
    options = pair.options or LoadOptions(engine="vllm")
    arguments = engine_arguments(pair, options, settings)
    known = EngineArgs.__dataclass_fields__
    for name, value in options.engine_options.items():
        if name not in known or name in arguments:
            raise ParameterError(
                "engine_options",
                "arguments of vLLM's engine that other settings do not give",
                {name: value},
                "Names are those of vllm.EngineArgs.",
            )
    if options.engine_options.get("data_parallel_size", 1) > 1:
        remedy = "Start a vLLM server with the plugin: it spreads requests over replicas."
        raise ParameterError(
            "engine_options", "without data_parallel_size", "data_parallel_size", remedy
        )
    # Two workers in one process would share what vLLM keeps for the process: each has its own.
    defaults = {"max_model_len": pair.context[ALIGNED], "distributed_executor_backend": "mp"}
    arguments = {**defaults, **options.engine_options, **arguments}
    with random_state_kept():
        config = EngineArgs(**arguments).create_engine_config()
        # In a process of its own its scheduler could die unnoticed, and nobody would be told.
        return LLMEngine(config, Executor.get_class(config), False, multiprocess_mode=False)


def engine_arguments(
    pair: ModelPair, options: LoadOptions, settings: EngineSettings
) -> dict[str, Any]:
    """Return the arguments of vLLM's engine that a pair and its settings give."""
    base, aligned = (str(pair.folders[side]) for side in ("base", "aligned"))
    return {
        "model": aligned,
        "hf_overrides": {"architectures": [ARCHITECTURE], BASE_FOLDER: base},
        "dtype": options.dtype,
        "trust_remote_code": options.trust_remote_code,
        "max_num_seqs": settings.max_rows,
        "enable_prefix_caching": settings.prefix_bytes > 0,
        "load_format": "safetensors",
        "generation_config": "vllm",
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
    }


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Keep this process's random numbers as they are: vLLM seeds all generators when it starts."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def open_vllm(pair: ModelPair, settings: EngineSettings, **options: Any) -> VllmEngine:
    """Open the engine of a pair.

    Raises:
        ParameterError: One side alone is to run, or logits are to be mixed.
    """
    for name, value in options.items():
        if value is not None:
            remedy = "Load the pair with engine='local'."
            raise ParameterError(name, "left out with engine='vllm'", value, remedy)
    return VllmEngine(pair, settings)
