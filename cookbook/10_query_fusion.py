"""Query fusion from samples: each further query is a sample of its own, not a line of one list.

The corpus holds single things, such as "a wool scarf", so "Suggest a gift." finds next to nothing
by itself. The tiny pair cannot reword a query but can guess what is sought: core's own fusion asks
it for a list, which it knows at length three only; ours asks for one thing as often as wanted.

At three queries the list may well do better: its items are short, and it names nothing twice. But
there it ends, while sampling goes on for as many as are wanted. tests/benchmarks/fusion.py measures
both on more requests.
"""

from llama_index.core import VectorStoreIndex
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode

from baco_integrations.llama_index import BACoLLM, BreadthQueryFusion
from baco_integrations.llama_index.hashing import HashingEmbedding
from baco_integrations.tiny.words import KINDS

nodes = [TextNode(text=each, id_=f"{k.name}: {each}") for k in KINDS for each in k.contents]
things = VectorStoreIndex(nodes, embed_model=HashingEmbedding()).as_retriever(similarity_top_k=10)
settings = {"pair": "tiny", "gamma": 0.6, "max_tokens": 60}
QUERY = {"gift": "Suggest a gift.", "hobby": "Suggest a hobby.", "meal": "Suggest a recipe idea."}
LIST = {"gift": "gifts", "hobby": "hobbies", "meal": "recipe ideas"}


def sampled(num_queries):
    """Return our retriever; its prompt for one more query is the query itself."""
    kept = {"num_queries": num_queries, "similarity_top_k": 10, "seed": 1}
    return BreadthQueryFusion([things], BACoLLM(**settings, stop="."), "{query}", **kept)


def listed(kind):
    """Return core's retriever, which asks once for a list."""
    kept = {"num_queries": 4, "similarity_top_k": 10, "use_async": False}
    llm = BACoLLM(**settings, seed=1)
    return QueryFusionRetriever([things], llm, f"Suggest three {LIST[kind]}.", **kept)


def relevant(retriever, kind):
    """Return how many of the ten best are of the kind that is asked for."""
    return sum(node.node_id.startswith(f"{kind}: ") for node in retriever.retrieve(QUERY[kind]))


for idea in sampled(4).queries(QUERY["gift"]):
    print(f"searched for: {idea}  ({idea.base_share:.0%} base, seed {idea.seed})")
print(f"\nof the ten best, relevant:  {'  '.join(QUERY)}")
for name, make in (
    ("the query alone", lambda kind: things),
    ("3 queries more, one list", listed),
    ("3 queries more, sampled", lambda kind: sampled(4)),
    ("8 queries more, sampled", lambda kind: sampled(9)),
):
    print(f"  {name:25}", *(f"{relevant(make(kind), kind):5}" for kind in QUERY))
