"""A LangChain chain with two gammas and one decoder: ideas with breadth, a verdict without."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from baco_integrations.langchain import ChatBACo

llm = ChatBACo(pair="tiny", temperature=0.5, max_tokens=60)
ideas = (
    ChatPromptTemplate.from_template("Suggest {thing}.") | llm.bind(gamma=0.8) | StrOutputParser()
)

# `batch` sends all requests to the device at once.
for idea in ideas.batch([{"thing": "a gift for a friend"}] * 5):
    print("-", idea)

safe = llm.invoke("Suggest a gift for a friend.", gamma=0.0, seed=1)
print("aligned alone:", safe.text)
print({key: safe.response_metadata[key] for key in ("gamma", "router", "base_share", "switches")})

print("streamed: ", end="")
for chunk in llm.stream("Tell me a short story.", gamma=0.6, max_tokens=160, seed=3):
    print(chunk.text, end="", flush=True)
print()
