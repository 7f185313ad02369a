"""Distinct answers: samples are drawn, round by round, until enough of them differ."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from concurrent.futures import Future
from contextlib import aclosing, suppress
from functools import lru_cache
from queue import SimpleQueue
from typing import Annotated, Any, TypeVar

import numpy as np
from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.embeddings import Embeddings
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ContextThreadPoolExecutor, patch_config
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import to_json

from ..core.checked import Checked, Integer, param
from ..core.errors import ParameterError
from .adapter import LangChainAdapter

T = TypeVar("T")

_Run = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun

Similarity = Callable[[str, str], float]
"""How alike two texts are, from 0 to 1."""


# -- what is alike ---------------------------------------------------------------------------------


def word_overlap(one: str, other: str) -> float:
    """Return the share of the two texts' words that both have, whatever their case and order.

    Punctuation does not count, so texts that differ in nothing else are the same. Texts without a
    word are the same if they are equal.
    """
    words, others = (set(re.findall(r"\w+", text.casefold())) for text in (one, other))
    if not words | others:
        return float(one.strip() == other.strip())
    return len(words & others) / len(words | others)


def embedding_similarity(embeddings: Embeddings) -> Similarity:
    """Return the cosine similarity of two texts' embeddings; opposites count as unrelated.

    Args:
        embeddings: Embeds the texts; each text once, as long as it is among the last 4096.
    """

    @lru_cache(maxsize=4096)
    def direction(text: str) -> Any:
        vector = np.asarray(embeddings.embed_documents([text])[0], dtype=float)
        return vector / (np.linalg.norm(vector) or 1)

    return lambda one, other: float(np.clip(direction(one) @ direction(other), 0, 1))


# -- settings and results --------------------------------------------------------------------------


def _list(value: object) -> object:
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


_Gamma = Annotated[float, Field(ge=0, le=1)]
_Ladder = Annotated[tuple[_Gamma, ...], BeforeValidator(_list), Field(min_length=1)]


class BrainstormParams(Checked):
    """How many answers are looked for, how, and which count as the same.

    Attributes:
        n: Number of distinct answers to find.
        gamma: Diversity of every sample; the model's own if neither it nor `ladder` is given.
        ladder: Diversities that the samples take in turn.
        similarity: How alike two answers' texts are, from 0 to 1. It may be slow: it is called in
            a thread.
        threshold: Similarity from which two answers count as the same.
        max_samples: Most samples to draw; 4 * n if it is left out.
        seed: Repeats a result: sample number i has the seed ``seed + i``. Fresh if it is left out.

    Raises:
        ParameterError: A value is not allowed.
    """

    n: Annotated[Integer, Field(ge=1)] = param(
        8, "a whole number of at least 1", "It is the number of distinct answers to find."
    )
    gamma: _Gamma | None = param(None, "a number from 0 to 1", "Raise it for variety.")
    ladder: _Ladder | None = param(
        None, "one or more numbers from 0 to 1", "For example (0.2, 0.5, 0.8)."
    )
    similarity: Similarity = param(
        word_overlap, "a function of two texts", "Leave it out, or try embedding_similarity(...)."
    )
    threshold: _Gamma = param(
        0.8, "a number from 0 to 1", "Answers at least so similar count as the same."
    )
    max_samples: Annotated[Integer, Field(ge=1)] | None = param(
        None, "a whole number of at least n", "Leave it out for 4 * n."
    )
    seed: Annotated[Integer, Field(ge=0, lt=2**64)] | None = param(
        None, "a whole number from 0 to 2**64 - 1, or None", "Leave it out for fresh samples."
    )

    @model_validator(mode="after")
    def _consistent(self) -> BrainstormParams:
        if self.gamma is not None and self.ladder is not None:
            raise ParameterError(
                "ladder", "left out where gamma is given", self.ladder, "Give one of them."
            )
        if self.max_samples is not None and self.max_samples < self.n:
            raise ParameterError(
                "max_samples", f"at least n, {self.n}", self.max_samples, "Leave it out for 4 * n."
            )
        return self

    def sample(self, number: int, seed: int) -> dict[str, Any]:
        """Return the settings of one sample."""
        gamma = self.ladder[number % len(self.ladder)] if self.ladder else self.gamma
        dialled = {} if gamma is None else {"gamma": gamma}
        return {**dialled, "seed": (seed + number) % 2**64}

    def is_new(self, text: str, known: Iterable[str]) -> bool:
        """Tell whether a text says something that none of those known says.

        Raises:
            ParameterError: The similarity function fails or returns no number from 0 to 1.
        """
        different = (self._score(text, other) < self.threshold for other in known)
        return bool(text.strip()) and all(different)

    def _score(self, one: str, other: str) -> float:
        try:
            score = self.similarity(one, other)
            if not 0 <= score <= 1:
                raise ValueError(f"{score!r} for {one!r} and {other!r}")
            return float(score)
        except Exception as error:
            raise ParameterError(
                "similarity",
                "a function that returns a number from 0 to 1 for any two texts",
                error,
                "Return 0 where nothing is alike, 1 for the same.",
            ) from error


class Idea(BaseModel):
    """One distinct answer, and how it came about.

    Ideas of a stream add up to the list that `Brainstorm.invoke` returns.

    Attributes:
        value: The text, or the parsed object of structured output.
        text: The text; JSON for a structured value.
        gamma: The sample's diversity.
        seed: The sample's seed; with it and gamma the model gives the answer again.
        router: The router, where the answer came with its message, as the next two.
        base_share: Share of tokens from the base model.
        switches: How often the sides switched.
        sample: The sample's number, from 0.
    """

    model_config = ConfigDict(frozen=True)

    value: Any
    text: str
    gamma: float | None = None
    seed: int | None = None
    router: str | None = None
    base_share: float | None = None
    switches: int | None = None
    sample: int

    def __str__(self) -> str:
        return self.text

    def __add__(self, other: Idea) -> list[Idea]:
        return [self, other]

    def __radd__(self, others: list[Idea]) -> list[Idea]:
        return [*others, self]


# -- the runnable ----------------------------------------------------------------------------------


def brainstorm(llm: Runnable[Any, Any], **settings: Any) -> Brainstorm:
    """Return a runnable that answers with a list of distinct ideas.

    Example:
        ```python
        ideas = brainstorm(ChatBACo(pair="qwen2.5-7b"), n=8, ladder=(0.2, 0.5, 0.8))
        for idea in ideas.stream("Name a hobby."):
            print(idea.gamma, idea)
        ```

    Args:
        llm: A `ChatBACo`, or a chain with one in it: with a prompt, with structured output, ...
        **settings: Settings of `BrainstormParams`.

    Raises:
        ParameterError: A setting is not allowed, or no model can be found in the chain.
    """
    return Brainstorm(llm, **settings)


class Brainstorm(Runnable[Any, list[Idea]]):
    """Draws samples in rounds, as many at once as are missing, until enough of them differ.

    Each sample is one call of the chain. `invoke` keeps the first of similar samples by number,
    `stream` the first to arrive. Samples that cannot be parsed are passed over. A call may bring
    settings of its own, such as ``n``; what is no setting of `BrainstormParams` goes to the model.
    """

    def __init__(self, llm: Runnable[Any, Any], **settings: Any) -> None:
        self.llm = llm
        self.params = BrainstormParams(**settings)
        if _dialled(llm, {}) is llm:
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
            return list(_blocking(self._found(input, run_manager, config, kwargs, in_order=True)))

        return self._call_with_config(ideas, input, config)

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Idea]:
        """Return up to n distinct ideas, in the order of their samples."""

        async def ideas(_: Any, run_manager: _Run, config: RunnableConfig) -> list[Idea]:
            found = self._found(input, run_manager, config, kwargs, in_order=True)
            return [idea async for idea in found]

        return await self._acall_with_config(ideas, input, config)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[list[Idea]]:
        """Answer several inputs, with the samples of all in one batch."""

        async def together() -> AsyncGenerator[list[list[Idea]]]:
            yield await self.abatch(inputs, config, **kwargs)

        [answers] = _blocking(together())
        return answers

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Yield each idea as soon as it is finished and known to be new."""

        def ideas(_: Any, run_manager: _Run, config: RunnableConfig) -> Iterator[Any]:
            return _blocking(self._found(input, run_manager, config, kwargs, in_order=False))

        return self._transform_stream_with_config(iter([input]), ideas, config)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Yield each idea as soon as it is finished and known to be new."""

        async def inputs() -> AsyncIterator[Any]:
            yield input

        def ideas(_: Any, run_manager: _Run, config: RunnableConfig) -> AsyncIterator[Any]:
            return self._found(input, run_manager, config, kwargs, in_order=False)

        found: Any = self._atransform_stream_with_config(inputs(), ideas, config)
        async with aclosing(found):
            async for idea in found:
                yield idea

    def tool(self, name: str = "brainstorm", description: str | None = None) -> BaseTool:
        """Return a tool that takes a question and returns the ideas, one a line.

        Structured values are lines of JSON.
        """

        def ask(question: str, config: RunnableConfig) -> str:
            return _lines(self.invoke(question, config))

        async def aask(question: str, config: RunnableConfig) -> str:
            return _lines(await self.ainvoke(question, config))

        told = description or f"Gives up to {self.params.n} distinct answers to a question."
        return StructuredTool.from_function(ask, aask, name=name, description=told)

    async def _found(
        self,
        input: Any,
        run_manager: _Run,
        config: RunnableConfig,
        call: dict[str, Any],
        *,
        in_order: bool,
    ) -> AsyncGenerator[Idea]:
        """Yield distinct ideas; every way of asking ends here."""
        own = {name: call.pop(name) for name in BrainstormParams.model_fields if name in call}
        params = self.params.replace(**own)
        seed = secrets.randbits(53) if params.seed is None else params.seed
        limit = params.max_samples or 4 * params.n
        gate = asyncio.Semaphore(config.get("max_concurrency") or limit)

        async def sample(number: int) -> Idea | Exception:
            settings = {**call, **params.sample(number, seed)}
            child = patch_config(config, callbacks=run_manager.get_child(f"sample:{number}"))
            async with gate:
                try:
                    answer = await _dialled(self.llm, settings).ainvoke(input, child)
                except OutputParserException as error:
                    return error
            return _idea(answer, {**settings, "sample": number})

        known: list[str] = []
        drawn = 0
        while size := min(params.n - len(known), limit - drawn):
            samples = [sample(number) for number in range(drawn, drawn + size)]
            failed: list[Exception] = []
            async with aclosing(_finished(samples, in_order)) as answers:
                async for answer in answers:
                    if isinstance(answer, Exception):
                        failed.append(answer)
                    elif await asyncio.to_thread(params.is_new, answer.text, known):
                        known.append(answer.text)
                        yield answer
            if not known and len(failed) == size and len({type(each) for each in failed}) == 1:
                raise failed[0]
            drawn += size


def _idea(answer: Any, asked: Mapping[str, Any]) -> Idea | Exception:
    """Read a sample, with or without its message; return why there is none if parsing failed."""
    message, value = answer, answer
    if isinstance(answer, Mapping) and {"raw", "parsed"} <= answer.keys():
        message, value = answer["raw"], answer["parsed"]
        if value is None:
            return answer.get("parsing_error") or OutputParserException("nothing was parsed")
    elif isinstance(answer, AIMessage):
        value = str(answer.text)
    told = message.response_metadata if isinstance(message, AIMessage) else {}
    about = {name: each for name, each in {**asked, **told}.items() if name in Idea.model_fields}
    text = value if isinstance(value, str) else to_json(value, fallback=str).decode()
    return Idea(**{**about, "value": value, "text": text})


def _dialled(part: Any, settings: Mapping[str, Any]) -> Any:
    """Bind settings to every model in a chain, over its own; what holds none stays the same object.

    Settings of a call would not do: a chain hands them to its first step only.
    """
    dynamic = isinstance(part, DynamicRunnable) and isinstance(part.default, LangChainAdapter)
    if dynamic or isinstance(part, LangChainAdapter):
        return part.bind(**settings)
    if isinstance(part, Mapping):
        inner = {name: _dialled(each, settings) for name, each in part.items()}
        return inner if any(inner[name] is not part[name] for name in part) else part
    if isinstance(part, list | tuple):
        steps = [_dialled(each, settings) for each in part]
        changed = any(new is not old for new, old in zip(steps, part, strict=True))
        return type(part)(steps) if changed else part
    if not (isinstance(part, Runnable) and isinstance(part, BaseModel)):
        return part
    fields = {name: getattr(part, name) for name in type(part).model_fields}
    inner = _dialled(fields, settings)
    if inner is fields:
        return part
    if isinstance(part, RunnableBindingBase):
        # A binding comes before what it binds; and a model takes one of the two knobs.
        replaced = {*settings, "threshold"} if "gamma" in settings else settings
        inner["kwargs"] = {n: value for n, value in part.kwargs.items() if n not in replaced}
    return part.model_copy(update=inner)


def _lines(ideas: Iterable[Idea]) -> str:
    return "\n".join(" ".join(idea.text.split()) for idea in ideas)


# -- waiting ---------------------------------------------------------------------------------------


async def _finished(work: list[Coroutine[Any, Any, T]], in_order: bool) -> AsyncGenerator[T]:
    """Yield results, in order or as they come; the first error, or closing, cancels the rest."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        for task in asyncio.as_completed(tasks):
            result = await task
            if not in_order:
                yield result
        if in_order:
            for done in tasks:
                yield done.result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _blocking(results: AsyncGenerator[T]) -> Iterator[T]:
    """Iterate in a thread without an event loop; closing cancels what still runs."""
    arrived: SimpleQueue[T | None] = SimpleQueue()
    started: Future[asyncio.Task[Any]] = Future()

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        started.set_result(task)
        try:
            async for result in results:
                arrived.put(result)
        finally:
            arrived.put(None)

    with ContextThreadPoolExecutor(1) as executor:
        running = executor.submit(asyncio.run, run())
        task = started.result()
        try:
            while (result := arrived.get()) is not None:
                yield result
        except BaseException:
            with suppress(RuntimeError):  # it has finished
                task.get_loop().call_soon_threadsafe(task.cancel)
            raise
        running.result()
