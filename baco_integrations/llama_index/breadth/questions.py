"""Questions for evaluation and training data: distinct within a passage and among all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from llama_index.core.llms import LLM
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType, PromptMixin, PromptMixinType
from llama_index.core.schema import BaseNode, MetadataMode
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from ...adapters.distinct import BreadthParams, Draw, Idea, distinct, wait
from ...core.errors import ParameterError, PromptError
from .samples import drawing, first_line, require_baco, require_prompt

QUESTION_PROMPT = PromptTemplate(
    """\
{context_str}

Write one question that this passage answers and that can be understood without seeing it. Reply \
with the question only.
"""
)
"""Asks for one question; what is filled in is ``context_str``, a node's text."""

# Far more than are decoded at once, far less than a decoder lets wait.
_AT_ONCE = 1024


class Question(Idea):
    """A question, how it came about, and the node that answers it.

    Attributes:
        node_id: The node's id.
    """

    node_id: str


@dataclass(frozen=True)
class QuestionDataset:
    """Questions and the passages that they are about.

    Attributes:
        questions: The questions, node by node.
        corpus: The passages, by node id.
        failed: The first error of each node that had one, by node id.
    """

    questions: list[Question]
    corpus: dict[str, str]
    failed: dict[str, Exception]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``EmbeddingQAFinetuneDataset(**...)`` takes.

        That class of `llama-index-finetuning` has ``queries``, ``corpus``, ``relevant_docs`` and
        ``mode``; the first three are dicts by id.
        """
        ids = {f"{each.node_id}:{each.sample}": each for each in self.questions}
        return {
            "queries": {name: each.text for name, each in ids.items()},
            "corpus": self.corpus,
            "relevant_docs": {name: [each.node_id] for name, each in ids.items()},
            "mode": "text",
        }

    def save_json(self, path: str | PathLike[str]) -> None:
        """Write a file for ``EmbeddingQAFinetuneDataset.from_json``."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        Path(path).write_text(f"{text}\n", encoding="utf-8")

    def save_jsonl(self, path: str | PathLike[str]) -> None:
        """Write a line of JSON for each question: the fields of `Question` and its passage."""
        with Path(path).open("w", encoding="utf-8") as file:
            for each in self.questions:
                line = {**each.model_dump(), "passage": self.corpus[each.node_id]}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


class BreadthQuestions(PromptMixin):
    """Asks for n distinct questions about each node; all nodes' samples meet in one batch.

    A question that resembles one of an earlier node is drawn again, since it would not tell the
    two apart. A node that fails costs no other node its questions: its error stands in the
    dataset's ``failed``, and the questions that it has given stay. The first error is raised only
    where every node fails.

    Example:
        ```python
        dataset = BreadthQuestions(llm, n=4, ladder=(0.2, 0.5, 0.8)).generate(nodes)
        dataset.save_json("questions.json")
        ```

    Args:
        llm: Asks the questions; `Settings.llm` if it is left out.
        question_prompt: Asks for one question, given ``{context_str}``.
        show_progress: Whether to count the samples in a progress bar.
        **settings: Settings of `BreadthParams`; ``n`` and ``max_samples`` are per node.

    Raises:
        ParameterError: A setting is not allowed, or the LLM is no `BACoLLM`.
    """

    def __init__(
        self,
        llm: LLM | None = None,
        question_prompt: BasePromptTemplate | str | None = None,
        *,
        show_progress: bool = False,
        **settings: Any,
    ) -> None:
        self.params = BreadthParams(**settings)
        self._llm = require_baco(llm)
        prompt = question_prompt or QUESTION_PROMPT
        self._question_prompt = require_prompt("question_prompt", prompt, "context_str")
        self._show_progress = show_progress

    def _get_prompts(self) -> PromptDictType:
        return {"question_prompt": self._question_prompt}

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        self._question_prompt = prompts.get("question_prompt", self._question_prompt)

    def generate(self, nodes: Iterable[BaseNode]) -> QuestionDataset:
        """Return up to n questions about each node.

        Raises:
            ParameterError: These are no nodes.
            Exception: Why the first node failed, if all of them did.
        """
        return wait(self.agenerate(nodes))

    async def agenerate(self, nodes: Iterable[BaseNode]) -> QuestionDataset:
        """Return up to n questions about each node; errors as for `generate`."""
        listed = list(nodes)
        if not all(isinstance(node, BaseNode) for node in listed):
            raise ParameterError("nodes", "nodes", nodes, "For example [TextNode(text=...)].")
        corpus = {node.node_id: node.get_content(MetadataMode.NONE) for node in listed}
        failed: dict[str, Exception] = {}
        total = self.params.n * len(corpus)
        with tqdm(total=total, desc="Samples", disable=not self._show_progress) as bar:
            draws = [self.draw(*each, failed, bar) for each in corpus.items()]
            found = distinct(draws, self.params, in_order=True, at_once=_AT_ONCE)
            questions = [each async for each in found if isinstance(each, Question)]
        places = {node_id: place for place, node_id in enumerate(corpus)}
        questions.sort(key=lambda each: (places[each.node_id], each.sample))
        return QuestionDataset(questions, corpus, failed)

    def draw(self, node_id: str, text: str, failed: dict[str, Exception], bar: tqdm) -> Draw:
        """Return a function that draws a question about a node; `failed` gets its first error."""

        async def sample(number: int, settings: Mapping[str, Any]) -> Idea | Exception:
            if number >= self.params.n:
                bar.total += 1  # it was not known that it would take another
            try:
                if not text.strip():
                    raise PromptError(
                        f"nodes[{node_id!r}]", "a node with text", text, "Leave it out."
                    )
                messages = self._llm._get_messages(self._question_prompt, context_str=text)
                draw = drawing(self._llm, messages, first_line, partial(Question, node_id=node_id))
                return await draw(number, settings)
            except Exception as error:  # whatever it is, it is no reason to lose the other nodes
                failed.setdefault(node_id, error)
                return error
            finally:
                bar.update()

        return sample
