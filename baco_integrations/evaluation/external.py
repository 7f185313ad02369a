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


def is_external(model: Any) -> bool:
    """Return whether it is a model of LangChain or LlamaIndex, not a class or a function."""
    return not isinstance(model, type) and (_is_langchain(model) or _is_llama_index(model))


def _is_langchain(model: Any) -> bool:
    return all(hasattr(model, name) for name in ("invoke", "batch", "bind"))


def _is_llama_index(model: Any) -> bool:
    return all(hasattr(model, name) for name in ("chat", "complete", "metadata"))


class ExternalModel:
    """A chat model or LLM of LangChain or LlamaIndex as what methods ask.

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
        """Answer each conversation by as many calls as answers are wanted."""
        calls = [
            list(conversation)
            for conversation, own in zip(conversations, params, strict=True)
            for _ in range(own.n)
        ]
        model = self._at(params[0].temperature)
        speak = self._langchain if _is_langchain(model) else self._llama_index
        answers = iter(speak(model, calls, params[0].temperature))
        return [joined([next(answers) for _ in range(own.n)]) for own in params]

    def spent(self) -> None:
        """Nothing is known of forwards."""

    def close(self) -> None:
        """Nothing is held."""

    def _at(self, temperature: float) -> Any:
        """Return the model for a temperature."""
        if temperature not in self._made:
            made = self._model
            if not is_external(made):
                allowed = "a function that returns a model of LangChain or LlamaIndex"
                remedy = f"It was given the temperature {temperature:g}."
                try:
                    made = made(temperature)
                except BacoError:
                    raise
                except Exception as error:  # it may raise anything
                    told = f"{type(error).__name__}: {error}"
                    raise ParameterError("model", allowed, told, remedy) from error
                if not is_external(made):
                    raise ParameterError("model", allowed, made, remedy)
            elif _is_langchain(made):
                made = made.bind(temperature=temperature)
            self._made[temperature] = made
        return self._made[temperature]

    def _langchain(self, model: Any, calls: list[list[Message]], temperature: float) -> Results:
        config = {"max_concurrency": self.rows}
        try:
            outputs = model.batch(calls, config=config, return_exceptions=True)
        except Exception:  # a `batch` of the model's own that raises all the same
            outputs = [_attempted(model.invoke, call) for call in calls]
        return [each if isinstance(each, Exception) else _from_langchain(each) for each in outputs]

    def _llama_index(self, model: Any, calls: list[list[Message]], temperature: float) -> Results:
        settings = {"temperature": temperature} if is_external(self._model) else {}
        with ThreadPoolExecutor(self.rows) as pool:
            outputs = list(pool.map(partial(_ask_llama_index, model, settings), calls))
        return [
            each if isinstance(each, Exception) else _from_llama_index(each) for each in outputs
        ]


def _from_langchain(output: Any) -> list[Answer]:
    if isinstance(output, str):  # of an LLM, not a chat model
        return _told(output, None)
    usage = getattr(output, "usage_metadata", None) or {}
    return _told(str(output.text), usage.get("output_tokens"))


def _from_llama_index(output: Any) -> list[Answer]:
    return _told(str(output.message.content or ""), None)


def _ask_llama_index(model: Any, settings: dict[str, float], call: list[Message]) -> Any:
    from llama_index.core.llms import ChatMessage

    messages = [ChatMessage(role=turn["role"], content=turn["content"]) for turn in call]
    return _attempted(partial(model.chat, **settings), messages)


def _attempted(ask: Callable[[Any], Any], call: Any) -> Any:
    try:
        return ask(call)
    except Exception as error:  # whatever a model raises belongs to its own prompt only
        return error


def _told(text: str, tokens: int | None) -> list[Answer]:
    """Words are counted where the model does not tell how many tokens it took."""
    return [Answer(text, len(text.split()) if tokens is None else tokens)]
