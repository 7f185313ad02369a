"""A pair of models as a LangChain chat model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ClassVar, Literal
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_executor_for_config
from langchain_core.tools import BaseTool

from ..adapters.base import plain_tool_choice
from ..core.messages import Message
from ..core.outputs import Completion, Usage
from ..core.params import SamplingParams
from ..core.tool_calls import CallPiece
from . import structured
from .base import LangChainAdapter
from .bindings import BoundChatBACo, ConfigurableChatBACo, Wrappable
from .messages import conversation_of
from .tools import tool_calls, tool_of


class ChatBACo(Wrappable, LangChainAdapter, BaseChatModel):  # type: ignore[misc]  # a parameter's name
    """A chat model whose diversity can be dialled, per object and per call.

    Every token comes from the base or the aligned model of a pair; ``gamma`` says how readily from
    the base model: 0 is the aligned model, 1 as diverse as it gets. All objects that name the same
    pair share its weights, and their calls meet in one batch.

    A ``seed`` repeats the answer to a call; its ``n`` samples differ. The rows of a batch differ
    too, and repeat with the batch: the first has the seed itself, each later one a seed that is
    derived from it and told in ``response_metadata``. Calls apart, such as the steps of agents that
    run beside one another, all have the seed itself.

    Example:
        ```python
        llm = ChatBACo(pair="qwen2.5-0.5b", gamma=0.6)
        llm.invoke("Name a city.", gamma=0.9).response_metadata["base_share"]
        ```

    Raises:
        ParameterError: A field is unknown or its value is not allowed.
    """

    # None rather than False: reconstruction sets every field, and core takes a False that was set
    # as a wish never to stream.
    streaming: bool | None = None

    _besides: ClassVar[tuple[str, ...]] = (
        *LangChainAdapter._besides,
        *("tools", "tool_choice", "parallel_tool_calls", "response_format", "strict"),
    )
    _model_type: ClassVar[Literal["chat", "llm"]] = "chat"

    # -- decoding ----------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        params = self._params(stop, kwargs)
        return self._result(self.decoder.generate(self._conversation(messages), params), kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        params = self._params(stop, kwargs)
        decoder = await self._adecoder()
        return self._result(await decoder.agenerate(self._conversation(messages), params), kwargs)

    def _conversation(self, prompt: list[BaseMessage]) -> list[Message]:
        return conversation_of(prompt)

    def _result(self, completions: list[Completion], call: Mapping[str, Any]) -> ChatResult:
        messages = []
        for completion in completions:
            valid, invalid = tool_calls(completion.tool_calls)
            messages.append(
                AIMessage(
                    content=completion.text,
                    tool_calls=valid,
                    invalid_tool_calls=invalid,
                    response_metadata=self._whole_info(completion, call),
                    usage_metadata=_usage(completion.usage),
                )
            )
        return ChatResult(
            generations=[ChatGeneration(message=message) for message in messages],
            llm_output=self._totals([completions]),
        )

    def _chunk(
        self,
        text: str,
        info: dict[str, Any],
        last: Completion | None = None,
        calls: Sequence[CallPiece] = (),
    ) -> ChatGenerationChunk:
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content=text,
                tool_call_chunks=[
                    tool_call_chunk(
                        name=piece.name, args=piece.arguments, id=piece.id, index=piece.index
                    )
                    for piece in calls
                ],
                response_metadata=info,
                usage_metadata=_usage(last.usage) if last else None,
                chunk_position="last" if last else None,
            )
        )

    def _streaming_disabled(self, **kwargs: Any) -> bool:
        # Where only a listener asks for a stream, it must not cost the caller the other samples.
        if "stream" not in kwargs and (kwargs.get("n") or self.n or 1) > 1:
            return True
        return super()._streaming_disabled(**kwargs)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # Core's own key is that of the object as it was when it was first serialized.
        identity = self._identity(self._params(stop, kwargs))
        return str(sorted({**identity, "logprobs": self._tells_tokens(kwargs)}.items()))

    # -- tools and structured output ---------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools; a grammar keeps every call to its tool's schema.

        The structure of a call and the tool's name are the aligned model's, strings among the
        arguments are routed like any text: for calls that have to repeat what the user said, keep
        gamma low, as in ``bind_tools(tools, gamma=0.1)``.

        Args:
            tools: Functions, pydantic classes, TypedDicts, LangChain tools or OpenAI-style dicts.
            tool_choice: ``auto``; ``any`` (or ``required``, True) for at least one call; the name
                of the tool to call; ``none``.
            parallel_tool_calls: Whether one answer may hold several calls; yes by default.
            strict: Calls always follow their schemas, so this has no effect.
            **kwargs: Settings of the call, such as ``gamma``.

        Raises:
            ParameterError: A tool or a setting is not allowed.
        """
        offered = [tool_of(tool) for tool in tools]
        bound = dict(kwargs)
        if offered or tool_choice is not None:
            bound |= {"tools": offered, "tool_choice": plain_tool_choice(tool_choice)}
        if offered and parallel_tool_calls is not None:
            bound["parallel_tool_calls"] = parallel_tool_calls
        # Core takes the one that tracers are told out of every call.
        self._params(None, {n: v for n, v in bound.items() if n != "ls_structured_output_format"})
        return self.bind(**bound)

    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: str = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a runnable whose output is an object of a schema, its contents as varied as asked.

        Args:
            schema: A pydantic class (the output is an instance), a TypedDict or a JSON schema (the
                output is a dict). JSON mode may go without.
            method: ``json_schema``: the text is JSON by the schema, which the prompt tells.
                ``function_calling``: the object is the arguments of a forced tool call.
                ``json_mode``: any JSON object; the prompt has to say which.
            include_raw: Return ``{"raw": message, "parsed": object, "parsing_error": error}``.
            strict: The output always follows the schema, so this has no effect.
            **kwargs: Settings of the call, such as ``gamma``.

        Raises:
            ParameterError: A setting is not allowed.
        """
        return structured.structured(self, schema, method, include_raw, kwargs)

    def with_config(
        self, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with a config bound to it."""
        return BoundChatBACo(bound=self, kwargs={}, config={**(config or {}), **kwargs})

    def configurable_fields(self, **kwargs: Any) -> ConfigurableChatBACo:
        """Return this model with fields that come with the config of a call."""
        made: Any = super().configurable_fields(**kwargs)
        return ConfigurableChatBACo(default=made.default, fields=made.fields)

    def _params(self, stop: list[str] | None, call: Mapping[str, Any]) -> SamplingParams:
        call = dict(call)
        response_format = call.pop("response_format", None)
        if response_format is not None:
            call["json_schema"] = structured.response_schema(response_format)
        if call.get("tool_choice") is not None:
            call["tool_choice"] = plain_tool_choice(call["tool_choice"])
        plain = response_format is not None and call["json_schema"] is None
        llm = self.model_copy(update={"json_schema": None}) if plain else self
        return super(ChatBACo, llm)._params(stop, call)

    def _resolve_model_profile(self) -> ModelProfile:
        window = self._window()
        profile = ModelProfile(
            name=self.model_name,
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            tool_calling=True,
            tool_choice=True,
            structured_output=True,
        )
        return profile if window is None else {**profile, "max_input_tokens": window}

    # -- many inputs, one batch --------------------------------------------------------------

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer several conversations in one batch; core's own would take them in turn."""
        one = super().generate
        if len(messages) < 2:
            return one(messages, stop, callbacks, run_id=run_id, **kwargs)

        def answer(place: int) -> LLMResult:
            own = self._seeded_at(place, kwargs)
            its_id = None if place else run_id
            return one([messages[place]], stop, callbacks, run_id=its_id, **own)

        with get_executor_for_config(*self._at_once([{}])) as executor:
            return self._joined(list(executor.map(answer, range(len(messages)))))

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer several conversations in one batch, without blocking the event loop."""
        one = super().agenerate
        if len(messages) < 2 or self._seed(kwargs) is None:
            return await one(messages, stop, callbacks, run_id=run_id, **kwargs)
        results = await asyncio.gather(
            *(
                one([each], stop, callbacks, run_id=its_id, **self._seeded_at(place, kwargs))
                for place, (each, its_id) in enumerate(zip_longest(messages, [run_id]))
            )
        )
        return self._joined(results)

    def _placed(self, config: Any, count: int) -> list[RunnableConfig]:
        return self._at_once(super()._placed(config, count))


def _usage(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )
