"""A data set of questions over passages: distinct, each with its passage and its provenance.

The tiny pair has never seen a question about a text: it can only suggest things. So here a passage
says what it is about in its first words, the prompt asks for a suggestion, and what comes stands
for the question. What is shown is the rest: samples that differ within a passage and among all of
them, one batch for all, a passage that fails, the files, and core's evaluator on the result.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from llama_index.core import PromptTemplate, VectorStoreIndex
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.schema import TextNode

from baco_integrations.llama_index import BACoLLM, BreadthQuestions
from baco_integrations.llama_index.hashing import HashingEmbedding
from baco_integrations.tiny.words import KINDS

passages = [
    TextNode(text=f"{kind.asks[0]}: {', '.join(kind.contents[:9])}", id_=kind.name)
    for kind in KINDS[:6]
]
topic = {"context_str": lambda context_str, **_: context_str.split(":")[0]}
prompt = PromptTemplate("Suggest {context_str}.", function_mappings=topic)
llm = BACoLLM(pair="tiny", max_tokens=60, stop=".")

asking = BreadthQuestions(llm, prompt, n=3, ladder=(0.2, 0.5, 0.8), seed=1)
dataset = asking.generate([*passages, TextNode(text="", id_="an empty page")])
for question in dataset.questions[:6]:
    about = f"gamma {question.gamma}, {question.base_share:.0%} base, seed {question.seed}"
    print(f"{question.node_id:6} {question.text}  ({about})")
print(f"... {len(dataset.questions)} in all, {llm.decoder.metrics.largest_batch} rows in one batch")
print("failed:", {name: str(error) for name, error in dataset.failed.items()})

with TemporaryDirectory() as folder:
    lines, whole = Path(folder, "questions.jsonl"), Path(folder, "questions.json")
    dataset.save_jsonl(lines)
    dataset.save_json(whole)  # for EmbeddingQAFinetuneDataset.from_json
    print("a line: ", lines.read_text().splitlines()[0][:96], "...")
    print("a file of", ", ".join(json.loads(whole.read_text())))

index = VectorStoreIndex(passages, embed_model=HashingEmbedding())
evaluator = RetrieverEvaluator.from_metric_names(
    ["hit_rate", "mrr"], retriever=index.as_retriever(similarity_top_k=2)
)
results = [evaluator.evaluate(each.text, [each.node_id]) for each in dataset.questions]
for metric in ("hit_rate", "mrr"):
    mean = sum(result.metric_vals_dict[metric] for result in results) / len(results)
    print(f"{metric} of the retriever: {mean:.2f}")
