"""Any chat model against a pair: the same prompts, the same judge, one comparison.

A run asks whatever answers: a model of LangChain or LlamaIndex, or a function that returns one for
a temperature. Each model's run is called a method, and the methods are compared.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from langchain_core.language_models.fake_chat_models import FakeListChatModel

from baco_integrations.evaluation import (
    Settings,
    Sweep,
    collect,
    compare,
    find_scorer,
    read_records,
    tiny_prompts,
)
from baco_integrations.langchain import ChatBACo

phrases = ["I would suggest Lisbon.", "I would suggest Bergen.", "Well"]
models = {
    "another model": lambda temperature: FakeListChatModel(responses=phrases),
    "aligned": lambda temperature: ChatBACo(
        pair="tiny", router="aligned", temperature=temperature, max_tokens=60
    ),
    "BACo": lambda temperature: ChatBACo(
        pair="tiny", gamma=0.6, temperature=temperature, max_tokens=60
    ),
}
prompts, records = tiny_prompts()[:3], []
with TemporaryDirectory() as folder:
    for name, make in models.items():
        out = Path(folder) / name
        collect(make, prompts, out, methods=["plain"], sweep=Sweep(2), seeds=[0], n=4, name=name)
        records += [{**record, "method": name} for record in read_records(out)]

scores = find_scorer(prompts).measure(records)
result = compare(scores, Settings(base="BACo", resamples=200))  # BACo sets the top of diversity
for method in result["methods"]:
    value, low, high = method["coverage"]["overall"]
    print(f"{method['name']:14} Coverage {value:.2f} [{low:.2f}, {high:.2f}]")
for sentence in result["findings"]:
    print("-", sentence)
