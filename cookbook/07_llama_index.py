# %% [markdown]
# # LlamaIndex: agents and query engines
#
# LlamaIndex's parts give no way to pass a gamma with a call, so each part gets a model of its own:
# `with_gamma` makes one in no time, since all of them share the loaded pair.

# %%
import asyncio

from llama_index.core import ChatPromptTemplate, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.schema import TextNode

from baco_integrations.llama_index import BACoLLM, BreadthQueryEngine
from baco_integrations.llama_index.hashing import HashingEmbedding

# %% [markdown]
# `PAIR` takes any pair. The tiny one comes with the package and knows only requests for ideas.

# %%
PAIR = {"pair": "tiny", "dtype": "float64"}  # so that last bits turn no word
# PAIR = {"pair": "qwen2.5-7b", "dtype": "bfloat16"}  # on a GPU

# %%
careful = BACoLLM(**PAIR, gamma=0.0, temperature=0.5, max_tokens=60, seed=4)
wide = careful.with_gamma(0.6)

# %% [markdown]
# ## An agent with a tool that has ideas
#
# The agent is careful: it is to call the tool and to report what came back. The ideas come from
# the tool, whose three requests meet in one batch.


# %%
async def brainstorm(request: str) -> str:
    """Suggests ideas for a request."""
    answers = await asyncio.gather(*(wide.acomplete(request, seed=seed) for seed in range(3)))
    return "\n".join(answer.text for answer in answers)


async def ask(llm, request):
    """Print what an agent does."""
    run = FunctionAgent(tools=[brainstorm], llm=llm).run(request)
    async for event in run.stream_events():
        if isinstance(event, ToolCallResult):
            print(f"calls {event.tool_name}({event.tool_kwargs}), which returns")
            print(*(f"   {line}" for line in event.tool_output.content.splitlines()), sep="\n")
    print("says", await run)


await ask(careful, "Suggest a hobby.")

# %% [markdown]
# An agent that is itself at gamma 0.6 still calls the tool, as that is the aligned model's to say.
# But what it then says is its own, whatever came back
# ([counted here](02_langgraph_agent.ipynb)):

# %%
await ask(wide, "Suggest a hobby.")

# %% [markdown]
# ## A query engine with several answers
#
# The index holds what was suggested before. The template shows what is found as an earlier answer
# and asks for another one, so the engine is to say something new. Alone it would say the same
# again:

# %%
earlier = [
    "I would pick pottery. It is calming and easy to start.",
    "I would pick a wool scarf. It is useful and easy to wrap.",
    "I would pick mushroom risotto. It is hearty and quick to make.",
]
index = VectorStoreIndex([TextNode(text=text) for text in earlier], embed_model=HashingEmbedding())
another = ChatPromptTemplate.from_messages(
    [("user", "{query_str}"), ("assistant", "{context_str}"), ("user", "Another one, please.")]
)
engine = index.as_query_engine(llm=careful, similarity_top_k=1, text_qa_template=another)

QUERY = "Suggest a hobby that is calming."
response = engine.query(QUERY)
print("without the index:", careful.complete(QUERY))
print("found:            ", response.source_nodes[0].text)
print("with it:          ", response)

# %% [markdown]
# `BreadthQueryEngine` wraps an engine: it retrieves once and answers several times, until so many
# answers differ or it has tried four times as often. It tells of each how it came about.

# %%
for gamma in (0.0, 0.6):
    breadth = BreadthQueryEngine(engine, n=4, gamma=gamma, threshold=0.6, seed=1)
    print(f"gamma {gamma}")
    for idea in breadth.answers(QUERY):
        print(f"   {idea.base_share:4.0%} base  {idea}")

# %% [markdown]
# `Settings.llm = careful` makes it the model of everything that is not told otherwise. What
# searches wider is in [the notebook on fusion and HyDE](05_fusion_and_hyde.ipynb).
