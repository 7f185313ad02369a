# %% [markdown]
# # Synthetic data with a diversity report
#
# Data written by an aligned model repeat themselves; hotter sampling makes them odd before it
# makes them varied. Here the same requests are answered ten times each in four ways, and a report
# says what each data set has in it: not just how different the texts look, but how many *different
# and valid* things they name.

# %%
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from IPython.display import display

from baco_integrations.evaluation import TinyOracle, tiny_prompts
from baco_integrations.evaluation.metrics import distinct, self_bleu_diversity
from baco_integrations.langchain import ChatBACo

# %% [markdown]
# `PAIR` takes any pair. With one of your own, put requests of your own into `requests`, and a
# judge of your own into `judge`: a reward model, a chat model or a rule that tells valid answers,
# and an embedding or a rule that tells which are the same. The tiny world is a miniature that has
# an exact judge.

# %%
PAIR = {"pair": "tiny", "dtype": "float64"}  # so that last bits turn no word
# PAIR = {"pair": "qwen2.5-7b", "dtype": "bfloat16"}  # on a GPU

# %%
N = 10
llm = ChatBACo(**PAIR, max_tokens=60, seed=1)
requests = [each for each in tiny_prompts() if each.kind.endswith("plain") and not each.before][:10]
oracle = TinyOracle()


def judge(request, text):
    """Return which thing a valid answer names, None where it is not valid."""
    return oracle.judge(request.id, text).content


print(*(request.text for request in requests), sep="\n")

# %% [markdown]
# ## Four data sets of 100 rows

# %%
SETTINGS = {
    "aligned": {"router": "aligned", "temperature": 1.0},
    "aligned, hot": {"router": "aligned", "temperature": 1.5},
    "base": {"router": "base", "temperature": 0.5},
    "BACo": {"gamma": 0.6, "temperature": 0.5},
}


def data_set(settings):
    """Return N rows for each request; all are decoded as one batch."""
    asked = [request for request in requests for _ in range(N)]
    answers = llm.bind(**settings).batch([request.text for request in asked])
    rows = []
    for request, answer in zip(asked, answers, strict=True):
        how = {name: answer.response_metadata[name] for name in ("router", "gamma", "seed")}
        thing = judge(request, answer.text)
        rows.append({"request": request.text, "answer": answer.text, "thing": thing, **how})
    return rows


sets = {name: data_set(settings) for name, settings in SETTINGS.items()}
examples = {name: [row["answer"] for row in rows[N : N + 3]] for name, rows in sets.items()}
for name, answers in examples.items():
    print(name, *answers, sep="\n   ")

# %% [markdown]
# ## The report
#
# *distinct-2* is the share of different pairs of words, *1 - self-BLEU* how little the texts
# resemble one another. Both reward noise. The right half asks the judge.


# %%
def report(rows):
    """Return what a data set has in it."""
    texts = [row["answer"] for row in rows]
    things = [(row["request"], row["thing"]) for row in rows if row["thing"]]
    return {
        "distinct-2": f"{distinct(texts, 2):.2f}",
        "1 - self-BLEU": f"{self_bleu_diversity(texts):.2f}",
        "different texts": len({(row["request"], row["answer"]) for row in rows}),
        "valid": len(things),
        "valid and different": len(set(things)),
    }


display(pd.DataFrame({name: report(rows) for name, rows in sets.items()}).T)

# %% [markdown]
# ## Keep the best of it
#
# One row for each valid thing, with what it takes to decode it again.

# %%
kept = {(row["request"], row["thing"]): row for row in sets["BACo"] if row["thing"]}
with TemporaryDirectory() as folder:
    file = Path(folder, "data.jsonl")
    file.write_text("".join(f"{json.dumps(row)}\n" for row in kept.values()), "utf-8")
    lines = file.read_text("utf-8").splitlines()
print(f"{len(lines)} rows, such as", *lines[:2], sep="\n")
