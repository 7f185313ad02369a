"""The happy path says nothing of its own, also where a user turns warnings into errors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find_ideas",
        "parameters": {"type": "object", "properties": {"request": {"type": "string"}}},
    },
}
DECODER = f"""
from baco_integrations import Decoder, ModelPair
with Decoder.shared(ModelPair.tiny()) as decoder:
    print(decoder.generate("Suggest a hobby.")[0].text)
    print("".join(step.text for step in decoder.stream("Suggest a hobby.")))
    print(decoder.generate("Suggest a gift.", tools=[{TOOL}], tool_choice="any")[0].tool_calls)
"""
ADAPTERS = f"""
from baco_integrations.langchain import ChatBACo
from baco_integrations.llama_index import BACoLLM
llm = ChatBACo(pair="tiny")
print(llm.invoke("Suggest a hobby.").text)
print("".join(chunk.text for chunk in llm.stream("Suggest a hobby.")))
print(llm.bind_tools([{TOOL}], tool_choice="any").invoke("Suggest a gift.").tool_calls)
print(BACoLLM(pair="tiny").complete("Suggest a hobby."))
"""
COMMAND = """
from baco_integrations.cli import app
app(["generate", "Suggest a hobby.", "--json"])
"""


@pytest.mark.parametrize(
    ("code", "lines"),
    [(DECODER, 3), (ADAPTERS, 4), (COMMAND, 12)],
    ids=["decoder", "adapters", "command"],
)
def test_nothing_is_said_where_warnings_are_errors(code: str, lines: int) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert len(run.stdout.splitlines()) >= lines
