"""Diversity of the answers to one prompt: six lexical and five semantic metrics.

Invariant: each is a pure function of one prompt's answers (or their classes, or their vectors),
larger means more diverse, and fewer than two answers, or empty ones, are no error. Identical
answers have the least value; it is not always 0, which is what `frontier.normalise` is for.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import MissingExtraError

Answers = Sequence[str]
Classes = NDArray[np.intp]
Vectors = NDArray[np.float64]

EAD_VOCABULARY = 30522
"""Words that EAD's random text draws from: the size of BERT's vocabulary, as its authors used."""


# -- lexical ---------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """Split into words and punctuation marks, whatever their case."""
    return re.findall(r"\w+|[^\w\s]", text.casefold())


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return all runs of n tokens."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def count_table(items: Iterable[Iterable[Hashable]]) -> tuple[NDArray[np.float64], list[Any]]:
    """Count items, such as the n-grams of each text.

    Returns:
        Counts, shape (lists, different items), and the different items.
    """
    counts = [Counter(each) for each in items]
    columns = {item: place for place, item in enumerate(dict.fromkeys(chain(*counts)))}
    table = np.zeros((len(counts), len(columns)))
    for row, count in enumerate(counts):
        for item, times in count.items():
            table[row, columns[item]] = times
    return table, list(columns)


def distinct(answers: Answers, n: int) -> float:
    """Return the share of different n-grams among all n-grams of all answers (Li et al. 2016)."""
    grams = [gram for answer in answers for gram in ngrams(words(answer), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def ead(answers: Answers, vocabulary: int = EAD_VOCABULARY) -> float:
    """Return the expectation-adjusted distinct words (Liu et al. 2022).

    The number of different words over that expected of as much random text, which frees it from
    the texts' length; 1 is random text.

    Args:
        answers: The answers.
        vocabulary: Number of words that random text would draw from.
    """
    tokens = [word for answer in answers for word in words(answer)]
    expected = vocabulary * (1 - ((vocabulary - 1) / vocabulary) ** len(tokens))
    return len(set(tokens)) / expected if tokens else 0.0


def require_sacrebleu(feature: str) -> None:
    """Raise MissingExtraError, which names the feature, where sacreBLEU is not installed."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(feature, "eval") from error


def self_bleu_diversity(answers: Answers) -> float:
    """Return 1 - the answers' mean sentence BLEU against all others, in sacreBLEU's definition.

    Raises:
        MissingExtraError: The extra ``eval`` is not installed.
    """
    texts = Counter(answers)
    if len(texts) < 2:
        return 0.0
    require_sacrebleu("self-BLEU")
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    # Each text's n-grams are counted once, where `sentence_score` counts them for every pair.
    split: Any = Tokenizer13a()  # type: ignore[no-untyped-call]
    tokens = [split(text).split() for text in texts]
    table, grams = count_table(chain(*(ngrams(own, n) for n in range(1, 5))) for own in tokens)
    second, first = np.sort(table, 0)[-2:]
    matched = np.minimum(table, np.where(table == first, second, first))
    orders = np.array([len(gram) for gram in grams])
    lengths = np.array([len(own) for own in tokens])
    total = 0.0
    for place, (times, length) in enumerate(zip(texts.values(), lengths, strict=True)):
        others = np.delete(lengths, place)
        score = BLEU.compute_bleu(
            [int(matched[place, orders == n].sum()) for n in range(1, 5)],
            [max(int(length) - n, 0) for n in range(4)],
            int(length),
            min(map(int, others), key=lambda other: (abs(other - length), other)),
            smooth_method="exp",
            effective_order=True,
        ).score
        # A text that comes twice is among its own references, even if it is empty.
        total += times * (score if times == 1 else 100)
    return 1 - total / (100 * len(answers))


def rouge_l_diversity(answers: Answers) -> float:
    """Return 1 - the mean over pairs of answers of ROUGE-L, the F1 of the words in common order."""
    texts = Counter(answers)
    pairs = math.comb(len(answers), 2)
    if not pairs:
        return 0.0
    alike = float(sum(math.comb(times, 2) for times in texts.values()))
    tokens = {text: words(text) for text in texts}
    for one, other in combinations(texts, 2):
        a, b = tokens[one], tokens[other]
        f1 = 2 * common_length(a, b) / (len(a) + len(b)) if a or b else 1.0
        alike += texts[one] * texts[other] * f1
    return 1 - alike / pairs


def compression(answers: Answers) -> float:
    """Return the deflated size of all answers over their size in bytes, at most 1."""
    raw = "\n".join(answers).encode()
    if not raw.strip():
        return 0.0
    # Raw deflate: a header would count for much beside short answers.
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return min(1.0, len(deflate.compress(raw) + deflate.flush()) / len(raw))


def common_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of two lists of words."""
    # A row of the usual table is the bits of one integer (Hyyrö 2004).
    places: dict[str, int] = {}
    for place, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << place
    row = full = (1 << len(a)) - 1
    for token in b:
        match = row & places.get(token, 0)
        row = (row + match | row - match) & full
    return len(a) - row.bit_count()


# -- semantic --------------------------------------------------------------------------------------


def distinct_classes(classes: Classes) -> float:
    """Return the number of different classes over the number of answers; class -1 is none."""
    return len(set(classes[classes >= 0].tolist())) / len(classes) if len(classes) else 0.0


def class_entropy(classes: Classes) -> float:
    """Return the entropy of the classes over that of all different ones, log(answers).

    Answers without a class (-1) add nothing: it is the entropy of the others, times their share.
    """
    if len(classes) < 2:
        return 0.0
    counts = np.unique(classes[classes >= 0], return_counts=True)[1]
    shares = counts / counts.sum()
    entropy = abs(float((shares * np.log(shares)).sum()))
    return entropy * float(counts.sum()) / len(classes) / math.log(len(classes))


def mean_distance(vectors: Vectors) -> float:
    """Return the mean of 1 - cosine over pairs of answers, from their unit vectors, one a row."""
    n = len(vectors)
    if n < 2:
        return 0.0
    gram = vectors @ vectors.T
    return max(0.0, 1 - float(gram.sum() - gram.trace()) / (n * (n - 1)))


def vendi(vectors: Vectors) -> float:
    """Return the Vendi score over the number of answers (Friedman and Dieng 2023).

    exp of the entropy of the eigenvalues of their cosines over n: 1/n if all are the same, 1 if
    all are orthogonal.
    """
    n = len(vectors)
    if not n:
        return 0.0
    values = np.linalg.eigvalsh(vectors @ vectors.T / n)
    values = values[values > 1e-12]
    return math.exp(-float((values * np.log(values)).sum())) / n


def nearest_distance(vectors: Vectors) -> float:
    """Return the mean over answers of 1 - cosine to the answer nearest to it."""
    if len(vectors) < 2:
        return 0.0
    gram = vectors @ vectors.T
    np.fill_diagonal(gram, -1)
    return max(0.0, 1 - float(gram.max(1).mean()))


def valid_distinct(classes: Classes, valid: NDArray[np.bool_]) -> int:
    """Return the number of different classes among the valid answers."""
    return len(set(classes[valid & (classes >= 0)].tolist()))


# -- all of them -----------------------------------------------------------------------------------

LEXICAL: Mapping[str, Callable[[Answers], float]] = {
    "distinct-1": lambda answers: distinct(answers, 1),
    "distinct-2": lambda answers: distinct(answers, 2),
    "EAD": ead,
    "1 - self-BLEU": self_bleu_diversity,
    "1 - ROUGE-L": rouge_l_diversity,
    "compression": compression,
}
OF_CLASSES: Mapping[str, Callable[[Classes], float]] = {
    "distinct classes": distinct_classes,
    "class entropy": class_entropy,
}
OF_VECTORS: Mapping[str, Callable[[Vectors], float]] = {
    "1 - cosine": mean_distance,
    "Vendi": vendi,
    "nearest neighbour": nearest_distance,
}
SEMANTIC = (*OF_CLASSES, *OF_VECTORS)
NAMES = (*LEXICAL, *SEMANTIC)
"""The eleven, in the order of every array of them: six lexical, then five semantic."""


def diversity(answers: Answers, classes: Classes, vectors: Vectors) -> list[float]:
    """Return all eleven, in the order of `NAMES`."""
    return [
        *(metric(answers) for metric in LEXICAL.values()),
        *(metric(classes) for metric in OF_CLASSES.values()),
        *(metric(vectors) for metric in OF_VECTORS.values()),
    ]
