"""A pair of models as a plain LangChain LLM: text in, text out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.language_models import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult

from ..core.calls import CallPiece
from ..core.trace import Completion
from ..opening import SAMPLING
from .adapter import LangChainAdapter


class BACoLLM(LangChainAdapter, BaseLLM):
    """A plain LLM whose diversity can be dialled; a prompt is one user message.

    Fields, sharing and ``gamma`` are those of `ChatBACo`. All prompts of a call are one batch.

    Example:
        ```python
        BACoLLM(pair="qwen2.5-0.5b").batch(["Name a city.", "Name a river."], gamma=0.8)
        ```

    Raises:
        ParameterError: A field is unknown or its value is not allowed.
    """

    _model_type: ClassVar[Literal["chat", "llm"]] = "llm"

    # -- decoding ----------------------------------------------------------------------------

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        params = self._params(stop, kwargs)
        return self._result(self.decoder.generate_batch(prompts, params), kwargs)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        params = self._params(stop, kwargs)
        decoder = await self._adecoder()
        tasks = [asyncio.ensure_future(decoder.agenerate(prompt, params)) for prompt in prompts]
        try:
            samples = await asyncio.gather(*tasks)
        finally:  # one prompt's error stops its neighbours
            for task in tasks:
                task.cancel()
        return self._result(samples, kwargs)

    def _conversation(self, prompt: str) -> str:
        return prompt

    def _result(
        self, samples: Sequence[Sequence[Completion]], call: Mapping[str, Any]
    ) -> LLMResult:
        return LLMResult(
            generations=[
                [
                    Generation(text=each.text, generation_info=self._whole_info(each, call))
                    for each in completions
                ]
                for completions in samples
            ],
            llm_output=self._totals(samples),
        )

    def _chunk(
        self,
        text: str,
        info: dict[str, Any],
        last: Completion | None = None,
        calls: Sequence[CallPiece] = (),  # never any: a plain LLM is offered no tools
    ) -> GenerationChunk:
        usage = self._totals([[last]]) if last else {}
        return GenerationChunk(text=text, generation_info={**usage, **info} or None)

    # -- caching -----------------------------------------------------------------------------

    def generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Complete several prompts in one batch."""
        llm, stop = self._called(stop, kwargs)
        return super(BACoLLM, llm).generate(prompts, stop, callbacks, **kwargs)

    async def agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Complete several prompts in one batch, without blocking the event loop."""
        llm, stop = self._called(stop, kwargs)
        return await super(BACoLLM, llm).agenerate(prompts, stop, callbacks, **kwargs)

    def _called(
        self, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[BACoLLM, list[str] | None]:
        """Move a call's settings into a copy: core's cache would not tell calls apart by them."""
        changes = {name: kwargs.pop(name) for name in (*SAMPLING, "logprobs") if name in kwargs}
        llm = self._with({**changes, "stop": stop})
        return llm, list(llm._sampling({}).stop) or None
