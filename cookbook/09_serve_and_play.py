# %% [markdown]
# # Serve and play
#
# One process holds the models; notebooks, agents and browsers ask it. `baco serve` speaks OpenAI's
# API, with gamma and every other setting in the body, and has a playground for people.

# %%
import re
import subprocess
import sys

import httpx

from baco_integrations.langchain import ChatBACo

# %% [markdown]
# `PAIR` is what is served: on a GPU, for example, `["--pair", "qwen2.5-7b", "--dtype",
# "bfloat16"]`.

# %%
PAIR = ["--pair", "tiny"]

# %% [markdown]
# ## Serve
#
# In a terminal that is `baco serve --pair tiny`, and Ctrl-C ends it. Here it runs beside the
# notebook, at a free port, and the address is read from what it prints.

# %%
start = [sys.executable, "-c", "from baco_integrations.cli import app; app()"]
server = subprocess.Popen(
    [*start, "serve", *PAIR, "--port", "0"], stderr=subprocess.PIPE, text=True
)
said = next(line for line in server.stderr if "playground" in line)
address = re.search(r"http://[\d.:]+", said)[0]
print("serves", *(model["id"] for model in httpx.get(f"{address}/v1/models").json()["data"]))

# %% [markdown]
# ## Ask
#
# Anything that speaks HTTP will do. A client that can send no setting of its own puts it into the
# model's name.

# %%
question = [{"role": "user", "content": "Name a place to visit."}]
for model in ("tiny@gamma=0", "tiny@gamma=0.6"):
    body = {"model": model, "messages": question, "n": 4, "seed": 1, "temperature": 0.5}
    answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60).json()
    print(model)
    for choice in answer["choices"]:
        print(f"   {choice['baco']['base_share']:4.0%} base  {choice['message']['content']}")

# %% [markdown]
# With `base_url`, `ChatBACo` and both `BACoLLM`s work as if the models were here; this process
# loads none. So notebooks 1 to 7 run against a server once their `PAIR` is `{"base_url": ...}`.

# %%
llm = ChatBACo(base_url=f"{address}/v1", pair="tiny", temperature=0.5)
for idea in llm.brainstorm(n=4, gamma=0.6, seed=1).invoke("Suggest a gift for a friend."):
    print(f"gamma {idea.gamma}, {idea.base_share:.0%} base: {idea}")

# %% [markdown]
# ## Play
#
# The address itself, in a browser, is the playground: one prompt answered by base, by aligned and
# by both. A click on a token goes on from there; a sweep counts what is distinct at each gamma.
#
# ![The playground](playground.png)

# %%
page = httpx.get(address).text
print(re.search("<title>(.*?)</title>", page)[1])

# %% [markdown]
# Clients, evaluation harnesses, keys and how to run it as a service are in [serve.md](serve.md),
# more than one GPU in [cluster.md](cluster.md), vLLM in [vllm.md](vllm.md).

# %%
server.terminate()
print("ended with", server.wait(60))
