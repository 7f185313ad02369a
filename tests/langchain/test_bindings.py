"""Models that are bound, configured or chosen among keep that when tools are bound to them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage
from langchain_core.runnables import ConfigurableField, RunnableBinding
from pydantic import BaseModel

from baco_integrations.langchain import ChatBACo

QUESTION = "Suggest a gift for a friend."
LLM = ChatBACo(pair="tiny", seed=1, max_tokens=40)
FIELDS = {"gamma": ConfigurableField(id="gamma")}
CHOICE = {"which": ConfigurableField(id="llm"), "default_key": "mild"}
OTHERS: dict[str, Any] = {
    "wide": ChatBACo(pair="tiny", gamma=0.9, max_tokens=40),
    "later": lambda: ChatBACo(pair="tiny", gamma=0.8, max_tokens=40),
}


class Gift(BaseModel):
    idea: str


def look_up(word: str) -> str:
    """Look a word up."""
    return word


def configured(**chosen: Any) -> dict[str, Any]:
    return {"configurable": chosen}


MODELS: list[tuple[Any, dict[str, Any], float]] = [
    (LLM.bind(gamma=0.9), {}, 0.9),
    (LLM.bind(gamma=0.9).bind(max_tokens=30), {}, 0.9),
    (LLM.with_config(tags=["x"]).bind(gamma=0.9), {}, 0.9),
    (LLM.configurable_fields(**FIELDS), configured(gamma=0.2), 0.2),
    (LLM.configurable_fields(**FIELDS).bind(max_tokens=30), configured(gamma=0.2), 0.2),
    (LLM.configurable_fields(**FIELDS).with_config(configurable={"gamma": 0.4}), {}, 0.4),
    (LLM.configurable_alternatives(**CHOICE, **OTHERS), {}, 0.6),
    (LLM.configurable_alternatives(**CHOICE, **OTHERS), configured(llm="wide"), 0.9),
    (LLM.configurable_alternatives(**CHOICE, **OTHERS), configured(llm="later"), 0.8),
    (
        LLM.configurable_alternatives(**CHOICE, **OTHERS).bind(gamma=0.3),
        configured(llm="wide"),
        0.3,
    ),
    (
        LLM.configurable_fields(**FIELDS).configurable_alternatives(**CHOICE, **OTHERS),
        configured(gamma=0.2),
        0.2,
    ),
    (
        LLM.configurable_alternatives(**CHOICE, **OTHERS).configurable_fields(**FIELDS),
        configured(llm="wide", gamma=0.2),
        0.9,
    ),
]


@pytest.mark.parametrize(("llm", "config", "gamma"), MODELS)
def test_the_gamma_is_kept(llm: Any, config: dict[str, Any], gamma: float) -> None:
    def told(message: AIMessage) -> float:
        return message.response_metadata["gamma"]

    assert told(llm.invoke(QUESTION, config)) == gamma
    tools = llm.bind_tools([look_up], tool_choice="any")
    message = tools.invoke(QUESTION, config)
    assert told(message) == gamma and message.tool_calls
    assert told(tools.bind(max_tokens=50).invoke(QUESTION, config)) == gamma
    for method in ("json_schema", "function_calling"):
        objects = llm.with_structured_output(Gift, include_raw=True, method=method)
        answer = objects.invoke(QUESTION, config)
        assert told(answer["raw"]) == gamma and isinstance(answer["parsed"], Gift)


@pytest.mark.parametrize("tools", [[], [look_up]], ids=["plain", "tools"])
def test_agents_keep_what_is_bound(tools: list[Any]) -> None:
    agent = create_agent(LLM.bind(gamma=0.9), tools)
    told = agent.invoke({"messages": [("user", QUESTION)]})["messages"][1]
    assert told.response_metadata["gamma"] == 0.9


def test_tags_and_tools_both_stay() -> None:
    llm: Any = LLM.with_config(tags=["x"]).bind_tools([look_up])
    assert llm.config["tags"] == ["x"] and llm.kwargs["tools"]


def test_ideas_of_a_bound_model() -> None:
    ideas = LLM.bind(gamma=0.9, temperature=1).brainstorm(n=2).invoke(QUESTION)
    assert [idea.gamma for idea in ideas] == [0.9, 0.9]
    chosen = LLM.configurable_alternatives(**CHOICE, **OTHERS).brainstorm(n=2)
    assert chosen.invoke(QUESTION, configured(llm="wide"))[0].gamma == 0.9


def test_serialized_as_cores_own() -> None:
    assert dumpd(LLM.bind(gamma=0.9))["id"] == dumpd(RunnableBinding(bound=LLM))["id"]
