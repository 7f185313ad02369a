"""A pair of models as a LangChain chat model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool
from pydantic import Field

from ..api.data import plain_tool_choice
from ..core.outputs import Completion, Usage
from ..core.params import SamplingParams
from ..core.tool_calls import CallPiece
from .base import LangChainAdapter, Stop
from .batches import gathered, place_of
from .bindings import BoundChatBACo, ConfigurableBACo, Wrappable
from .messages import conversation_of
from .structured import response_schema, structured
from .tools import tool_calls, tool_of


class ChatBACo(Wrappable, LangChainAdapter, BaseChatModel):  # type: ignore[misc]  # a parameter's name
    """A chat model whose diversity can be set, per object and per call.

    Every token comes from the base or the aligned model of a pair; ``gamma`` says how readily from
    the base model: 0 is the aligned model, 1 as diverse as it gets. All objects that name the same
    pair share its weights, and their calls meet in one batch.

    A ``seed`` repeats the answer to a call; its ``n`` samples differ. The rows of a batch differ
    too, and repeat with the batch: the first has the seed itself, each later one a seed that is
    derived from it, which ``response_metadata`` has. Separate calls, such as those of agents that
    run at once, all have the seed itself.

    With ``base_url`` (and ``api_key``) the models are those of a server, which ``baco serve`` runs
    on another machine. ``pair`` is then what the server calls a pair, and settings that are left
    out are the server's; everything else is as with models of this process.

    Example:
        ```python
        llm = ChatBACo(pair="qwen2.5-0.5b", gamma=0.6)
        llm.invoke("Name a city.", gamma=0.9).response_metadata["base_share"]
        ```

    Raises:
        ParameterError: A field is unknown or its value is not allowed.
    """

    # None rather than False: reconstruction sets every field, and core never streams where False
    # was set.
    streaming: bool | None = Field(None, description="Whether calls are always streamed inside.")

    only_in_calls: ClassVar[tuple[str, ...]] = (
        *LangChainAdapter.only_in_calls,
        *("tools", "tool_choice", "parallel_tool_calls", "response_format", "strict"),
    )
    model_type: ClassVar[Literal["chat", "llm"]] = "chat"

    def invoke(
        self, input: Any, config: RunnableConfig | None = None, *, stop: Stop = None, **kwargs: Any
    ) -> AIMessage:
        """Answer one input."""
        config = ensure_config(config)
        run: Any = {name: config.get(name) for name in ("tags", "metadata", "run_name")}
        own = {**run, "run_id": config.pop("run_id", None), **self.seeded(place_of(config), kwargs)}
        messages = self._convert_input(input).to_messages()
        result = super().generate([messages], stop, config.get("callbacks"), **own)
        message: AIMessage = result.generations[0][0].message  # type: ignore[union-attr,assignment]
        return message

    def _generate(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        params = self.request_params({**kwargs, "stop": stop})
        return self.result(self.decoder.generate(conversation_of(messages), params), kwargs)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        params = self.request_params({**kwargs, "stop": stop})
        decoder = await self.adecoder()
        return self.result(await decoder.agenerate(conversation_of(messages), params), kwargs)

    def result(self, completions: list[Completion], call: Mapping[str, Any]) -> ChatResult:
        """Return the samples of a call as messages."""
        messages = [
            AIMessage(
                content=completion.text,
                response_metadata=self.info(completion, call),
                usage_metadata=usage_metadata(completion.usage),
                **tool_calls(completion.tool_calls),
            )
            for completion in completions
        ]
        return ChatResult(
            generations=[ChatGeneration(message=message) for message in messages],
            llm_output=self.llm_output(completions),
        )

    def chunk(
        self, text: str, info: dict[str, Any], calls: Iterable[CallPiece] = (), last: Any = None
    ) -> ChatGenerationChunk:
        """Return a piece of a stream; the last one comes with the completion."""
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
                usage_metadata=usage_metadata(last.usage) if last else None,
                chunk_position="last" if last else None,
            )
        )

    def generate(
        self, messages: list[list[Any]], stop: Stop = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Answer several conversations in one batch; core's own would take them in turn."""
        generate = partial(super().generate, stop=stop, callbacks=callbacks)
        if len(messages) < 2:
            return generate(messages, **kwargs)
        return self.generate_rows(generate, self.rows_of(messages, kwargs))

    async def agenerate(
        self, messages: list[list[Any]], stop: Stop = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Answer several conversations in one batch, without blocking the event loop."""
        agenerate = partial(super().agenerate, stop=stop, callbacks=callbacks)
        if len(messages) < 2 or not self.has_seed(kwargs):
            return await agenerate(messages, **kwargs)
        rows = self.rows_of(messages, kwargs)
        return self.joined(await gathered(agenerate(each, **call) for each, call in rows))

    def numbered(self, config: Any, count: int) -> list[RunnableConfig]:
        """Return a config for each row of a batch, which runs in a thread of its own."""
        return self.in_threads(super().numbered(config, count))

    def _streaming_disabled(self, **kwargs: Any) -> bool:
        # Where only a listener asks for a stream, it must not cost the caller the other samples.
        if "stream" not in kwargs and (kwargs.get("n") or self.n or 1) > 1:
            return True
        return super()._streaming_disabled(**kwargs)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # Core's own key is that of the object as it was when it was first serialized.
        identity = self.identity(self.request_params({**kwargs, "stop": stop}))
        return str(sorted({**identity, "logprobs": self.has_logprobs(kwargs)}.items()))

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
        # Core takes the one that is for tracers out of every call.
        self.request_params({n: v for n, v in bound.items() if n != "ls_structured_output_format"})
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
        return structured(self, schema, method=method, include_raw=include_raw, **kwargs)

    def with_config(
        self, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with a config bound to it."""
        return BoundChatBACo(bound=self, kwargs={}, config={**(config or {}), **kwargs})

    def configurable_fields(self, **kwargs: Any) -> ConfigurableBACo:
        """Return this model with fields that come with the config of a call."""
        return ConfigurableBACo(**dict(super().configurable_fields(**kwargs)))

    def request_params(self, call: Mapping[str, Any]) -> SamplingParams:
        """Return the settings of one call, over the model's own.

        A ``response_format`` becomes the schema that it asks for; one of plain text replaces the
        model's own schema.
        """
        call, llm = dict(call), self
        response_format = call.pop("response_format", None)
        if response_format is not None:
            call["json_schema"] = response_schema(response_format)
            if call["json_schema"] is None:
                llm = self.model_copy(update={"json_schema": None})
        if call.get("tool_choice") is not None:
            call["tool_choice"] = plain_tool_choice(call["tool_choice"])
        return super(ChatBACo, llm).request_params(call)

    def _resolve_model_profile(self) -> ModelProfile:
        window = self.context_window()
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


def usage_metadata(usage: Usage) -> UsageMetadata:
    """Return the tokens of a completion, named as in messages."""
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )
