"""Distinct answers of a query engine: it retrieves once and answers several times."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from types import MethodType
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.base.response.schema import RESPONSE_TYPE, Response
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.callbacks.base import EventContext
from llama_index.core.llms import LLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType
from pydantic import ValidationError

from ...adapters.distinct import BreadthParams, Idea, idea_fields, wait
from ...core.errors import ParameterError
from ..structured import cut_off_error
from .samples import ideas, require_baco

_BEFORE = "there was an answer to read"
# What core's synthesizers put in the place of answers that are blank or cannot be read.
_NOTHING = re.compile(r"((Response \d+: )?Empty Response[\s-]*)*")


class BreadthQueryEngine(BaseQueryEngine):
    """Answers a query in several distinct ways, each from the same nodes.

    A response's text is the answers, a blank line between them; its metadata has the ideas, as
    dicts, under ``ideas``. What is wrapped stays as it is: each sample is of a copy that has an LLM
    with a gamma and a seed of its own. Of several calls to the LLM, as in refining, an idea tells
    about the last, which wrote the answer.

    Example:
        ```python
        engine = BreadthQueryEngine(index.as_query_engine(llm=llm), n=3, ladder=(0.2, 0.5, 0.8))
        for idea in engine.answers("What should we do about the roof?"):
            print(idea.gamma, idea)
        ```

    Args:
        query_engine: A `RetrieverQueryEngine`, as ``index.as_query_engine(...)`` returns it, or
            another with a retriever and a response synthesizer.
        callback_manager: That of `query_engine` if it is left out.
        **settings: Settings of `BreadthParams`.

    Raises:
        ParameterError: A setting is not allowed, the engine does not retrieve before it answers,
            or its LLM is no `BACoLLM`.
    """

    def __init__(
        self,
        query_engine: BaseQueryEngine,
        *,
        callback_manager: CallbackManager | None = None,
        **settings: Any,
    ) -> None:
        self.params = BreadthParams(**settings)
        synthesizer = getattr(query_engine, "_response_synthesizer", None)
        if not (isinstance(synthesizer, BaseSynthesizer) and hasattr(query_engine, "aretrieve")):
            raise ParameterError(
                "query_engine",
                "an engine that retrieves and then answers, as index.as_query_engine(...) is one",
                query_engine,
                "Wrap that one, and put the result inside whatever transforms or routes queries.",
            )
        llm = synthesizer._llm
        require_baco(llm.llm if isinstance(llm, StructuredLLM) else llm)
        self._query_engine = query_engine
        super().__init__(callback_manager or query_engine.callback_manager)

    def _get_prompt_modules(self) -> PromptMixinType:
        return self._query_engine._get_prompt_modules()

    def _get_prompts(self) -> PromptDictType:
        return self._query_engine._get_prompts()

    def _update_prompts(self, prompts: PromptDictType) -> None:
        self._query_engine._update_prompts(prompts)

    def answers(self, query: QueryType) -> list[Idea]:
        """Return up to n distinct answers; none if nothing is retrieved."""
        bundle = QueryBundle(query) if isinstance(query, str) else query
        return wait(self.sampled(bundle, self.retrieve(bundle)))[0]

    async def aanswers(self, query: QueryType) -> list[Idea]:
        """Return up to n distinct answers; none if nothing is retrieved."""
        bundle = QueryBundle(query) if isinstance(query, str) else query
        return (await self.sampled(bundle, await self.aretrieve(bundle)))[0]

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self.query_event(query_bundle) as event:
            response = self.synthesize(query_bundle, self.retrieve(query_bundle))
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self.query_event(query_bundle) as event:
            nodes = await self.aretrieve(query_bundle)
            response = await self.asynthesize(query_bundle, nodes)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def query_event(self, query_bundle: QueryBundle) -> AbstractContextManager[EventContext]:
        """Return core's event of a query, which ends when it is left."""
        payload: dict[str, Any] = {EventPayload.QUERY_STR: query_bundle.query_str}
        return self.callback_manager.event(CBEventType.QUERY, payload=payload)

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Return what the wrapped engine retrieves."""
        return self._query_engine.retrieve(query_bundle)

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Return what the wrapped engine retrieves."""
        engine: Any = self._query_engine
        nodes: list[NodeWithScore] = await engine.aretrieve(query_bundle)
        return nodes

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Return the distinct answers that the nodes give."""
        return wait(self.asynthesize(query_bundle, nodes, additional_source_nodes))

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Return the distinct answers that the nodes give."""
        found, responses = await self.sampled(query_bundle, nodes, additional_source_nodes)
        if not responses:
            # One that streams would give an empty stream, of the async kind at that.
            plain = variant(self._query_engine, {}, LlamaDebugHandler(print_trace_on_end=False))
            responses[0] = await plain.asynthesize(query_bundle, nodes, additional_source_nodes)
        like: RESPONSE_TYPE = responses[found[0].sample if found else min(responses)]
        if not found:
            return like
        dicts = [each.model_dump(mode="json") for each in found]
        metadata = {**(like.metadata or {}), "ideas": dicts}
        return Response("\n\n".join(map(str, found)), like.source_nodes, metadata)

    async def sampled(
        self,
        bundle: QueryBundle,
        nodes: list[NodeWithScore],
        further: Sequence[NodeWithScore] | None = None,
    ) -> tuple[list[Idea], dict[int, Any]]:
        """Return the answers, and the responses that could be read, by their samples' numbers."""
        responses: dict[int, Any] = {}

        async def sample(number: int, settings: Mapping[str, Any]) -> Idea | Exception:
            calls = LlamaDebugHandler(print_trace_on_end=False)
            engine = variant(self._query_engine, settings, calls)
            try:
                response = await engine.asynthesize(bundle, nodes, further)
            except Exception as error:
                if not isinstance(error.__cause__ or error, ValidationError):
                    raise
                # If it is not cut off, it breaks a rule that its schema cannot tell.
                return cut_off_error(last_raw(calls), _BEFORE) or error
            responses[number], raw = response, last_raw(calls)
            value = response.response or ""
            text = value if isinstance(value, str) else value.model_dump_json()
            if _NOTHING.fullmatch(text.strip()):
                value = text = ""
                if cut_off := cut_off_error(raw, _BEFORE):  # core only logs the LLM's error
                    return cut_off
            return Idea(value=value, text=text, sample=number, **idea_fields(settings, raw))

        return await ideas(sample, self.params) if nodes else [], responses


def variant(engine: Any, settings: Mapping[str, Any], calls: LlamaDebugHandler) -> Any:
    """Return a copy of an engine whose LLM has other settings and reports to a handler."""
    synthesizer = engine._response_synthesizer
    fresh = copy(synthesizer)
    for name, value in vars(synthesizer).items():
        if isinstance(value, MethodType) and value.__self__ is synthesizer:
            # Such as the factory of a Refine, which uses the LLM of the object that it is bound to.
            setattr(fresh, name, MethodType(value.__func__, fresh))
    fresh._llm, fresh._streaming = with_settings(synthesizer._llm, settings, calls), False
    changed = copy(engine)
    changed._response_synthesizer = fresh
    return changed


def with_settings(llm: LLM, settings: Mapping[str, Any], calls: LlamaDebugHandler) -> LLM:
    """Return a copy of an LLM that has other settings and reports to a handler."""
    if isinstance(llm, StructuredLLM):
        return llm.model_copy(update={"llm": with_settings(llm.llm, settings, calls)})
    fresh = require_baco(llm).with_settings(settings)
    fresh.callback_manager = copy(llm.callback_manager)
    fresh.callback_manager.handlers = [*llm.callback_manager.handlers, calls]
    return fresh


def last_raw(calls: LlamaDebugHandler) -> Any:
    """Return what the last answer of an LLM says about itself, None if there is no answer."""
    for event in reversed(calls.get_events()):
        response = (event.payload or {}).get(EventPayload.RESPONSE)
        if isinstance(response, ChatResponse | CompletionResponse) and response.raw:
            return response.raw
    return None
