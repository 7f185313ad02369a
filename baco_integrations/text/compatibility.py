"""Whether two tokenizers give one text vocabulary, and which tokens end a turn.

Invariant: an id is shared only if it is the same text on both sides. Control tokens belong to
each side alone, so they may differ; text tokens may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import PairError, VocabularyMismatchError, shorten
from .template_bounds import TemplateLimitError, rendering_until
from .templates import ChatTemplate
from .vocabulary import BoolArray, read_token_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

_SHOWN = 5
_PATIENCE = 1.0
"""Longest time in seconds that a template may take for a conversation of two words."""


@dataclass(frozen=True, eq=False)
class Compatibility:
    """What a comparison of two tokenizers found.

    Attributes:
        same_text_vocabulary: Every text token is the same on both sides.
        size: Number of ids of the shared id space, the larger of the two vocabularies.
        base_size: Number of the base tokenizer's ids.
        aligned_size: Number of the aligned tokenizer's ids.
        shared: Ids that are the same text on both sides; read-only, of shape [size].
        differing: The first few `(id, base piece, aligned piece)` that keep the two from being a
            pair; None stands for no token.
        extra_control: Names of the control tokens that only one side has.
        notes: The differences that are allowed, as sentences.
    """

    same_text_vocabulary: bool
    size: int
    base_size: int
    aligned_size: int
    shared: BoolArray
    differing: tuple[tuple[int, str | None, str | None], ...]
    extra_control: tuple[str, ...]
    notes: tuple[str, ...]

    def require(self) -> None:
        """Refuse a pair whose text vocabularies differ.

        Raises:
            VocabularyMismatchError: With the first differing tokens and both sizes.
        """
        if self.same_text_vocabulary:
            return
        named = (
            (i, *("no token" if piece is None else repr(piece) for piece in both))
            for i, *both in self.differing
        )
        tokens = "; ".join(
            f"id {i} is {ours} in base and {theirs} in aligned" for i, ours, theirs in named
        )
        raise VocabularyMismatchError(
            f"The two tokenizers (base {self.base_size} tokens, aligned {self.aligned_size}) do "
            f"not share one text vocabulary: {tokens}. Choose as base the checkpoint that the "
            "aligned model was tuned from, or a pair from the preset table."
        )


def compare(
    base_tokenizer: PreTrainedTokenizerBase, aligned_tokenizer: PreTrainedTokenizerBase
) -> Compatibility:
    """Compare two tokenizers id by id.

    Raises:
        PairError: A tokenizer has no `tokenizers` backend.
    """
    base, aligned = read_token_table(base_tokenizer), read_token_table(aligned_tokenizer)
    size = max(len(base.pieces), len(aligned.pieces))
    sides = np.full((2, size), None)  # pieces by id
    for row, table in zip(sides, (base, aligned), strict=True):
        row[: len(table.pieces)] = table.pieces
    equal = (sides[0] == sides[1]).astype(np.bool_)
    shared = equal.copy()
    shared[[token_id for token_id in base.control | aligned.control]] = False
    shared.setflags(write=False)
    own = [table.control | table.marked for table in (base, aligned)]
    # Markup may be one side's alone. A hole is control on its own side, yet no control token takes
    # the id's place there, so text on the other side still has no counterpart.
    different = (
        (token_id, *sides[:, token_id])
        for token_id in np.flatnonzero(~equal).tolist()
        if not any(
            piece is not None and token_id in ids
            for piece, ids in zip(sides[:, token_id], own, strict=True)
        )
    )
    differing = tuple(islice(different, _SHOWN))
    names = [{table.pieces[i] for i in table.control} - {None} for table in (base, aligned)]
    extra = {
        "base": sorted(filter(None, names[0] - names[1])),
        "aligned": sorted(filter(None, names[1] - names[0])),
    }
    return Compatibility(
        same_text_vocabulary=not differing,
        size=size,
        base_size=len(base.pieces),
        aligned_size=len(aligned.pieces),
        shared=shared,
        differing=differing,
        extra_control=tuple(sorted(extra["base"] + extra["aligned"])),
        notes=tuple(lone_tokens(side, some) for side, some in extra.items() if some),
    )


def lone_tokens(side: str, names: list[str]) -> str:
    """Say which control tokens only one side has."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"Only the {side} tokenizer has the control tokens {', '.join(names[:_SHOWN])}{more}."


def end_tokens(
    tokenizer: PreTrainedTokenizerBase,
    generation_config: GenerationConfig | None,
    config: PreTrainedConfig | None,
) -> frozenset[int]:
    """Collect the ids that end one side's completion.

    They are the EOS ids of the generation config, the model config and the tokenizer, and the
    control token with which the chat template closes the assistant's turn. The template is
    rendered rather than searched for well-known names: in some formats a name such as `<|end|>`
    closes only a part of the turn. What is no id of the tokenizer is left out: see `end_notes`.

    Args:
        tokenizer: One side's tokenizer, with or without a chat template.
        generation_config: That side's generation config, if it has one.
        config: That side's model config, if it is at hand.

    Raises:
        PairError: The chat template takes too long, or writes too much.
    """
    found = [tokenizer.eos_token_id, turn_end(tokenizer)]
    found += [end for _, end in configured_ends(generation_config, config)]
    return frozenset(end for end in found if is_token(end, tokenizer))


def end_notes(
    side: str,
    tokenizer: PreTrainedTokenizerBase,
    generation_config: GenerationConfig | None,
    config: PreTrainedConfig | None,
) -> list[str]:
    """Return which ends of one side are left out because they are no ids of its tokenizer."""
    return [
        f"The {side} model's {name} calls {shorten(end)} an end, which is no id of its tokenizer."
        for name, end in configured_ends(generation_config, config)
        if end is not None and not is_token(end, tokenizer)
    ]


def configured_ends(generation_config: Any, config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the ends that the configs name, each behind the name of its config."""
    for name, each in (("generation config", generation_config), ("model config", config)):
        ends = getattr(each, "eos_token_id", None)
        yield from ((name, end) for end in (ends if isinstance(ends, list | tuple) else [ends]))


def is_token(end: Any, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether something is an id of a tokenizer."""
    return type(end) is int and 0 <= end < len(read_token_table(tokenizer).pieces)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the control token with which a chat template closes the assistant's turn.

    Raises:
        PairError: The chat template takes too long, or writes too much.
    """
    if not tokenizer.chat_template:
        return None
    mark = "ANSWER"
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": mark}]
    try:
        template = ChatTemplate(tokenizer.get_chat_template(), tokenizer.special_tokens_map, {})
        with rendering_until(monotonic() + _PATIENCE):
            text = template.render(messages, {"add_generation_prompt": False})
    except TemplateLimitError as error:
        raise PairError(
            f"The chat template of {tokenizer.name_or_path} {error}. Choose another model, or "
            "mend the template."
        ) from error
    except Exception:  # A template may raise anything; the configs then have the last word.
        return None
    closing = text.rpartition(mark)[2].lstrip()
    ids = tokenizer(closing, add_special_tokens=False)["input_ids"]
    return ids[0] if ids and ids[0] in read_token_table(tokenizer).control else None
