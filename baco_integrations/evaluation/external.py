"""Models that are not ours, so that they can be compared: LangChain's and LlamaIndex's.

They are taken by their methods, so neither framework is needed for the other. A model that has no
``n`` is called n times. Seeds are not passed on: such runs can be resumed, not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ..core.errors import BacoError, ParameterError
from ..core.messages import Message
from ..core.params import SamplingParams
from .models import Answer, Results, joined


def is_langchain(model: Any) -> bool:
    """Tell whether an object has the methods of a LangChain model; no class does."""
    methods = ("invoke", "batch", "bind")
    return not isinstance(model, type) and all(hasattr(model, name) for name in methods)


def is_llama_index(model: Any) -> bool:
    """Tell whether an object has the methods of a LlamaIndex model; no class does."""
    methods = ("chat", "complete", "metadata")
    return not isinstance(model, type) and all(hasattr(model, name) for name in methods)


def is_external(model: Any) -> bool:
    """Tell whether an object has the methods of a LangChain or LlamaIndex model; no class does."""
    return is_langchain(model) or is_llama_index(model)


class ExternalModel:
    """A chat model or LLM of LangChain or LlamaIndex as a `Model`.

    Args:
        model: The model, which is given each temperature by ``bind`` (LangChain) or with the call
            (LlamaIndex); or a function that returns a model for a temperature.
        name: How records name it; its class or function if left out.
        rows: How many calls are under way at once.
    """

    def __init__(self, model: Any, *, name: str | None = None, rows: int = 8) -> None:
        own = model if hasattr(model, "__qualname__") else type(model)
        self.name = name or f"{own.__module__}:{own.__qualname__}"
        self.identity = self.name
        self.rows = rows
        self._model = model
        self._made: dict[float, Any] = {}

    def answer(
        self, conversations: Sequence[Sequence[Message]], params: Sequence[SamplingParams]
    ) -> Results:
        """Answer each conversation by ``n`` calls."""
        calls = [
            list(conversation)
            for conversation, own in zip(conversations, params, strict=True)
            for _ in range(own.n)
        ]
        temperature = params[0].temperature
        model = self.at_temperature(temperature)
        if is_langchain(model):
            outputs = self.call_langchain(model, calls)
        else:
            settings = {"temperature": temperature} if is_external(self._model) else {}
            with ThreadPoolExecutor(self.rows) as pool:
                outputs = list(pool.map(partial(call_llama_index, model, settings), calls))
        answers = iter([each if isinstance(each, Exception) else [each] for each in outputs])
        return [joined([next(answers) for _ in range(own.n)]) for own in params]

    def spent(self) -> None:
        """Nothing is known of forwards."""

    def close(self) -> None:
        """Nothing is held."""

    def at_temperature(self, temperature: float) -> Any:
        """Return the model for a temperature; each is made once.

        Raises:
            ParameterError: The function fails, or returns no model.
        """
        if temperature not in self._made:
            made = self._model
            if is_langchain(made):
                made = made.bind(temperature=temperature)
            elif not is_external(made):
                allowed = "a function that returns a model of LangChain or LlamaIndex"
                remedy = f"It was given the temperature {temperature:g}."
                try:
                    made = made(temperature)
                except BacoError:
                    raise
                except Exception as error:  # it may raise anything
                    fault = f"{type(error).__name__}: {error}"
                    raise ParameterError("model", allowed, fault, remedy) from error
                if not is_external(made):
                    raise ParameterError("model", allowed, made, remedy)
            self._made[temperature] = made
        return self._made[temperature]

    def call_langchain(self, model: Any, calls: list[list[Message]]) -> list[Answer | Exception]:
        """Return an answer, or an error, for each call."""
        try:
            config = {"max_concurrency": self.rows}
            outputs = model.batch(calls, config=config, return_exceptions=True)
        except Exception:  # a `batch` of the model's own that raises all the same
            outputs = [attempt(model.invoke, call) for call in calls]
        return [each if isinstance(each, Exception) else read_langchain(each) for each in outputs]


def read_langchain(output: Any) -> Answer:
    """Return a message, or an LLM's text, as an answer; words are counted where no tokens are."""
    if isinstance(output, str):  # of an LLM, not a chat model
        return Answer(output, len(output.split()))
    text = str(output.text)
    tokens = (getattr(output, "usage_metadata", None) or {}).get("output_tokens")
    return Answer(text, len(text.split()) if tokens is None else tokens)


def call_llama_index(
    model: Any, settings: dict[str, float], call: list[Message]
) -> Answer | Exception:
    """Return a model's answer, or its error; words are counted, as it does not count tokens."""
    from llama_index.core.llms import ChatMessage

    messages = [ChatMessage(role=turn["role"], content=turn["content"]) for turn in call]
    output = attempt(partial(model.chat, **settings), messages)
    if isinstance(output, Exception):
        return output
    text = str(output.message.content or "")
    return Answer(text, len(text.split()))


def attempt(ask: Callable[[Any], Any], call: Any) -> Any:
    """Return what a model returns or raises: its error belongs to its own prompt only."""
    try:
        return ask(call)
    except Exception as error:
        return error
