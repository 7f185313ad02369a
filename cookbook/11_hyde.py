"""HyDE with several hypothetical documents: what is searched for is the mean of their embeddings.

A single guess is often off; the mean of several keeps what they have in common. The notes describe
things without naming them, so the request alone finds the wrong ones. What the tiny pair writes is
a made-up answer of a sentence or two, in the few phrases it knows, and the notes use those phrases;
that is as far as it goes.
"""

from concurrent.futures import ThreadPoolExecutor

from llama_index.core import PromptTemplate, VectorStoreIndex
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.schema import TextNode

from baco_integrations.llama_index import BACoLLM, BreadthHyDE
from baco_integrations.llama_index.hashing import HashingEmbedding
from baco_integrations.tiny.words import KINDS

# One note for each kind of thing; none has a word of the requests.
nodes = [
    TextNode(text=" ".join((*kind.facts, *kind.looks, *kind.merits)), id_=kind.name)
    for kind in KINDS
]
index = VectorStoreIndex(nodes, embed_model=HashingEmbedding())
llm = BACoLLM(pair="tiny", max_tokens=60)
prompt = PromptTemplate("Suggest {context_str}.")
requests = {kind.name: kind.asks[0] for kind in KINDS}


def found(transform):
    """Return how many requests find the note on their kind first."""
    with ThreadPoolExecutor() as threads:  # their samples meet in one batch
        queries = list(threads.map(transform, requests.values()))
    retriever = index.as_retriever(similarity_top_k=1)
    first = [retriever.retrieve(query)[0].node_id for query in queries]
    return sum(map(str.__eq__, first, requests))


hyde = BreadthHyDE(llm, prompt, n=5, gamma=0.6, seed=1)
print("searched for", requests["hobby"], "and:")
for idea in hyde.documents(requests["hobby"]):
    print(f"  {idea.base_share:4.0%} base  {idea}")

print(f"\nright note first, of {len(requests)} requests:")
print("  the request alone       ", found(str))
for n in (1, 5):
    kept = {"n": n, "max_samples": 10, "seed": 1, "include_original": False}
    for gamma in (0.0, 0.6):
        documents = BreadthHyDE(llm, prompt, gamma=gamma, **kept)
        print(f"  {n} document(s), gamma {gamma}", found(documents.run))

engine = TransformQueryEngine(
    RetrieverQueryEngine.from_args(index.as_retriever(similarity_top_k=1), llm=llm), hyde
)
print("\nin an engine, the source is:", engine.query(requests["hobby"]).source_nodes[0].node_id)
