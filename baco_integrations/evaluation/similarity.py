"""Which answers to a prompt are the same, and how far apart the others are.

A similarity is any function of a question and the list of its answers that returns their classes
and their vectors. Invariant: it depends on that one list only, so that adding a method to a
comparison never changes another method's numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParameterError
from .metrics import count_table

Floats = NDArray[np.float64]


class Question(NamedTuple):
    """What was asked: the record's id and its prompt."""

    id: str
    prompt: str


class Likeness(NamedTuple):
    """The classes and the vectors of n answers.

    Attributes:
        classes: Shape (n,): equal numbers for equivalent answers; -1 for one without a class.
        vectors: Shape (n, d): a unit vector for each.
    """

    classes: NDArray[np.intp]
    vectors: Floats


class AnswerSimilarity(Protocol):
    """A function that compares the answers to one question."""

    def __call__(self, question: Question, answers: Sequence[str], /) -> Likeness:
        """Compare the answers to one question."""


class VectorSimilarity(ABC):
    """Compares answers by vectors: those whose cosine reaches a threshold are in one class.

    Raises:
        ParameterError: The threshold is not from 0 to 1.
    """

    def __init__(self, threshold: float) -> None:
        if not 0 <= threshold <= 1:
            remedy = "1 joins equal answers only."
            raise ParameterError("threshold", "a number from 0 to 1", threshold, remedy)
        self.threshold = threshold

    def __call__(self, question: Question, answers: Sequence[str]) -> Likeness:
        """Compare the answers to one question."""
        vectors = self.vectors(answers)
        close = vectors @ vectors.T >= self.threshold - 1e-9
        return Likeness(
            partition(len(vectors), lambda one, other: bool(close[one, other])), vectors
        )

    @abstractmethod
    def vectors(self, answers: Sequence[str]) -> Floats:
        """Return a unit vector for each answer."""


class TfidfSimilarity(VectorSimilarity):
    """Character n-grams within words; needs no model and no download.

    Weights are (1 + log(count)) * (log((1 + n) / (1 + df)) + 1), over the n answers compared.

    Args:
        threshold: Cosine from which two answers are in one class.
        sizes: Shortest and longest n-gram.
    """

    def __init__(self, threshold: float = 0.7, sizes: tuple[int, int] = (3, 5)) -> None:
        super().__init__(threshold)
        self.sizes = sizes

    def vectors(self, answers: Sequence[str]) -> Floats:
        """Return a unit vector for each answer."""
        table, _ = count_table(map(self.ngrams, answers))
        with np.errstate(divide="ignore"):
            weights = np.where(table > 0, 1 + np.log(table), 0.0)
        rarity = np.log((1 + len(answers)) / (1 + (table > 0).sum(0))) + 1
        return unit(weights * rarity)

    def ngrams(self, text: str) -> list[str]:
        """Return the n-grams of a text's words, each with a space before and behind it."""
        return [
            word[start : start + size]
            for word in (f" {word} " for word in text.casefold().split())
            for size in range(self.sizes[0], self.sizes[1] + 1)
            for start in range(len(word) - size + 1)
        ]


class EmbeddingSimilarity(VectorSimilarity):
    """Any embedding model; each text is embedded once.

    Args:
        model: LangChain ``Embeddings``, a LlamaIndex embedding, a sentence-transformers model, or
            a function of a list of texts that returns their vectors.
        threshold: Cosine from which two answers are in one class.

    Raises:
        ParameterError: The model has no such method, or the threshold is out of range.
    """

    def __init__(self, model: Any, threshold: float = 0.8) -> None:
        super().__init__(threshold)
        methods = ("embed_documents", "get_text_embedding_batch", "encode", "__call__")
        found = [each for name in methods if callable(each := getattr(model, name, None))]
        if isinstance(model, str | type) or not found:
            raise ParameterError(
                "model",
                "an embedding model of LangChain, LlamaIndex or sentence-transformers, or a "
                "function",
                model,
                "It must have embed_documents, get_text_embedding_batch or encode.",
            )
        self._embed: Callable[[list[str]], Any] = found[0]
        self._known: dict[str, Floats] = {}

    def vectors(self, answers: Sequence[str]) -> Floats:
        """Return a unit vector for each answer."""
        new = [text for text in dict.fromkeys(answers) if text.strip() and text not in self._known]
        if new:
            self._known.update(zip(new, np.asarray(self._embed(new), float), strict=True))
        size = len(next(iter(self._known.values()))) if self._known else 0
        # Services refuse empty texts, so these are a direction of their own.
        rows = [self._known.get(text, np.zeros(size)) for text in answers]
        return unit(np.reshape(rows, (len(answers), size)))


@dataclass(frozen=True)
class OracleSimilarity:
    """An exact judge of what an answer names.

    Attributes:
        name: Names the class of an answer to a question; None if it names nothing.
        vectors: Where vectors come from; by default the classes themselves, so that different
            ones are orthogonal and all answers without a class are the same.
    """

    name: Callable[[Question, str], Hashable | None]
    vectors: AnswerSimilarity | None = None

    def __call__(self, question: Question, answers: Sequence[str]) -> Likeness:
        """Compare the answers to one question."""
        numbers: dict[Hashable, int] = {}
        names = [self.name(question, answer) for answer in answers]
        classes = [-1 if n is None else numbers.setdefault(n, len(numbers)) for n in names]
        return with_vectors(np.array(classes, np.intp), self.vectors, question, answers)


@dataclass(frozen=True)
class PairwiseSimilarity:
    """A judge of pairs, such as NoveltyBench's classifier; the classes are a greedy partition.

    An answer joins the first class whose first member it is equivalent to.

    Attributes:
        equivalent: Whether two answers to a question are equivalent.
        vectors: Where vectors come from; by default the classes themselves.
    """

    equivalent: Callable[[Question, str, str], bool]
    vectors: AnswerSimilarity | None = None

    def __call__(self, question: Question, answers: Sequence[str]) -> Likeness:
        """Compare the answers to one question."""

        def same(one: int, other: int) -> bool:
            a, b = answers[one], answers[other]
            return a == b or self.equivalent(question, a, b)

        classes = partition(len(answers), same)
        return with_vectors(classes, self.vectors, question, answers)


def unit(vectors: Floats) -> Floats:
    """Scale rows to length 1; rows of zeros become one direction that no other row has."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    nothing = norms == 0
    return np.hstack([vectors / np.where(nothing, 1, norms), nothing.astype(float)])


def partition(n: int, same: Callable[[int, int], bool]) -> NDArray[np.intp]:
    """Return the classes of n items: each joins the first class whose first member is the same."""
    first: list[int] = []
    classes = []
    for item in range(n):
        found = next((c for c, member in enumerate(first) if same(member, item)), len(first))
        if found == len(first):
            first.append(item)
        classes.append(found)
    return np.array(classes, np.intp)


def with_vectors(
    classes: NDArray[np.intp],
    vectors: AnswerSimilarity | None,
    question: Question,
    answers: Sequence[str],
) -> Likeness:
    """Return classes with the vectors of a similarity, or else with a direction for each class."""
    if vectors is not None:
        return Likeness(classes, vectors(question, answers).vectors)
    return Likeness(classes, np.eye(len(answers) + 1)[classes])  # -1 is the last row
