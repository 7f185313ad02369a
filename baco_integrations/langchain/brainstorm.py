"""Distinct answers of a chain; each sample is a call of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.embeddings import Embeddings
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import patch_config
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel
from pydantic_core import to_json

from ..adapters.distinct import (
    BreadthParams,
    Idea,
    Similarity,
    blocking,
    cosine_similarity,
    distinct,
    idea_fields,
    wait,
)
from ..core.errors import ParameterError
from .base import LangChainAdapter

_Run = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun


def embedding_similarity(embeddings: Embeddings) -> Similarity:
    """Return the cosine similarity of two texts' embeddings; opposites count as unrelated.

    Args:
        embeddings: Embeds the texts; each text once, as long as it is among the last 65536.
    """
    return cosine_similarity(lambda text: embeddings.embed_documents([text])[0])


class Brainstorm(Runnable[Any, list[Idea]]):
    """A runnable that answers with a list of distinct ideas, each of them from a call of a chain.

    It draws samples in rounds, as many at once as are missing, until enough of them differ.
    `invoke` keeps the first of similar samples by number, `stream` the first to arrive. Samples
    that cannot be parsed are passed over. A call may bring settings of its own, such as ``n``;
    what is no setting of `BreadthParams` goes to the model.

    Example:
        ```python
        ideas = brainstorm(ChatBACo(pair="qwen2.5-7b"), n=8, ladder=(0.2, 0.5, 0.8))
        for idea in ideas.stream("Name a hobby."):
            print(idea.gamma, idea)
        ```

    Args:
        llm: A `ChatBACo`, or a chain with one in it: with a prompt, with structured output, ...
        **settings: Settings of `BreadthParams`.

    Raises:
        ParameterError: A setting is not allowed, or no model can be found in the chain.
    """

    def __init__(self, llm: Runnable[Any, Any], **settings: Any) -> None:
        self.llm = llm
        self.params = BreadthParams(**settings)
        if with_settings(llm, {}) is llm:
            raise ParameterError(
                "llm",
                "a ChatBACo, or a chain of runnables with one in it",
                llm,
                "A model inside a function is out of reach: wrap the model alone, as in "
                "prompt | brainstorm(llm).",
            )

    @property
    def InputType(self) -> Any:
        """What the chain takes."""
        return self.llm.InputType

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> list[Idea]:
        """Return up to n distinct ideas, in the order of their samples."""

        def ideas(_: Any, run_manager: _Run, config: RunnableConfig) -> list[Idea]:
            return list(blocking(self.ideas(input, run_manager, config, kwargs, in_order=True)))

        return self._call_with_config(ideas, input, config)

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Idea]:
        """Return up to n distinct ideas, in the order of their samples."""

        async def ideas(_: Any, run_manager: _Run, config: RunnableConfig) -> list[Idea]:
            found = self.ideas(input, run_manager, config, kwargs, in_order=True)
            return [idea async for idea in found]

        return await self._acall_with_config(ideas, input, config)

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[list[Idea]]:
        """Answer several inputs, with the samples of all in one batch."""
        return wait(self.abatch(inputs, config, **kwargs))

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Yield each idea as soon as it is finished and known to be new."""

        def ideas(_: Any, run_manager: _Run, config: RunnableConfig) -> Iterator[Any]:
            return blocking(self.ideas(input, run_manager, config, kwargs, in_order=False))

        return self._transform_stream_with_config(iter([input]), ideas, config)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Yield each idea as soon as it is finished and known to be new."""

        async def inputs() -> AsyncIterator[Any]:
            yield input

        def ideas(_: Any, run_manager: _Run, config: RunnableConfig) -> AsyncIterator[Any]:
            return self.ideas(input, run_manager, config, kwargs, in_order=False)

        found: Any = self._atransform_stream_with_config(inputs(), ideas, config)
        async with aclosing(found):
            async for idea in found:
                yield idea

    def tool(self, name: str = "brainstorm", description: str | None = None) -> BaseTool:
        """Return a tool that takes a question and returns the ideas, one a line.

        Structured values are lines of JSON.
        """

        def ask(question: str, config: RunnableConfig) -> str:
            return lines(self.invoke(question, config))

        async def aask(question: str, config: RunnableConfig) -> str:
            return lines(await self.ainvoke(question, config))

        def lines(ideas: list[Idea]) -> str:
            return "\n".join(" ".join(idea.text.split()) for idea in ideas)

        about = description or f"Gives up to {self.params.n} distinct answers to a question."
        return StructuredTool.from_function(ask, aask, name=name, description=about)

    def ideas(
        self, input: Any, run_manager: _Run, config: RunnableConfig, call: Any, *, in_order: bool
    ) -> AsyncGenerator[Idea]:
        """Return a generator of distinct ideas.

        Args:
            input: What each call of the chain is given.
            run_manager: The run that the samples belong to.
            config: The config of the samples.
            call: Settings of `BreadthParams` and of the model, by name.
            in_order: As for `distinct`.
        """
        own = {name: call.pop(name) for name in BreadthParams.model_fields if name in call}

        async def sample(number: int, drawn: Mapping[str, Any]) -> Idea | Exception:
            settings = {**call, **drawn}
            child = patch_config(config, callbacks=run_manager.get_child(f"sample:{number}"))
            try:
                answer = await with_settings(self.llm, settings).ainvoke(input, child)
            except OutputParserException as error:
                return error
            return read_sample(answer, {**settings, "sample": number})

        at_once = config.get("max_concurrency")
        return distinct(sample, self.params.replace(**own), in_order=in_order, at_once=at_once)


brainstorm = Brainstorm
"""Return a runnable that answers with a list of distinct ideas."""


def read_sample(answer: Any, asked: Mapping[str, Any]) -> Idea | Exception:
    """Return the idea of a sample, or the error where it could not be parsed.

    Args:
        answer: What the chain returned: a message, a value, or a dict with both.
        asked: The settings of the sample, and its number.
    """
    message, value = answer, answer
    if isinstance(answer, Mapping) and {"raw", "parsed"} <= answer.keys():
        message, value = answer["raw"], answer["parsed"]
        if value is None:
            return answer.get("parsing_error") or OutputParserException("nothing was parsed")
    elif isinstance(answer, AIMessage):
        value = str(answer.text)
    about = message.response_metadata if isinstance(message, AIMessage) else {}
    text = value if isinstance(value, str) else to_json(value, fallback=str).decode()
    return Idea(**{**idea_fields(asked, about), "value": value, "text": text})


def with_settings(part: Any, settings: Mapping[str, Any]) -> Any:
    """Bind settings to every model in a chain, over its own; what holds none stays the same object.

    Settings of a call would not do: a chain hands them to its first step only.
    """
    dynamic = isinstance(part, DynamicRunnable) and isinstance(part.default, LangChainAdapter)
    if dynamic or isinstance(part, LangChainAdapter):
        return part.bind(**settings)
    if isinstance(part, Mapping):
        inner = {name: with_settings(each, settings) for name, each in part.items()}
        return inner if any(inner[name] is not part[name] for name in part) else part
    if isinstance(part, list | tuple):
        steps = [with_settings(each, settings) for each in part]
        changed = any(new is not old for new, old in zip(steps, part, strict=True))
        return type(part)(steps) if changed else part
    if not (isinstance(part, Runnable) and isinstance(part, BaseModel)):
        return part
    fields = {name: getattr(part, name) for name in type(part).model_fields}
    inner = with_settings(fields, settings)
    if inner is fields:
        return part
    if isinstance(part, RunnableBindingBase):
        # A binding comes before what it binds; and a model takes one of the two knobs.
        replaced = {*settings, "threshold"} if "gamma" in settings else settings
        inner["kwargs"] = {n: value for n, value in part.kwargs.items() if n not in replaced}
    return part.model_copy(update=inner)
