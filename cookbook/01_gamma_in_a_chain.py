# %% [markdown]
# # Gamma in a chain
#
# An aligned model that is asked for a gift ten times names one gift ten times. `ChatBACo` decodes
# with its base model too. How much base may say is **gamma**: from 0, the aligned model alone, to
# 1.
#
# `PAIR` says which models. The tiny pair comes with the package and knows only requests for ideas;
# everything below works the same with a pair of your own.

# %%
from itertools import groupby

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField

from baco_integrations.langchain import ChatBACo

# %%
PAIR = {"pair": "tiny", "dtype": "float64"}  # so that last bits turn no word
# PAIR = {"pair": "qwen2.5-7b", "dtype": "bfloat16"}  # on a GPU
# PAIR = {"model": "org/any-instruct"}  # one model as both sides

# %%
llm = ChatBACo(**PAIR, temperature=0.5, max_tokens=60, seed=3)
prompt = ChatPromptTemplate.from_template("Suggest {thing}.")
gift = {"thing": "a gift for a friend"}

# %% [markdown]
# ## One chain, two gammas
#
# `bind` sets gamma for one place in a program. `batch` sends all its requests to the device at
# once, and gives each a seed of its own.

# %%
for gamma in (0.0, 0.6):
    chain = prompt | llm.bind(gamma=gamma) | StrOutputParser()
    print(f"gamma {gamma}")
    for answer in chain.batch([gift] * 5):
        print("  ", answer)

# %% [markdown]
# ## Who said what
#
# With `logprobs=True` an answer's metadata tells of every token which model gave it. Base's words
# are in brackets: it chooses *what*, where many things would do; the aligned model says the rest.

# %%
answers = (prompt | llm.bind(gamma=0.6, logprobs=True)).batch([gift] * 3)
for answer in answers:
    tokens = answer.response_metadata["logprobs"]
    for source, run in groupby(tokens, key=lambda token: token["source"]):
        text = "".join(token["text"] for token in run)
        print(f"[{text}]" if source == "base" else text, end="")
    print(f"   ({answer.response_metadata['base_share']:.0%} from base)")

# %% [markdown]
# ## A sweep in one batch
#
# `configurable_fields` makes gamma a setting of a call's config. So each row of one batch can have
# its own, whatever chain the model is part of.

# %%
GAMMAS, SAMPLES = (0.0, 0.15, 0.3, 0.6, 1.0), 10
chain = prompt | llm.configurable_fields(gamma=ConfigurableField(id="gamma"))
rows = [gamma for gamma in GAMMAS for _ in range(SAMPLES)]
answers = chain.batch(
    [{"thing": "a hobby"}] * len(rows), [{"configurable": {"gamma": gamma}} for gamma in rows]
)

print("gamma  different ideas of 10  from base")
for gamma in GAMMAS:
    own = [answer for answer, its_gamma in zip(answers, rows, strict=True) if its_gamma == gamma]
    ideas = {answer.text.partition(".")[0].split()[-1] for answer in own}
    share = sum(answer.response_metadata["base_share"] for answer in own) / SAMPLES
    print(f"{gamma:5}  {len(ideas):21}  {share:9.0%}")

# %% [markdown]
# More is not always better: at 1 slips of base come in, and fewer of the ten are ideas. The tiny
# pair is either certain or not, so it moves in steps. Larger pairs use the whole range;
# which gamma is best is found out by [evaluating your own prompts](08_choose_gamma.ipynb).
