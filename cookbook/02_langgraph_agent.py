# %% [markdown]
# # A brainstorming agent in LangGraph
#
# An agent does two kinds of things. It calls tools and reports what they said: that wants no
# variety. It has ideas: that does. So each node gets a gamma of its own, and all nodes share one
# pair of models.

# %%
from itertools import groupby
from operator import add
from typing import Annotated, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from baco_integrations.langchain import ChatBACo

# %%
PAIR = {"pair": "tiny", "dtype": "float64"}  # so that last bits turn no word
# PAIR = {"pair": "qwen2.5-7b", "dtype": "bfloat16"}  # on a GPU

# %%
llm = ChatBACo(**PAIR, temperature=0.5, max_tokens=60)

# %% [markdown]
# ## Gamma per node
#
# `think` runs once per gamma, side by side; its requests meet in one batch on the device. `answer`
# is the aligned model alone. It is shown the ideas as its own earlier answers, and asked for
# another one.


# %%
class State(TypedDict):
    request: str
    ideas: Annotated[list[str], add]
    answer: str


def branch(state):
    """Start one `think` for each gamma."""
    gammas = (0.3, 0.6, 0.9)
    return [Send("think", {**state, "gamma": g, "seed": i}) for i, g in enumerate(gammas)]


def think(state):
    """Have one idea."""
    idea = llm.invoke(state["request"], gamma=state["gamma"], seed=state["seed"])
    return {"ideas": [idea.text]}


def answer(state):
    """Say one more thing than the ideas do."""
    chat = [("user", state["request"])]
    for idea in state["ideas"]:
        chat += [("ai", idea), ("user", "Another one, please.")]
    return {"answer": llm.invoke(chat, gamma=0.0, seed=1).text}


graph = StateGraph(State)
graph.add_node("think", think)
graph.add_node("answer", answer)
graph.add_conditional_edges(START, branch, ["think"])
graph.add_edge("think", "answer")
graph.add_edge("answer", END)
app = graph.compile()

state = app.invoke({"request": "Suggest a hobby."})
print(*(f"idea:   {idea}" for idea in state["ideas"]), sep="\n")
print("answer:", state["answer"])

# %% [markdown]
# ## Streaming of who said what
#
# `stream_mode="messages"` passes on every token as it is decoded, from whichever node, and
# `logprobs=True` says which model gave it. Base's words are in brackets.

# %%
llm = ChatBACo(**PAIR, temperature=0.5, max_tokens=60, logprobs=True)
tokens = {}
for chunk, about in app.stream({"request": "Suggest a hobby."}, stream_mode="messages"):
    said = tokens.setdefault((about["langgraph_node"], chunk.id), [])
    said += chunk.response_metadata.get("logprobs", ())


def marked(tokens):
    """Return a text with base's part of it in brackets."""
    runs = groupby(tokens, key=lambda token: token["source"])
    texts = [(source, "".join(token["text"] for token in run)) for source, run in runs]
    return "".join(f"[{text}]" if source == "base" else text for source, text in texts)


lines = [f"{node}: {marked(said)}" for (node, _), said in tokens.items()]
print(*sorted(lines, reverse=True), sep="\n")

# %% [markdown]
# ## Gamma by middleware
#
# `create_agent` has one model for the whole loop, and a middleware can change its gamma from call
# to call. The tool here knows which courses there are, and the answer is to name one of those.

# %%
COURSES = ["archery", "sailing"]


def find_courses(request: str) -> str:
    """Suggests ideas for a request."""
    return "\n".join(COURSES)


def ask(seed, middleware=()):
    """Return an agent's call of the tool and its answer."""
    model = ChatBACo(**PAIR, gamma=0.6, temperature=0.5, seed=seed)
    agent = create_agent(model, [find_courses], middleware=middleware)
    _, call, _, answer = agent.invoke({"messages": [("user", "Suggest a hobby.")]})["messages"]
    return call.tool_calls[0]["args"], answer.text


for seed in range(4):
    print(*ask(seed))

# %% [markdown]
# Whether to call the tool is the aligned model's to say at any gamma. But the last word is to
# report what the tool found, so a middleware leaves that to the aligned model too.


# %%
@wrap_model_call
def faithful(request, handler):
    """Answer at gamma 0 once a tool has spoken."""
    if request.messages[-1].type == "tool":
        request = request.override(model_settings={"gamma": 0.0})
    return handler(request)


for name, middleware in (("gamma 0.6 throughout", []), ("with the middleware", [faithful])):
    answers = [ask(seed, middleware)[1] for seed in range(8)]
    kept = sum(any(course in answer for course in COURSES) for answer in answers)
    print(f"{name}: {kept} of 8 answers name a course that there is, such as: {answers[0]}")

# %% [markdown]
# That is the tiny pair, a miniature whose base model has hardly learnt to repeat what it reads. A
# large base model does better, and the rule stays: ideas want gamma, reports do not.
