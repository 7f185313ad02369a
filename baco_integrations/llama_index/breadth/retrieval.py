"""Retrieval that looks for an answer in several places: query fusion and HyDE."""

from __future__ import annotations

from contextlib import suppress
from inspect import signature
from typing import Any

from llama_index.core.indices.query.query_transform.base import HyDEQueryTransform
from llama_index.core.llms import LLM, ChatMessage
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.prompts.default_prompts import DEFAULT_HYDE_PROMPT
from llama_index.core.retrievers import BaseRetriever, QueryFusionRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from ...adapters.base import refuse_unknown
from ...adapters.distinct import BreadthParams, Idea, wait
from ...core.errors import ParameterError
from .samples import drawing, first_line, ideas, require_baco, require_prompt

QUERY_PROMPT = """\
Somebody searches for this:
{query}
Write one other search query that may find what they need: in other words, or about another side \
of the matter. Reply with the query only.
"""
"""Asks for one further query; what is filled in is ``query``."""

# `num_queries` says how many there are to be, so `n` has no say.
_BREADTH = BreadthParams.model_fields.keys() - {"n"}
_CORE = signature(QueryFusionRetriever).parameters


class BreadthQueryFusion(QueryFusionRetriever):
    """Core's fusion, with each further query a sample of its own instead of a line of one list.

    The queries differ from one another and from the original. Fusion modes, weights and prompts
    are core's.

    Example:
        ```python
        retriever = BreadthQueryFusion([vector, bm25], llm=llm, num_queries=6, gamma=0.7)
        retriever.queries("how to sleep better")  # what it would search for
        index_engine = RetrieverQueryEngine.from_args(retriever, llm=llm.with_gamma(0.1))
        ```

    Args:
        retrievers: Each is asked every query.
        llm: Words the queries; `Settings.llm` if it is left out.
        query_gen_prompt: Asks for one query, given ``{query}``; other braces are doubled.
        num_queries: Number of queries, the original included.
        **settings: Further settings of core's class, and of `BreadthParams` except ``n``.

    Raises:
        ParameterError: A setting is not allowed, or the LLM is no `BACoLLM`.
    """

    def __init__(
        self,
        retrievers: list[BaseRetriever],
        llm: LLM | None = None,
        query_gen_prompt: PromptTemplate | str | None = None,
        *,
        num_queries: int = 4,
        **settings: Any,
    ) -> None:
        if "n" in settings:
            raise ParameterError(
                "n", "left out", settings["n"], "num_queries says how many there are to be."
            )
        refuse_unknown(settings, [*_CORE, *_BREADTH], "a setting of BreadthQueryFusion")
        breadth = {name: settings.pop(name) for name in _BREADTH & settings.keys()}
        if isinstance(num_queries, bool) or not isinstance(num_queries, int) or num_queries < 1:
            raise ParameterError(
                "num_queries",
                "a whole number of at least 1",
                num_queries,
                "It counts the original query too.",
            )
        if not retrievers:
            raise ParameterError(
                "retrievers", "one or more retrievers", retrievers, "Each is asked every query."
            )
        self.params = BreadthParams(n=max(num_queries - 1, 1), **breadth)
        require_baco(llm)
        prompt = fusion_text(query_gen_prompt or QUERY_PROMPT)
        super().__init__(retrievers, llm, prompt, num_queries=num_queries, **settings)

    def queries(self, query: str) -> list[Idea]:
        """Return the further queries that are searched for; a fresh sample unless seeded."""
        return wait(self.aqueries(query))

    async def aqueries(self, query: str) -> list[Idea]:
        """Return the further queries that are searched for; a fresh sample unless seeded."""
        if self.num_queries == 1:
            return []
        prompt = ChatMessage(content=self.query_gen_prompt.format(query=query, num_queries=1))
        draw = drawing(require_baco(self._llm), [prompt], first_line)
        return await ideas(draw, self.params.replace(n=self.num_queries - 1), known=[query])

    def _get_queries(self, original_query: str) -> list[QueryBundle]:
        return wait(self._aget_queries(original_query))

    async def _aget_queries(self, original_query: str) -> list[QueryBundle]:
        found = await self.aqueries(original_query)
        if self._verbose:
            print("Generated queries:", *found, sep="\n")
        return [QueryBundle(idea.text) for idea in found]

    def _run_nested_async_queries(
        self, queries: list[QueryBundle]
    ) -> dict[tuple[str, int], list[NodeWithScore]]:
        # Core's leaves an event loop open behind it.
        return wait(self._run_async_queries(queries))


def fusion_text(prompt: object) -> str:
    """Return a prompt's text, which is all that core's class keeps and then formats.

    Raises:
        ParameterError: It has no place for the query, or has other places too.
    """
    text = prompt.template if isinstance(prompt, PromptTemplate) else prompt
    if isinstance(text, str):
        require_prompt("query_gen_prompt", text, "query")
        with suppress(KeyError, IndexError, ValueError):
            text.format(query="", num_queries=1)
            return text
    raise ParameterError(
        "query_gen_prompt",
        "a text or a PromptTemplate, with {query} in it and nothing else to be filled in",
        prompt,
        "Double the braces that are meant as such.",
    )


class BreadthHyDE(HyDEQueryTransform):
    """Core's HyDE with n hypothetical documents: the search is for the mean of their embeddings.

    Core transforms queries synchronously, in ``aquery`` too; `adocuments` leaves the loop free.

    Example:
        ```python
        hyde = BreadthHyDE(llm, n=5, gamma=0.7)
        TransformQueryEngine(index.as_query_engine(llm=llm.with_gamma(0.1)), hyde)
        ```

    Args:
        llm: Writes the documents; `Settings.llm` if it is left out.
        hyde_prompt: Asks for one document, given ``{context_str}``.
        include_original: Whether to search for the query itself as well.
        **settings: Settings of `BreadthParams`.

    Raises:
        ParameterError: A setting is not allowed, or the LLM is no `BACoLLM`.
    """

    def __init__(
        self,
        llm: LLM | None = None,
        hyde_prompt: BasePromptTemplate | str | None = None,
        include_original: bool = True,
        **settings: Any,
    ) -> None:
        self.params = BreadthParams(**settings)
        require_baco(llm)
        prompt = require_prompt("hyde_prompt", hyde_prompt or DEFAULT_HYDE_PROMPT, "context_str")
        super().__init__(llm, prompt, include_original)

    def documents(self, query: str) -> list[Idea]:
        """Return the documents that are searched for; a fresh sample unless seeded."""
        return wait(self.adocuments(query))

    async def adocuments(self, query: str) -> list[Idea]:
        """Return the documents that are searched for; a fresh sample unless seeded."""
        llm = require_baco(self._llm)
        messages = llm._get_messages(self._hyde_prompt, context_str=query)
        return await ideas(drawing(llm, messages, str.strip), self.params)

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> QueryBundle:
        texts = [idea.text for idea in self.documents(query_bundle.query_str)]
        if self._include_original or not texts:
            texts += query_bundle.embedding_strs
        return QueryBundle(query_bundle.query_str, custom_embedding_strs=texts)
