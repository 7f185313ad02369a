"""A pair of models as a plain LangChain LLM: text in, text out."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ClassVar, Literal, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.language_models import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import get_executor_for_config

from ..adapters.base import SAMPLING
from ..core.outputs import Completion
from ..core.tool_calls import CallPiece
from .base import LangChainAdapter
from .batches import NumberedFields

T = TypeVar("T")


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
        samples = await _gathered(decoder.agenerate(prompt, params) for prompt in prompts)
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

    # -- many inputs, one batch --------------------------------------------------------------

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[str]:
        """Complete several inputs in one batch."""
        if self._seed(kwargs) is None:
            return super().batch(inputs, config, **kwargs)
        rows = self._placed(config, len(inputs))
        return Runnable.batch(self, inputs, self._at_once(rows), **kwargs)

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[str]:
        """Complete several inputs in one batch, without blocking the event loop."""
        if self._seed(kwargs) is None:
            return await super().abatch(inputs, config, **kwargs)
        return await Runnable.abatch(self, inputs, self._placed(config, len(inputs)), **kwargs)

    def configurable_fields(self, **kwargs: Any) -> NumberedFields:
        """Return this model with fields that come with the config of a call."""
        made: Any = super().configurable_fields(**kwargs)
        return NumberedFields(default=made.default, fields=made.fields)

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
        if len(prompts) < 2 or llm.seed is None:
            return super(BACoLLM, llm).generate(prompts, stop, callbacks, **kwargs)
        rows = llm._rows(prompts, {**kwargs, "callbacks": callbacks})
        with get_executor_for_config(*self._at_once([{}])) as executor:
            results = executor.map(lambda row: BaseLLM.generate(row[0], stop=stop, **row[1]), rows)
            return self._joined(list(results))

    async def agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Complete several prompts in one batch, without blocking the event loop."""
        llm, stop = self._called(stop, kwargs)
        if len(prompts) < 2 or llm.seed is None:
            return await super(BACoLLM, llm).agenerate(prompts, stop, callbacks, **kwargs)
        rows = llm._rows(prompts, {**kwargs, "callbacks": callbacks})
        calls = (BaseLLM.agenerate(own, stop=stop, **call) for own, call in rows)
        return self._joined(await _gathered(calls))

    def _rows(
        self, prompts: list[str], call: dict[str, Any]
    ) -> list[tuple[BACoLLM, dict[str, Any]]]:
        """Split a call into its prompts, each of which draws and is cached with a seed of its own.

        What tells of runs may come as a list of one for each prompt.
        """
        run_id, callbacks = call.pop("run_id", None), call["callbacks"]
        run_ids = run_id if isinstance(run_id, list) else [run_id]
        each = isinstance(callbacks, list) and not all(
            isinstance(one, BaseCallbackHandler) for one in callbacks
        )
        rows = []
        for place, (prompt, its_id) in enumerate(zip_longest(prompts, run_ids)):
            own = {n: v[place : place + 1] if each and v else v for n, v in call.items()}
            llm = self._with(self._seeded_at(place, {"seed": self.seed}))
            rows.append((llm, {**own, "prompts": [prompt], "run_id": its_id}))
        return rows

    def _called(
        self, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[BACoLLM, list[str] | None]:
        """Move a call's settings into a copy: core's cache would not tell calls apart by them."""
        changes = {name: kwargs.pop(name) for name in (*SAMPLING, "logprobs") if name in kwargs}
        llm = self._with({**changes, "stop": stop})
        return llm, list(llm._sampling({}).stop) or None


async def _gathered(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for all; one's error stops its neighbours."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
