"""Structured brainstorming: every idea is a valid object, and gamma varies what is in it.

A grammar keeps to the schema at any gamma; only the contents are shared between the two models.
"""

from typing import Literal

from pydantic import BaseModel, Field

from baco_integrations.langchain import ChatBACo, brainstorm


class Novel(BaseModel):
    title: str = Field(max_length=20)
    effort: Literal["low", "medium", "high"]


# With `include_raw` each idea also knows its share of tokens from the base model. The tiny pair
# was never trained on JSON, so it does better without the schema in its prompt.
llm = ChatBACo(pair="tiny", temperature=0.5, max_tokens=60)
novel = llm.with_structured_output(Novel, include_raw=True, show_schema=False)


def title(one: str, other: str) -> float:
    """Two novels are alike if their titles are."""
    titles = (Novel.model_validate_json(text).title.strip() for text in (one, other))
    return float(len(set(titles)) == 1)


for gamma in (0.0, 0.9):
    ideas = brainstorm(novel, n=5, gamma=gamma, similarity=title, max_samples=12, seed=1)
    found = ideas.invoke("Suggest a title for my novel.")
    print(f"gamma {gamma}: {len(found)} distinct of 5 asked for")
    for idea in found:
        print(f"  {idea.base_share:4.0%} base  {idea.value!r}")
