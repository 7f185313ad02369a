"""A pair without models: its distributions are written down, by hand or by a function.

It goes through the same decoder as every other pair, so tests of routing, streaming, chains and
agents can say exactly what each side would do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParameterError, PromptError, nearest
from ..core.messages import Messages, conversation
from ..core.plain import require_whole
from ..core.tool_calls import FORMATS
from ..text.token_space import SharedVocabulary
from ..text.vocabulary import Vocabulary

END = "<end>"
"""The token that ends a scripted turn."""

Distribution = Mapping[str, float]


class Context(NamedTuple):
    """What a side has seen: its rendered prompt, and the tokens decoded since."""

    prompt: str
    tokens: tuple[str, ...]

    @property
    def text(self) -> str:
        """The decoded tokens as one text."""
        return "".join(self.tokens)


Script = Callable[[Context], Distribution] | Mapping[str, Distribution]
"""A function from what was seen to the next token's probabilities, or a table by decoded text."""


class ScriptedPair:
    """A base and an aligned side whose next-token distributions are given.

    Args:
        base: Base's script. A table maps the whole text decoded so far (white space in front
            included) to a distribution; a text that is missing from it ends the turn.
        aligned: The aligned side's script.
        vocabulary: Tokens besides those in the classes; needed for scripts that are functions.
        context: Context window of both sides, in tokens (a prompt's bytes count one each).
        function_words: Words of the content class ``fc``, English by default.

    Raises:
        ParameterError: The vocabulary is empty, a table holds something else than numbers, or one
            of its texts can never come up.

    Example:
        ```python
        pair = ScriptedPair(
            base={"": {" Oslo": 0.5, " Bergen": 0.5}, " Oslo": {".": 1.0}, " Bergen": {".": 1.0}},
            aligned={"": {" Oslo": 1.0}, " Oslo": {".": 1.0}, " Bergen": {".": 1.0}},
        )
        Decoder.shared(pair).generate("Name a city.", gamma=0.8, n=10)
        ```
    """

    name = "scripted"
    base_stop: tuple[str, ...] = ()
    engine = "scripted"

    def __init__(
        self,
        base: Script,
        aligned: Script,
        *,
        vocabulary: Sequence[str] = (),
        context: int = 4096,
        function_words: Sequence[str] | None = None,
    ) -> None:
        known = [*vocabulary, *_tokens(base), *_tokens(aligned)]
        self.tokens = (*dict.fromkeys(token for token in known if token != END), END)
        if len(self.tokens) == 1:
            raise ParameterError(
                "vocabulary",
                "a list of at least one token",
                vocabulary,
                "For example [' Oslo', '.'].",
            )
        for script in (base, aligned):
            _require_reachable(script, self.tokens)
        self.vocabulary = Vocabulary.from_bytes(
            [b"" if token == END else token.encode() for token in self.tokens],
            control=[len(self.tokens) - 1],
            function_words=function_words,
        )
        self.shared = ~self.vocabulary.control
        self.base_size = self.aligned_size = len(self.tokens)
        self.base_eos = self.aligned_eos = frozenset({len(self.tokens) - 1})
        self.context = (context, context)
        self.call_format = FORMATS["hermes"]
        self.call_markers: dict[int, bytes] = {}
        self._scripts = (base, aligned)
        self._ids = {token: token_id for token_id, token in enumerate(self.tokens)}

    def render_base(self, messages: Messages, *, tokenize: bool = False) -> str | list[int]:
        """Return what the base side is fed: the conversation as ``role: content`` lines."""
        text = "\n".join(f"{m['role']}: {_said(m)}" for m in conversation(messages))
        return self.encode(text) if tokenize else text

    def render_aligned(
        self,
        messages: Messages,
        *,
        tokenize: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str | list[int]:
        """Return what the aligned side is fed: as base, under a line for each tool offered."""
        offered = [f"offered: {json.dumps(tool['function'])}\n" for tool in tools or ()]
        text = "".join(offered) + str(self.render_base(messages))
        return self.encode(text) if tokenize else text

    def raw_ids(self, prompt: str | Sequence[int]) -> tuple[list[int], list[int]]:
        """Return what both sides are fed for a prompt that has its whole frame.

        Args:
            prompt: A text, or ids: of tokens, which count as decoded, or as `encode` returns them.

        Raises:
            PromptError: An id is unknown.
        """
        ids = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        for token in ids:
            if not 0 <= token < len(self.tokens) + 256:
                allowed = f"token ids below {len(self.tokens) + 256}, where raw is set"
                raise PromptError("messages", allowed, token, "Give the text itself.")
        return ids, list(ids)

    def answer_ids(self, text: str) -> tuple[list[int], list[int]]:
        """Return what both sides are fed for a begun answer: tokens, which count as decoded.

        What the vocabulary cannot spell, with or without a space in front, belongs to the prompt.
        """
        longest = sorted(self.tokens[:-1], key=len, reverse=True)
        for spelled in (text, f" {text}"):
            tokens = re.findall("|".join(map(re.escape, longest)), spelled)
            if "".join(tokens) == spelled:
                ids = [self._ids[token] for token in tokens]
                return ids, list(ids)
        return self.encode(text), self.encode(text)

    def count_tokens(self, messages: Messages) -> int:
        """Return the length of the rendered conversation in tokens."""
        return len(self.render_aligned(messages, tokenize=True))

    def __deepcopy__(self, memo: dict[int, Any]) -> ScriptedPair:
        return self  # one pair, one decoder, whoever is copied

    @cached_property
    def token_space(self) -> SharedVocabulary:
        """The ids that both sides share."""
        ends, sizes = self.base_eos, (self.base_size, self.aligned_size)
        return SharedVocabulary.of(self.vocabulary, self.shared, ends, sizes)

    def logits(self, side: int, seen: Sequence[int]) -> NDArray[np.float64]:
        """Return what a side's script says about the next token.

        Args:
            side: 0 for base, 1 for aligned.
            seen: Ids of the prompt, and of all that has been decoded since.

        Returns:
            Logarithms of the weights, ``(v,)``.

        Raises:
            ParameterError: The script gives a token that is not in the vocabulary.
        """
        size, script = len(self.tokens), self._scripts[side]
        prompt = bytes(token - size for token in seen if token >= size).decode()
        context = Context(prompt, tuple(self.tokens[token] for token in seen if token < size))
        table = {} if callable(script) else script
        distribution = script(context) if callable(script) else table.get(context.text, {END: 1.0})
        logits = np.full(size, -math.inf)
        for token, weight in distribution.items():
            logits[self._id(token)] = math.log(weight) if weight > 0 else -math.inf
        return logits

    def _id(self, token: str) -> int:
        if token not in self._ids:
            raise ParameterError(
                "vocabulary",
                "a list of every token that the scripts give",
                token,
                f"{nearest(token, self._ids)}Add it to the pair's vocabulary.",
            )
        return self._ids[token]

    def encode(self, text: str) -> list[int]:
        """Return a text as the tokens of a prompt, one per byte."""
        whole = require_whole(text, "text", ParameterError)
        # Prompt bytes are ids of their own beyond the vocabulary, so any prompt can be fed.
        return [len(self.tokens) + byte for byte in whole.encode()]


def _said(message: Mapping[str, Any]) -> str:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return str(message["content"]) + FORMATS["hermes"].write(
        [(call["name"], call["arguments"]) for call in calls]
    )


def _require_reachable(script: Script, tokens: Sequence[str]) -> None:
    """Refuse a table's texts that no tokens spell: they are typing mistakes."""
    spelled = re.compile(f"(?:{'|'.join(map(re.escape, tokens))})*")
    for text in script if not callable(script) else ():
        if not spelled.fullmatch(text):
            raise ParameterError(
                "script",
                "a table whose texts are made of its tokens",
                text,
                f"{nearest(text, tokens)}Its tokens are {', '.join(map(repr, tokens[:8]))}.",
            )


def _tokens(script: Script) -> list[str]:
    if callable(script):
        return []
    for distribution in script.values():
        for token, probability in distribution.items():
            if not isinstance(probability, int | float) or not 0 <= probability < math.inf:
                raise ParameterError(
                    "script",
                    "a table of finite probabilities",
                    {token: probability},
                    "Weights will do.",
                )
    return [token for distribution in script.values() for token in distribution]
