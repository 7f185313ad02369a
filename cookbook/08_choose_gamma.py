# %% [markdown]
# # Evaluate your own prompts and choose gamma
#
# No one number says how much breadth is good for you: that depends on the models and on what you
# ask. `tune` asks your prompts at several gammas and temperatures. Of those that keep nine tenths
# of the aligned model's quality with confidence, it suggests the one that gives most *different
# and valid* answers.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from IPython.display import display

from baco_integrations.evaluation import (
    Grid,
    OracleSimilarity,
    TfidfSimilarity,
    load_prompts,
    tune,
)
from baco_integrations.langchain import ChatBACo
from baco_integrations.tiny.oracle import judge
from baco_integrations.tiny.requests import recognised

# %% [markdown]
# `PAIR` takes any pair. The tiny one comes with the package and knows only requests for ideas.

# %%
PAIR = {"pair": "tiny", "dtype": "float64"}  # so that last bits turn no word
# PAIR = {"pair": "qwen2.5-7b", "dtype": "bfloat16"}  # on a GPU

# %% [markdown]
# ## Your prompts
#
# A file with a prompt a line (or JSON lines, or NoveltyBench's files). Ten are the least, 30 tell
# more.

# %%
PROMPTS = """\
My aunt turns sixty. Suggest a gift for a friend of hers.
We have a weekend in May: name a place to visit.
It rains. Suggest a hobby.
I have one pot. What is a meal for tonight?
She barks at everything. Suggest a name for my dog.
I finished chapter one and need a title for my novel.
Nobody has planned anything. I want a plan for Sunday.
It gets no sun. Suggest a plant for my desk.
Tell my class a fact about an animal.
The room is small. Which would be a color for my wall?
My son is seven. Suggest an instrument to learn.
I cannot sleep. Suggest a warm drink.
"""
with TemporaryDirectory() as folder:
    file = Path(folder, "prompts.txt")
    file.write_text(PROMPTS, "utf-8")
    prompts = load_prompts(file)
print(f"{len(prompts)} prompts, such as", *(prompt.text for prompt in prompts[:3]), sep="\n")

# %% [markdown]
# ## Your judge
#
# Breadth alone says nothing, as noise is broad too. So something has to tell a good answer from a
# bad one:
#
# - `quality`: a chat model of LangChain that rates answers, a reward model (`SequenceClassifier`),
#   or a function of a question and its answers that returns a number from 0 to 1 for each;
# - `similarity`: which answers are the same: an embedding model, or a function that names what an
#   answer is about.
#
# The tiny world has exact rules for both. With a pair of your own, put yours here.


# %%
def verdict(question, answer):
    """Judge an answer by the tiny world's rules."""
    return judge(recognised([{"role": "user", "content": question.prompt}]), answer)


def quality(question, answers):
    """Return 1 for each valid answer, else 0."""
    return [float(verdict(question, answer).valid) for answer in answers]


def named(question, answer):
    """Return what a valid answer names."""
    return verdict(question, answer).content


similarity = OracleSimilarity(named, TfidfSimilarity())

# %% [markdown]
# ## The sweep
#
# Each prompt is asked eight times at each setting, and of the aligned model alone. Whether a
# setting *keeps quality* is decided prompt by prompt, so the column *valid* alone does not tell.

# %%
found = tune(
    ChatBACo(**PAIR).decoder.pair,
    prompts,
    routers=("p-punc",),
    grid=Grid((0.15, 0.3, 0.6, 1.0), (0.4, 0.7, 1.0)),
    n=8,
    max_tokens=60,
    quality=quality,
    similarity=similarity,
)


def row(candidate):
    """Return a setting and what it gives, with 95 % intervals over prompts."""
    quality, ideas = candidate.quality, candidate.valid_distinct
    return {
        "router": candidate.router,
        "gamma": "" if candidate.gamma is None else candidate.gamma,
        "T": candidate.temperature,
        "valid": f"{quality.value:.2f} [{quality.low:.2f}, {quality.high:.2f}]",
        f"different, valid of {found.k}": f"{ideas.value:.1f} [{ideas.low:.1f}, {ideas.high:.1f}]",
        "keeps quality": "yes" if candidate.safe else "not shown",
    }


display(pd.DataFrame(map(row, found.candidates)).set_index("router"))

# %% [markdown]
# ## What to use

# %%
print("Use", found.best.settings)
for doubt in found.doubts:
    print("But:", doubt)

# %%
llm = ChatBACo(**PAIR, **found.best.settings, max_tokens=60, seed=1)
for answer in llm.batch(["It rains. Suggest a hobby."] * 4):
    print(answer.text)

# %% [markdown]
# The tiny pair is a miniature: its numbers say nothing about yours. What carries over is how to
# choose. gamma and temperature are two knobs, and the best place is often a large gamma with a
# cool sampler, since breadth comes from which model speaks; heat adds mistakes. And a dozen
# prompts cannot tell the first few settings apart.
#
# On the command line this is `baco tune prompts.txt --pair ... --quality my_judge:model`. `baco
# eval` compares whole methods in a report, with models that are no pair too.
