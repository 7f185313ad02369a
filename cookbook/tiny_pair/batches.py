"""The tokenizer of the tiny pair, and the batches that its two models learn from.

Invariant: seed, recipe and the number of a step decide the step's data.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from cookbook.tiny_pair import corpora
from cookbook.tiny_pair.grammar import Piece
from cookbook.tiny_pair.tools import CALL, END_OF_CALL

END_OF_TEXT, END_OF_TURN, PADDING = "<|endoftext|>", "<|end|>", "<|pad|>"
SPECIAL_TOKENS = (
    *(END_OF_TEXT, PADDING, "<|system|>", "<|user|>", "<|assistant|>", END_OF_TURN),
    "<|tool|>",
)
CALL_TOKENS = (CALL, END_OF_CALL)
"""Tokens of their own that decoding shows, as a call is what an application reads."""

OPENING = re.compile(r'(?<=\nA:)(?: \{"|<tool_call>| \w+\()')
"""Openings of answers in JSON and of calls, which no words of the question call for."""

BLOCK = 8
"""Steps whose chats are drawn together."""
NOT_LEARNED = -100


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how long.

    Attributes:
        vocabulary: Number of tokens.
        layers: Number of layers of each model.
        hidden: Width of each model.
        heads: Attention heads per layer.
        context: Longest sequence the models declare to handle.
        documents: Documents of each corpus that the tokenizer is trained on.
        base_steps: Steps of the base model.
        base_rows: Rows per step of the base model.
        row_tokens: Tokens per row.
        base_rate: Highest learning rate of the base model.
        aligned_steps: Steps of the aligned model.
        aligned_rows: Chats per step of the aligned model.
        copying_rows: Chats per step besides, in which there is much to copy.
        aligned_rate: Highest learning rate of the aligned model.
        checkpoint_every: Steps between checkpoints.
    """

    vocabulary: int = 1792
    layers: int = 4
    hidden: int = 160
    heads: int = 5
    context: int = 1024
    documents: int = 4000
    base_steps: int = 3600
    base_rows: int = 5
    row_tokens: int = 384
    base_rate: float = 3e-3
    aligned_steps: int = 4000
    aligned_rows: int = 24
    copying_rows: int = 8
    aligned_rate: float = 1e-3
    checkpoint_every: int = 100


class Batch(NamedTuple):
    """One step's data, each of shape [rows, tokens]; a padded end is neither seen nor learned."""

    input_ids: torch.Tensor
    labels: torch.Tensor


def trained_tokenizer(path: Path, recipe: Recipe, seed: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer, or load the one trained before."""
    if not path.exists():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=recipe.vocabulary - len(CALL_TOKENS),
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts(recipe, seed), trainer)
        tokenizer.add_tokens([AddedToken(call, normalized=False) for call in CALL_TOKENS])
        tokenizer.save(f"{path}.part")
        os.replace(f"{path}.part", path)
    return Tokenizer.from_file(str(path))


def texts(recipe: Recipe, seed: int) -> Iterator[str]:
    """Documents of both corpora, without the tokens that mark turns and calls."""
    marks = re.compile("|".join(map(re.escape, (*SPECIAL_TOKENS, *CALL_TOKENS))))
    for number in range(recipe.documents):
        yield from marks.split(corpora.base_document(Random(f"{seed}:words:{number}")))
        example = corpora.aligned_example(Random(f"{seed}:words:{number}"))
        yield from marks.split("".join(piece.text for piece, _ in example))


def base_batch(tokenizer: Tokenizer, recipe: Recipe, seed: str) -> Batch:
    """Rows of documents, one after another; every row begins with the beginning of one."""
    end = SPECIAL_TOKENS.index(END_OF_TEXT)
    rng = Random(seed)
    rows = []
    for _ in range(recipe.base_rows):
        ids: list[int] = []
        labels: list[int] = []
        while len(ids) < recipe.row_tokens:
            page = encode(tokenizer, page_pieces(corpora.base_document(rng)))
            ids += [*page[0], end]
            labels += [*page[1], end]
        rows.append((ids[: recipe.row_tokens], labels[: recipe.row_tokens]))
    return pad(rows, end)


def page_pieces(page: str) -> list[tuple[Piece, bool]]:
    """A page as pieces, each with whether it is to be learned.

    That an answer is JSON, or a call, is not: it is decided elsewhere, and base would open plain
    answers so now and then.
    """
    pieces, done = [], 0
    for opening in OPENING.finditer(page):
        pieces.append((Piece(page[done : opening.start()]), True))
        pieces.append((Piece(opening[0]), False))
        done = opening.end()
    return [*pieces, (Piece(page[done:]), True)]


def aligned_block(tokenizer: Tokenizer, recipe: Recipe, seed: str) -> list[Batch]:
    """The batches of several steps, sorted by length inside so that little padding is needed."""
    rng = Random(seed)
    chats = [corpora.aligned_example(rng) for _ in range(BLOCK * recipe.aligned_rows)]
    chats += [corpora.copying_example(rng) for _ in range(BLOCK * recipe.copying_rows)]
    count = recipe.aligned_rows + recipe.copying_rows
    examples = [encode(tokenizer, chat) for chat in chats]
    examples.sort(key=lambda example: len(example[0]))
    starts = list(range(0, len(examples), count))
    rng.shuffle(starts)
    padding = SPECIAL_TOKENS.index(PADDING)
    return [pad(examples[start : start + count], padding) for start in starts]


def encode(tokenizer: Tokenizer, example: list[tuple[Piece, bool]]) -> tuple[list[int], list[int]]:
    """Ids and labels of a chat; a token is learned if every character of it is to be."""
    learned = [keep for piece, keep in example for _ in piece.text]
    encoding = tokenizer.encode("".join(piece.text for piece, _ in example))
    labels = [
        token if all(learned[start:end]) else NOT_LEARNED
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
    ]
    return encoding.ids, labels


def pad(rows: list[tuple[list[int], list[int]]], padding: int) -> Batch:
    """Stack rows of ids and labels, padded on the right, where nothing before attends to it."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [padding] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([row + [NOT_LEARNED] * (width - len(row)) for _, row in rows])
    return Batch(ids, labels)
