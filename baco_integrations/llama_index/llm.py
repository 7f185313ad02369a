"""A pair of models as a LlamaIndex LLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM
from typing_extensions import Self

from ..core.messages import Message
from ..core.trace import Completion
from ..opening import Adapter, summary
from .messages import conversation_of

R = TypeVar("R", ChatResponse, CompletionResponse)
_Build = Callable[[str, str | None, dict[str, Any]], R]


class BACoLLM(Adapter, LLM):
    """An LLM whose diversity can be dialled, per object and per call.

    Every token comes from the base or the aligned model of a pair; ``gamma`` says how readily from
    the base model: 0 is the aligned model, 1 as diverse as it gets. All objects that name the same
    pair share its weights, and their calls meet in one batch. A completion is one user message.

    Example:
        ```python
        llm = BACoLLM(pair="qwen2.5-0.5b", gamma=0.2)
        llm.complete("Name a city.", gamma=0.9)
        QueryFusionRetriever(retrievers, llm=llm.with_gamma(0.9))
        ```

    Raises:
        ParameterError: A field is unknown or its value is not allowed.
    """

    @classmethod
    def class_name(cls) -> str:
        """Return the name that serialized objects carry."""
        return "BACoLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What prompt helpers and agents need to know; reading it loads the models."""
        return LLMMetadata(
            context_window=min(self.decoder.pair.context),
            num_output=self._sampling({}).max_tokens,
            is_chat_model=True,
            model_name=self.model_name,
        )

    def to_payload(self) -> dict[str, Any]:
        """Return what traces show of this object; nothing is loaded for it."""
        identity = self._identity(self._sampling({}))
        return {"class_name": self.class_name(), "model_name": self.model_name, **identity}

    def with_gamma(self, gamma: float) -> Self:
        """Return a copy with another gamma; it shares the decoder.

        Raises:
            ParameterError: The gamma is not a number from 0 to 1.
        """
        return self._with({"gamma": gamma})

    # -- chat --------------------------------------------------------------------------------

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        return self._whole(conversation_of(messages), kwargs, _chat)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation; the event loop stays free."""
        return await self._awhole(conversation_of(messages), kwargs, _chat)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation token by token; closing the generator stops it."""
        return self._pieces(conversation_of(messages), kwargs, _chat)

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Answer a conversation token by token; the event loop stays free."""
        return await self._apieces(conversation_of(messages), kwargs, _chat)

    # -- completion --------------------------------------------------------------------------

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt."""
        return self._whole(self._prompt(prompt, formatted), kwargs, _completion)

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Answer a prompt; the event loop stays free."""
        return await self._awhole(self._prompt(prompt, formatted), kwargs, _completion)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Answer a prompt token by token; closing the generator stops it."""
        return self._pieces(self._prompt(prompt, formatted), kwargs, _completion)

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer a prompt token by token; the event loop stays free."""
        return await self._apieces(self._prompt(prompt, formatted), kwargs, _completion)

    def _prompt(self, prompt: str, formatted: bool) -> list[Message]:
        # `completion_to_prompt` has a default, which core sets on construction.
        text = prompt if formatted else self.completion_to_prompt(prompt)  # type: ignore[misc]
        return [{"role": "user", "content": text}]

    # -- decoding ----------------------------------------------------------------------------

    def _whole(self, messages: list[Message], call: Mapping[str, Any], build: _Build[R]) -> R:
        (completion,) = self.decoder.generate(messages, self._sampling(call))
        return build(completion.text, None, self._info(completion))

    async def _awhole(
        self, messages: list[Message], call: Mapping[str, Any], build: _Build[R]
    ) -> R:
        params = self._sampling(call)
        decoder = await self._adecoder()
        (completion,) = await decoder.agenerate(messages, params)
        return build(completion.text, None, self._info(completion))

    def _pieces(
        self, messages: list[Message], call: Mapping[str, Any], build: _Build[R]
    ) -> Generator[R, None, None]:
        stream = self.decoder.stream(messages, self._sampling(call))

        def pieces() -> Generator[R, None, None]:
            text = ""
            with stream:
                for step in stream:
                    text += step.text
                    yield build(text, step.text, {})
            yield build(text, "", self._info(stream.completions[0]))

        return pieces()

    async def _apieces(
        self, messages: list[Message], call: Mapping[str, Any], build: _Build[R]
    ) -> AsyncGenerator[R, None]:
        params = self._sampling(call)
        stream = (await self._adecoder()).astream(messages, params)

        async def pieces() -> AsyncGenerator[R, None]:
            text = ""
            async with stream:
                async for step in stream:
                    text += step.text
                    yield build(text, step.text, {})
            yield build(text, "", self._info(stream.completions[0]))

        return pieces()

    def _info(self, completion: Completion) -> dict[str, Any]:
        """Tell what was used and how the completion came about, as plain data."""
        usage = {
            "prompt_tokens": completion.usage.prompt_tokens,
            "completion_tokens": completion.usage.completion_tokens,
            "total_tokens": completion.usage.total_tokens,
        }
        return {"model": self.model_name, "usage": usage, **summary(completion)}


def _chat(text: str, delta: str | None, info: dict[str, Any]) -> ChatResponse:
    message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
    return ChatResponse(message=message, delta=delta, raw=info, additional_kwargs=_flat(info))


def _completion(text: str, delta: str | None, info: dict[str, Any]) -> CompletionResponse:
    return CompletionResponse(text=text, delta=delta, raw=info, additional_kwargs=_flat(info))


def _flat(info: dict[str, Any]) -> dict[str, Any]:
    return {**info.get("usage", {}), **{k: v for k, v in info.items() if k != "usage"}}
