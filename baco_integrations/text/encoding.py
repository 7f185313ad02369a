"""From rendered text to token ids: only what a template writes itself becomes control tokens.

Invariant: a control token stands in a prompt only where every character of it, white space aside,
is the template's. A message that spells one is encoded as ordinary text.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

from ..core.errors import PromptError
from ..core.threads import fork_safe
from .templates import OWN, ChatTemplate
from .vocabulary import read_token_table

_SAID = re.compile("[^\ud800-\udfff\\s]")
_BEFORE = "\n"
"""What pieces from within a text are encoded behind, as tokenizers may begin texts with a space."""


class Encoder:
    """A tokenizer for which callers' text never becomes a control token; safe in many threads.

    Args:
        tokenizer: A Hugging Face tokenizer.
        control: Texts of added tokens that are spelled out; left out, of its control tokens.

    Attributes:
        tokenizer: The tokenizer.

    Raises:
        PairError: The tokenizer has no `tokenizers` backend.
    """

    def __init__(self, tokenizer: Any, control: Collection[str] | None = None) -> None:
        table = read_token_table(tokenizer)
        added = {i: table.pieces[i] or "" for i in table.added}
        self.tokenizer = tokenizer
        self._control = {
            i: piece
            for i, piece in added.items()
            if (i in table.control if control is None else piece in control)
        }
        self._unknown = tokenizer.unk_token_id
        names = self._control.values()
        letters = sorted({char for name in names for char in name if not char.isspace()})
        self._alphabet = {ord(char): 0xD800 + place for place, char in enumerate(letters)}
        self._letters = {own: char for char, own in self._alphabet.items()}
        self._backend = tokenizer.backend_tokenizer
        # The backend keeps settings of the running call.
        self._running = fork_safe(threading.Lock())
        self._before = self._encoded([_BEFORE])[0].ids
        start = tokenizer("")["input_ids"][:1]
        self._start: list[int] = start if start == [tokenizer.bos_token_id] else []
        self._templates: dict[str, ChatTemplate] = {}

    def template(self, source: str) -> ChatTemplate:
        """Compile a chat template, or return it compiled; its renderings are for this tokenizer.

        Raises:
            TemplateError: It cannot be parsed.
        """
        if source not in self._templates:
            special = self.tokenizer.special_tokens_map
            self._templates[source] = ChatTemplate(source, special, self._alphabet)
        return self._templates[source]

    def text(self, marked: str) -> str:
        """Return a rendering as plain text, the template's own characters as ordinary ones."""

        def read(own: re.Match[str]) -> str:
            # Templates may hold surrogates of their own.
            return own[0].translate(self._letters).encode("utf-8", "replace").decode()

        return OWN.sub(read, marked)

    def ids(self, marked: str, *, begin: bool = False, behind: bool = False) -> list[int]:
        """Return the token ids of a rendering, or of plain text.

        Args:
            marked: The text; what a template writes itself is marked.
            begin: Whether to put the BOS in front with which the tokenizer begins texts.
            behind: Whether other text comes before it, so that no text begins here.

        Raises:
            PromptError: A text holds a control token that the tokenizer cannot spell out.
        """
        pieces = ["", marked] if behind else [marked]
        while True:
            encoded = list(self._pieces(pieces))
            if not any(cuts for _, _, cuts in encoded):
                start = self._start if begin else []
                return [*start, *(token_id for _, ids, _ in encoded for token_id in ids)]
            pieces = [
                piece[start:end]
                for piece, _, cuts in encoded
                for start, end in pairwise([0, *cuts, len(piece)])
            ]

    def meant_ids(self, text: str, *, begin: bool = False) -> list[int]:
        """Return the ids of a text whose control tokens are meant.

        Args:
            text: The text.
            begin: Whether to put the BOS in front with which the tokenizer begins texts, if the
                text has none.
        """
        ids: list[int] = self._encoded([text])[0].ids
        start = self._start if begin and ids[:1] != self._start else []
        return [*start, *ids]

    def _pieces(self, pieces: list[str]) -> Iterator[tuple[str, list[int], list[int]]]:
        """Encode the pieces of a text; give each with its ids and where it must be cut."""
        first, *others = map(self.text, pieces)
        encodings = self._encoded([first, *(_BEFORE + text for text in others)])
        yield pieces[0], encodings[0].ids, list(self._cuts(pieces[0], encodings[0]))
        begun = len(self._before)
        for piece, text, encoding in zip(pieces[1:], others, encodings[1:], strict=True):
            if encoding.ids[:begun] == self._before:
                cuts = self._cuts(_BEFORE + piece, encoding)
                yield piece, encoding.ids[begun:], [cut - len(_BEFORE) for cut in cuts]
            else:  # the two have become one token
                alone = self._encoded([text])[0]
                yield piece, alone.ids, list(self._cuts(piece, alone))

    def _cuts(self, piece: str, encoding: Any) -> Iterator[int]:
        """Yield where to cut control tokens in two that are not wholly the template's own text."""
        for index, token_id in enumerate(encoding.ids):
            if token_id not in self._control:
                continue
            start, end = encoding.token_to_chars(index)
            token = self.text(piece[start:end])
            unknown = token_id == self._unknown and token != self._control[token_id]
            if unknown or not _SAID.search(piece, start, end):
                continue
            cut = end - len(token.lstrip()) + 1
            if cut == len(piece):
                allowed = "free of control tokens that the tokenizer cannot spell out"
                raise PromptError("messages", allowed, token, "Leave it out.")
            yield cut

    def _encoded(self, texts: list[str]) -> Any:
        with self._running:
            # Other users of the tokenizer may have changed it.
            if self._backend.truncation is not None:
                self._backend.no_truncation()
            if self._backend.padding is not None:
                self._backend.no_padding()
            if self._backend.encode_special_tokens:
                self._backend.encode_special_tokens = False
            return self._backend.encode_batch(texts, add_special_tokens=False)
