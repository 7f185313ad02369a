"""A gamma sweep through a chain: each input of one `batch` has a gamma of its own.

`configurable_fields` makes gamma a setting of the call's config, so all rows of the sweep meet in
one batch on the device, whatever chain the model is part of.
"""

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField

from baco_integrations.langchain import ChatBACo

GAMMAS = (0.0, 0.15, 0.2, 0.4, 1.0)
SAMPLES = 8

llm = ChatBACo(pair="tiny", temperature=0.5, max_tokens=40)
dial = llm.configurable_fields(gamma=ConfigurableField(id="gamma"))
chain = ChatPromptTemplate.from_template("Suggest {thing}.") | dial

rows = [gamma for gamma in GAMMAS for _ in range(SAMPLES)]
answers = chain.batch(
    [{"thing": "a hobby"}] * len(rows),
    [{"configurable": {"gamma": gamma}} for gamma in rows],
)

for gamma in GAMMAS:
    own = [answer for answer, its_gamma in zip(answers, rows, strict=True) if its_gamma == gamma]
    first = {answer.text.partition(".")[0] for answer in own}
    share = sum(answer.response_metadata["base_share"] for answer in own) / SAMPLES
    print(f"gamma {gamma}: {len(first)} different ideas of {SAMPLES}, {share:.0%} from base")
    print("  ", "; ".join(sorted(first)[:3]))
