"""A pair of models as a LlamaIndex LLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, ClassVar

from llama_index.core.base.llms.generic_utils import messages_to_prompt
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
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools.types import BaseTool
from llama_index.core.types import Model, PydanticProgramMode
from typing_extensions import Self

from ..adapters.base import Adapter
from ..core.errors import ParameterError
from ..core.messages import Message
from ..core.params import SamplingParams
from .messages import conversation_of
from .responses import aanswer, answer, apieces, chat_response, completion_response, is_last, pieces
from .structured import chat_arguments, object_of, object_reader, report_end, report_start
from .tools import calls_of, offer, read_arguments


class BACoLLM(Adapter, FunctionCallingLLM):
    """An LLM whose diversity can be set, per object and per call.

    Every token comes from the base or the aligned model of a pair; ``gamma`` says how readily from
    the base model: 0 is the aligned model, 1 as diverse as it gets. All objects that name the same
    pair share its weights, and their calls meet in one batch. A completion is one user message.
    Calls with one ``seed`` draw alike: for answers that differ, give each call its own.

    The strings of structured output and of tools' arguments are routed like any text. What must be
    exact, such as calls that repeat what the user said, needs a low gamma: give agents
    ``llm.with_gamma(0.1)``.

    Where ``alternatives`` are asked for, ``raw["tokens"]`` has the source of each token and both
    models' most probable tokens there, and ``logprobs`` those of the distribution that it was
    drawn from; a piece of a stream has them for its own token.

    With ``base_url`` (and ``api_key``) the models are those of a server, which ``baco serve`` runs
    on another machine. ``pair`` is then what the server calls a pair, and settings that are left
    out are the server's; everything else is as with models of this process.

    Example:
        ```python
        llm = BACoLLM(pair="qwen2.5-0.5b", gamma=0.2)
        llm.complete("Name a city.", gamma=0.9)
        QueryFusionRetriever(retrievers, llm=llm.with_gamma(0.9))
        ```

    Raises:
        ParameterError: A field is unknown or its value is not allowed.
    """

    only_in_calls: ClassVar[tuple[str, ...]] = ("tools", "tool_choice", "parallel_tool_calls")

    def __init__(self, **values: Any) -> None:
        refuse_misplaced(values)
        super().__init__(**values)

    def request_params(self, call: Mapping[str, Any]) -> SamplingParams:
        """Return the settings of one call, over the LLM's own."""
        refuse_misplaced(call)
        return super().request_params(call)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that serialized objects carry."""
        return "BACoLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What prompt helpers and agents need to know; the window is the smaller of the two.

        The models are loaded for it only where their configurations do not tell their windows; a
        server is asked.
        """
        window = self.context_window(fetch=True) or min(self.decoder.pair.context)
        return LLMMetadata(
            context_window=window,
            # Prompt helpers take it off the window, and fail where nothing is left.
            num_output=min(self.request_params({}).max_tokens, window // 2),
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.model_name,
            system_role=MessageRole.SYSTEM,
        )

    def to_payload(self) -> dict[str, Any]:
        """Return what traces show of this object; nothing is loaded for it."""
        identity = self.identity(self.request_params({}))
        return {"class_name": self.class_name(), "model_name": self.model_name, **identity}

    def with_gamma(self, gamma: float) -> Self:
        """Return a copy with another gamma; it shares the decoder.

        Raises:
            ParameterError: The gamma is not a number from 0 to 1.
        """
        # For a setting of a call, None means that it is not given.
        return self.with_settings({"gamma": "none" if gamma is None else gamma})

    # -- chat and completion -----------------------------------------------------------------

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        return answer(self, conversation_of(messages), kwargs, chat_response)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation; the event loop stays free."""
        return await aanswer(self, conversation_of(messages), kwargs, chat_response)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation token by token; closing the generator stops it."""
        return pieces(self, conversation_of(messages), kwargs, chat_response)

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Answer a conversation token by token; the event loop stays free."""
        return await apieces(self, conversation_of(messages), kwargs, chat_response)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt."""
        return answer(self, self.conversation(prompt, formatted), kwargs, completion_response)

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Answer a prompt; the event loop stays free."""
        messages = self.conversation(prompt, formatted)
        return await aanswer(self, messages, kwargs, completion_response)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Answer a prompt token by token; closing the generator stops it."""
        return pieces(self, self.conversation(prompt, formatted), kwargs, completion_response)

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer a prompt token by token; the event loop stays free."""
        messages = self.conversation(prompt, formatted)
        return await apieces(self, messages, kwargs, completion_response)

    def conversation(self, prompt: str, formatted: bool) -> list[Message]:
        """Return a prompt as a conversation of one message.

        Args:
            prompt: The prompt.
            formatted: Whether `completion_to_prompt` has been applied already.
        """
        # `completion_to_prompt` has a default, which core sets on construction.
        text = prompt if formatted else self.completion_to_prompt(prompt)  # type: ignore[misc]
        return [{"role": "user", "content": text}]

    # -- tools -------------------------------------------------------------------------------

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return what `chat` is called with, `kwargs` included.

        A `tool_choice` (``auto``, ``any``, ``none`` or the name of a tool) goes before
        `tool_required`, which stands for ``any``.

        Raises:
            ParameterError: There is no such choice, or no such tool.
        """
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        messages = [*(chat_history or ()), *([user_msg] if user_msg else ())]
        offered = offer(tools, tool_choice, tool_required, allow_parallel_tool_calls)
        return {"messages": messages, **offered, **kwargs}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the calls of an answer or, while it is streamed, what has come of them.

        A call that is not valid in the end (cut off, or not JSON) never reaches a tool: it is not
        among the answer's calls, and ``raw["invalid_tool_calls"]`` has it with its error.

        Raises:
            ParameterError: There is no call, and `error_on_no_tool_call` is set.
        """
        calls = calls_of(response.message)
        if error_on_no_tool_call and not calls:
            wrong = response.additional_kwargs.get("invalid_tool_calls", ())
            errors = "".join(f"{call['error']} " for call in wrong)
            raise ParameterError(
                "response",
                "an answer with a valid tool call",
                response.message.content or wrong,
                f"{errors}Raise max_tokens if it was cut off; tool_required=True forces a call.",
            )
        return [
            ToolSelection(
                tool_id=call["id"],
                tool_name=call["function"]["name"],
                tool_kwargs=read_arguments(call["function"]["arguments"]),
            )
            for call in calls
        ]

    # -- structured output -------------------------------------------------------------------

    def structured_predict(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: Any = None, **filled: Any
    ) -> Model:
        """Return an object of a class, its contents as varied as asked.

        Args:
            output_cls: The pydantic class; a grammar keeps the answer to its schema.
            prompt: The prompt; the schema is added to it for the aligned model.
            llm_kwargs: Settings of the call, such as ``gamma``.
            **filled: What the prompt is filled in with.

        Raises:
            CutOffError: The answer was cut off.
            ParameterError: `llm_kwargs` say what the answer looks like.
        """
        if self.pydantic_program_mode != PydanticProgramMode.DEFAULT:
            output: Model = super().structured_predict(output_cls, prompt, llm_kwargs, **filled)
            return output
        report_start(output_cls, prompt, filled)
        response = self.chat(**chat_arguments(self, output_cls, prompt, llm_kwargs, filled))
        return report_end(object_of(output_cls, response))

    async def astructured_predict(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: Any = None, **filled: Any
    ) -> Model:
        """Return an object of a class; the event loop stays free."""
        if self.pydantic_program_mode != PydanticProgramMode.DEFAULT:
            asked = super().astructured_predict(output_cls, prompt, llm_kwargs, **filled)
            output: Model = await asked
            return output
        report_start(output_cls, prompt, filled)
        arguments = chat_arguments(self, output_cls, prompt, llm_kwargs, filled)
        return report_end(object_of(output_cls, await self.achat(**arguments)))

    def _structured_stream_call(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: Any = None, **filled: Any
    ) -> Generator[Any, None, None]:
        if self.pydantic_program_mode != PydanticProgramMode.DEFAULT:
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **filled)
        arguments = chat_arguments(self, output_cls, prompt, llm_kwargs, filled)
        read, found = object_reader(output_cls), self.stream_chat(**arguments)
        return (read(piece) for piece in found if piece.delta or is_last(piece))

    async def _structured_astream_call(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: Any = None, **filled: Any
    ) -> AsyncGenerator[Any, None]:
        if self.pydantic_program_mode != PydanticProgramMode.DEFAULT:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **filled)
        arguments = chat_arguments(self, output_cls, prompt, llm_kwargs, filled)
        read, found = object_reader(output_cls), await self.astream_chat(**arguments)
        return (read(piece) async for piece in found if piece.delta or is_last(piece))


def refuse_misplaced(given: Mapping[str, Any]) -> None:
    """Refuse what other LLMs are given and has its place elsewhere here.

    Raises:
        ParameterError: It is given.
    """
    if "n" in given:
        raise ParameterError(
            "n",
            "left out, since a call gives one answer",
            given["n"],
            "For several, gather calls such as llm.acomplete(prompt, seed=i): they meet in one "
            "batch. Where they shall differ, see BreadthQueryEngine and its likes.",
        )
    # Unpickling gives core's default.
    if given.get("messages_to_prompt") not in (None, messages_to_prompt):
        raise ParameterError(
            "messages_to_prompt",
            "left out, since each model has a prompt of its own",
            given["messages_to_prompt"],
            "template_kwargs are settings of the aligned model's chat template; base_prompt may be "
            "a function that writes the base model's prompt.",
        )
