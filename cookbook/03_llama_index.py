"""The same pair as a LlamaIndex LLM; `with_gamma` gives each component its own breadth."""

import asyncio

from llama_index.core.llms import ChatMessage

from baco_integrations.llama_index import BACoLLM

llm = BACoLLM(pair="tiny", gamma=0.1)
creative = llm.with_gamma(0.6)  # shares the loaded models

question = [ChatMessage(role="user", content="Name a hobby for the winter.")]
print("careful: ", llm.chat(question, seed=1).message.content)


async def brainstorm() -> list[str]:
    """Ask ten times at once: the ten requests meet in one batch."""
    answers = await asyncio.gather(*(creative.achat(question) for _ in range(10)))
    return [answer.message.content or "" for answer in answers]


for idea in sorted(set(asyncio.run(brainstorm()))):
    print("creative:", idea)
