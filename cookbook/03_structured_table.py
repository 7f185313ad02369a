# %% [markdown]
# # Structured brainstorming to a table
#
# Ideas for a program are objects. A grammar makes every answer one that fits the schema, at any
# gamma: what it dictates comes from neither model's taste, and the values of strings are shared by
# both models as any text is.

# %%
from typing import Literal

import pandas as pd
from IPython.display import display
from pydantic import BaseModel

from baco_integrations.langchain import ChatBACo, brainstorm

# %% [markdown]
# `PAIR` takes any pair. The tiny one comes with the package and knows only requests for ideas.

# %%
PAIR = {"pair": "tiny", "dtype": "float64"}  # so that last bits turn no word
# PAIR = {"pair": "qwen2.5-7b", "dtype": "bfloat16"}  # on a GPU


# %%
class Gift(BaseModel):
    """A gift for somebody."""

    idea: str
    reason: str
    effort: Literal["low", "medium", "high"]


# With `include_raw` each idea also knows its share of tokens from the base model.
gifts = ChatBACo(**PAIR).with_structured_output(Gift, include_raw=True)

# %% [markdown]
# Two gifts are the same if their ideas are, for whatever reason. `brainstorm` asks until it has
# eight that differ, or has asked 24 times.


# %%
def same_gift(one, other):
    """Compare the ideas of two gifts, which come as JSON."""
    ideas = {Gift.model_validate_json(text).idea for text in (one, other)}
    return float(len(ideas) == 1)


def table(gamma):
    """Return distinct gifts, one a row."""
    ideas = brainstorm(gifts, n=8, gamma=gamma, similarity=same_gift, max_samples=24, seed=1)
    rows = [
        {**idea.value.model_dump(), "from base": f"{idea.base_share:.0%}"}
        for idea in ideas.invoke("Suggest a gift for a friend.")
    ]
    return pd.DataFrame(rows)


# %% [markdown]
# The aligned model alone, asked 24 times:

# %%
display(table(gamma=0.0))

# %% [markdown]
# With its base model:

# %%
display(table(gamma=0.6))

# %% [markdown]
# The breadth is in the strings. A column of choices need not get any wider: the tiny pair, which
# is a miniature, calls nearly everything the same effort.
