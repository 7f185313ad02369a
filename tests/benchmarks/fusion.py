"""Recall of fused queries: samples of one query against core's single list, equally many.

Run from the repository's root:

    python tests/benchmarks/fusion.py

The corpus has a document for each content of the tiny world ("a wool scarf"), less the words that
requests for its kind use; relevant to a request are all documents of its kind. So a request ("I
could use a gift.") finds next to nothing by itself, and what the models add decides.

The tiny pair knows its own world only and cannot reword a query, so both sides are asked for what
might be found, in one and the same wording of a request that is not in the training data:

- list: `QueryFusionRetriever` asks "I could use three gifts." once and takes each line of the
  answer ("1. a wool scarf") as a query. Three is the only length of list the pair knows, so with
  more than four --queries the samples alone grow and the numbers are no longer equal.
- samples: `BreadthQueryFusion` asks "I could use a gift." for each query, and takes the answer up
  to its first full stop ("I would pick a wool scarf"). Queries are distinct if their words are, or,
  for *samples by finds*, if of the three documents that each finds at most one is the same.

Recall@k is the share of relevant documents among the best k, out of k or of all if they are fewer.
*contents* is how many contents of the right kind the queries name; *queries* is how many differ,
the request aside. The list's items are short and bare, which suits the embedding; the samples come
with words around them that mean nothing. Intervals are 95 % bootstrap over requests.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.retrievers import BaseRetriever, QueryFusionRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from rich.console import Console
from rich.progress import track

from baco_integrations.llama_index import BACoLLM, BreadthQueryFusion
from baco_integrations.llama_index.hashing import HashingEmbedding
from baco_integrations.tiny.words import KINDS, Kind
from cookbook.tiny_pair.words import FRAMES

WAYS = ("list", "samples", "samples by finds")
CONTENTS = {kind.name: kind.contents for kind in KINDS}
FORMS = [form for split in FRAMES.values() for form in split]


class Asked(NamedTuple):
    """A request for one thing of a kind, and the same for a list."""

    kind: str
    one: str
    three: str


def requests() -> list[Asked]:
    """Each kind that lists are made of, in each wording."""
    return [
        Asked(
            kind.name,
            frame.format(a=kind.asks[place % len(kind.asks)]),
            frame.format(a=f"three {kind.plurals[place % len(kind.plurals)]}"),
        )
        for kind in KINDS
        if kind.plurals
        for place, frame in enumerate(FRAMES["eval"])
    ]


def document(kind: Kind, content: str) -> str:
    """Return a content without the words that requests use."""
    used = set(re.findall(r"\w+", " ".join((*kind.asks, *kind.plurals, *FORMS)).casefold()))
    return " ".join(word for word in content.split() if word.casefold() not in used)


def corpus() -> list[TextNode]:
    """Return a document for each content that has a word of its own."""
    texts = {(kind.name, each): document(kind, each) for kind in KINDS for each in kind.contents}
    return [
        TextNode(text=text, id_=f"{kind}: {content}")
        for (kind, content), text in texts.items()
        if text
    ]


class Watched(BaseRetriever):
    """Keeps the queries that come by."""

    def __init__(self, retriever: BaseRetriever) -> None:
        self.retriever = retriever
        self.queries: list[str] = []
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.queries.append(query_bundle.query_str)
        return self.retriever.retrieve(query_bundle)


def same_finds(retriever: BaseRetriever) -> Callable[[str, str], float]:
    """Return the share of what one query finds that another finds as well."""

    @cache
    def found(query: str) -> frozenset[str]:
        return frozenset(node.node_id for node in retriever.retrieve(query)[:3])

    return lambda one, other: len(found(one) & found(other)) / len(found(one))


def fused(way: str, gamma: float, asked: Asked, seed: int, **settings: Any) -> BaseRetriever:
    """Return one of the rivals."""
    llm = BACoLLM(pair="tiny", gamma=gamma, max_tokens=60)
    if way == "list":
        seeded = llm.model_copy(update={"seed": seed})
        return QueryFusionRetriever(llm=seeded, query_gen_prompt=asked.three, **settings)
    if way == "samples by finds":
        [watched] = settings["retrievers"]
        settings |= {"similarity": same_finds(watched.retriever), "threshold": 0.5}
    short = llm.model_copy(update={"stop": "."})
    return BreadthQueryFusion(llm=short, query_gen_prompt="{query}", seed=seed, **settings)


async def scores(
    way: str, gamma: float, asked: Asked, base: BaseRetriever, relevant: int, chosen: Any, seed: int
) -> tuple[float, float, float]:
    """Recall, contents named, and different queries."""
    watched = Watched(base)
    settings = {"similarity_top_k": chosen.k, "num_queries": chosen.queries, "mode": chosen.mode}
    retriever: BaseRetriever = watched
    if way != "request alone":
        retriever = fused(way, gamma, asked, seed, retrievers=[watched], **settings)
    nodes = await retriever.aretrieve(asked.one)
    hits = sum(node.node_id.startswith(f"{asked.kind}:") for node in nodes[: chosen.k])
    queries = {query for query in watched.queries if query != asked.one}
    named = {each for each in CONTENTS[asked.kind] for query in queries if each in query}
    return hits / min(chosen.k, relevant), len(named), len(queries)


def interval(values: np.ndarray[Any, Any]) -> str:
    """Mean and 95 % bootstrap interval over requests."""
    draws = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gammas", type=float, nargs="+", default=[0.0, 0.6, 0.9])
    parser.add_argument("--queries", type=int, default=4, help="the request and so many less one")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--mode", default="simple", help="core's fusion mode")
    parser.add_argument("--repeats", type=int, default=3, help="seeds for each request")
    parser.add_argument("--requests", type=int, default=0, help="first so many only; 0: all")
    chosen = parser.parse_args()
    started, console = time.perf_counter(), Console(width=110)
    nodes, asked = corpus(), requests()[: chosen.requests or None]
    index = VectorStoreIndex(nodes, embed_model=HashingEmbedding())
    base = index.as_retriever(similarity_top_k=chosen.k)
    relevant = {name: sum(n.node_id.startswith(f"{name}:") for n in nodes) for name in CONTENTS}
    rivals = [("request alone", 0.0)]
    rivals += [(way, gamma) for gamma in chosen.gammas for way in WAYS]
    console.print("| queries | gamma | recall@k | contents | different queries |")
    console.print("|---|---|---|---|---|")
    for way, gamma in track(rivals, "Decoding", console=Console(stderr=True)):

        async def all_scores(way: str = way, gamma: float = gamma) -> Any:
            # 1000 apart, no two requests share a sample's noise.
            return await asyncio.gather(
                *(
                    scores(way, gamma, each, base, relevant[each.kind], chosen, 1000 * place)
                    for place, each in enumerate(asked * chosen.repeats)
                )
            )

        table = np.array(asyncio.run(all_scores())).reshape(chosen.repeats, len(asked), 3).mean(0)
        cells = [interval(column) for column in table.T]
        shown = "" if way == "request alone" else f"{gamma:.2g}"
        console.print(f"| {way} | {shown} | {' | '.join(cells)} |", soft_wrap=True, markup=False)
    seconds = time.perf_counter() - started
    console.print(
        f"\n{len(asked)} requests x {chosen.repeats} seeds, {len(nodes)} documents, "
        f"k = {chosen.k}, {chosen.queries - 1} further queries, {chosen.mode}, {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
