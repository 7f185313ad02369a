"""An agent with a brainstorming tool: the agent is careful, its tool has breadth.

The tiny pair knows nothing of tools, so a middleware makes it call the tool once and then answer.
Larger pairs decide by themselves and do without it.
"""

from typing import Literal

from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain_core.messages import ToolMessage

from baco_integrations.langchain import ChatBACo

llm = ChatBACo(pair="tiny", temperature=0.5, max_tokens=60, gamma=0.0)


def same_thing(one: str, other: str) -> float:
    """Compare what is suggested, in whatever words: the last one tells."""
    return float(one.split()[-1] == other.split()[-1])


ideas = llm.brainstorm(n=5, ladder=(0.2, 0.5, 0.8), similarity=same_thing)


def brainstorm(topic: Literal["a gift", "a hobby", "a place to visit"]) -> str:
    """Find distinct ideas for a topic."""
    return "\n".join(idea.text for idea in ideas.invoke(f"Suggest {topic}.", stop=["."]))


@wrap_model_call
def call_once(request, handler):
    """Force the tool for the first turn, offer none after its result."""
    if isinstance(request.messages[-1], ToolMessage):
        return handler(request.override(tools=[], tool_choice=None))
    return handler(request.override(tool_choice="brainstorm"))


agent = create_agent(llm, [brainstorm], middleware=[call_once])
question = {"messages": [("user", "Suggest a gift.")]}
for update in agent.stream(question, stream_mode="updates"):
    for node, change in update.items():
        for message in change["messages"]:
            for call in getattr(message, "tool_calls", []):
                print(f"{node} calls {call['name']}({call['args']})")
            if message.text:
                print(f"{node} says:", *message.text.splitlines(), sep="\n  ")
