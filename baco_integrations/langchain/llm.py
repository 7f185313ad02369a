"""A pair of models as a plain LangChain LLM: text in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig

from ..adapters.base import SAMPLING
from ..core.outputs import Completion
from ..core.tool_calls import CallPiece
from .base import LangChainAdapter, Stop
from .batches import gathered, place_of
from .bindings import ConfigurableBACo


class BACoLLM(LangChainAdapter, BaseLLM):
    """A plain LLM whose diversity can be set; a prompt is one user message.

    Fields, ``base_url`` among them, sharing and ``gamma`` are those of `ChatBACo`. All prompts of a
    call are one batch.

    Example:
        ```python
        BACoLLM(pair="qwen2.5-0.5b").batch(["Name a city.", "Name a river."], gamma=0.8)
        ```

    Raises:
        ParameterError: A field is unknown or its value is not allowed.
    """

    model_type: ClassVar[Literal["chat", "llm"]] = "llm"

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        """Complete one input."""
        return super().invoke(input, config, **self.seeded(place_of(config), kwargs))

    def _generate(
        self, prompts: list[str], stop: Stop = None, run_manager: Any = None, **kwargs: Any
    ) -> LLMResult:
        params = self.request_params({**kwargs, "stop": stop})
        return self.result(self.decoder.generate_batch(prompts, params), kwargs)

    async def _agenerate(
        self, prompts: list[str], stop: Stop = None, run_manager: Any = None, **kwargs: Any
    ) -> LLMResult:
        params = self.request_params({**kwargs, "stop": stop})
        decoder = await self.adecoder()
        samples = await gathered(decoder.agenerate(prompt, params) for prompt in prompts)
        return self.result(samples, kwargs)

    def result(self, samples: Sequence[list[Completion]], call: Mapping[str, Any]) -> LLMResult:
        """Return the samples of several prompts as texts."""
        return LLMResult(
            generations=[
                [Generation(text=c.text, generation_info=self.info(c, call)) for c in completions]
                for completions in samples
            ],
            llm_output=self._combine_llm_outputs([self.llm_output(each) for each in samples]),
        )

    def chunk(
        self, text: str, info: dict[str, Any], calls: Iterable[CallPiece] = (), last: Any = None
    ) -> GenerationChunk:
        """Return a piece of a stream; there are no calls, since a plain LLM is offered no tools."""
        usage = self.llm_output([last]) if last else {}
        return GenerationChunk(text=text, generation_info={**usage, **info} or None)

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> Any:
        """Complete several inputs in one batch."""
        if not self.has_seed(kwargs):
            return super().batch(inputs, config, **kwargs)
        rows = self.in_threads(self.numbered(config, len(inputs)))
        return Runnable.batch(self, inputs, rows, **kwargs)

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> Any:
        """Complete several inputs in one batch, without blocking the event loop."""
        if not self.has_seed(kwargs):
            return await super().abatch(inputs, config, **kwargs)
        return await Runnable.abatch(self, inputs, self.numbered(config, len(inputs)), **kwargs)

    def configurable_fields(self, **kwargs: Any) -> ConfigurableBACo:
        """Return this model with fields that come with the config of a call."""
        return ConfigurableBACo(**dict(super().configurable_fields(**kwargs)))

    def generate(
        self, prompts: list[str], stop: Stop = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Complete several prompts in one batch."""
        if len(prompts) > 1 and self.has_seed(kwargs):
            generate = partial(self.generate, stop=stop)
            return self.generate_rows(generate, self.rows_of(prompts, kwargs, callbacks))
        llm, stop = self.with_call(stop, kwargs)
        return super(BACoLLM, llm).generate(prompts, stop, callbacks, **kwargs)

    async def agenerate(
        self, prompts: list[str], stop: Stop = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Complete several prompts in one batch, without blocking the event loop."""
        if len(prompts) > 1 and self.has_seed(kwargs):
            rows = self.rows_of(prompts, kwargs, callbacks)
            return self.joined(await gathered(self.agenerate(p, stop, **call) for p, call in rows))
        llm, stop = self.with_call(stop, kwargs)
        return await super(BACoLLM, llm).agenerate(prompts, stop, callbacks, **kwargs)

    def rows_of(
        self, inputs: Sequence[str], call: Mapping[str, Any], callbacks: Any = None
    ) -> list[tuple[list[str], dict[str, Any]]]:
        """Split a call of several prompts, whose callbacks, tags and names may be one for each."""
        rows = super().rows_of(inputs, {**call, "callbacks": callbacks})
        if isinstance(callbacks, list) and not all(
            isinstance(each, BaseCallbackHandler) for each in callbacks
        ):
            for place, (_, own) in enumerate(rows):
                for name in ("callbacks", "tags", "metadata", "run_name"):
                    own[name] = own[name][place : place + 1] if own.get(name) else None
        return rows

    def with_call(self, stop: Stop, kwargs: dict[str, Any]) -> tuple[BACoLLM, Stop]:
        """Move a call's settings into a copy, since core's cache tells models apart, not calls.

        Returns:
            The copy, and the stop strings of the call or else of the model.
        """
        changes = {name: kwargs.pop(name) for name in (*SAMPLING, "logprobs") if name in kwargs}
        llm = self.with_settings({**changes, "stop": stop})
        return llm, list(llm.request_params({}).stop) or None
