"""What a pair does with text: its joint vocabulary, the two prompts of a conversation, encoding.

Invariant: a prompt's text becomes token ids only here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.errors import PairError, ParameterError, PromptError
from ..core.messages import Messages, conversation
from ..core.plain import plain as plain_json
from ..core.plain import require_whole
from ..text.compatibility import compare
from ..text.encoding import Encoder
from ..text.prompts import (
    BasePrompt,
    call_format,
    gap,
    render_aligned,
    render_base,
    stop_strings,
    template_gap,
)
from ..text.vocabulary import Vocabulary, read_token_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PairPrompts:
    """The part of a `ModelPair` that needs only tokenizers; its attributes are described there."""

    base_size: int
    aligned_size: int

    def __init__(
        self,
        base_tokenizer: PreTrainedTokenizerBase,
        aligned_tokenizer: PreTrainedTokenizerBase,
        base_prompt: BasePrompt,
        template_kwargs: Mapping[str, Any],
    ) -> None:
        self.base_tokenizer, self.aligned_tokenizer = base_tokenizer, aligned_tokenizer
        self.base_prompt = base_prompt
        self.template_kwargs = plain_json(template_kwargs, "template_kwargs", ParameterError)
        self.compatibility = compare(base_tokenizer, aligned_tokenizer)
        self.compatibility.require()
        self.size, self.shared = self.compatibility.size, self.compatibility.shared
        longer_is_base = self.compatibility.base_size > self.compatibility.aligned_size
        longer = base_tokenizer if longer_is_base else aligned_tokenizer
        vocabulary, control = Vocabulary.from_tokenizer(longer), ~self.shared
        self.vocabulary = replace(
            vocabulary,
            control=control,
            punctuation=vocabulary.punctuation | control,
            function_word=vocabulary.function_word & ~control,
            starts_word=vocabulary.starts_word | control,
        )
        tables = [read_token_table(each) for each in (base_tokenizer, aligned_tokenizer)]
        self._tables = tables
        control_pieces = [
            {i: piece for i in table.control & table.added if (piece := table.pieces[i])}
            for table in tables
        ]
        # What is a control token to one side is spelled out in messages by both.
        spelled_out = frozenset(piece for each in control_pieces for piece in each.values())
        self.base_encoder = Encoder(base_tokenizer, spelled_out)
        self.aligned_encoder = Encoder(aligned_tokenizer, spelled_out)
        self.call_format = form = call_format(tool_template(aligned_tokenizer))
        frame = form.begin + form.before + form.divider + form.after + form.end
        self.call_markers = {
            i: piece.encode() for i, piece in control_pieces[1].items() if piece in frame
        }
        self.base_stop = stop_strings(base_prompt)
        self.notes = self.compatibility.notes
        if not aligned_tokenizer.chat_template:
            note = "The aligned tokenizer has no chat template, so both sides get the base prompt."
            self.notes += (note,)
            if base_prompt == "chat_template":
                reason = "as the aligned model has no chat template"
                allowed = f"'qa', 'plain', 'urial' or a function, {reason}"
                raise ParameterError("base_prompt", allowed, base_prompt, "The default is 'qa'.")

    @property
    def base_prompt_name(self) -> str:
        """The kind of base prompt; of a function, its module and name."""
        kind = self.base_prompt
        return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"

    def render_base(self, messages: Messages, *, tokenize: bool = False) -> str | list[int]:
        """Return what the base model is fed for a conversation, as text or as token ids.

        Raises:
            PromptError: The conversation is malformed.
            ParameterError: `tokenize` is not a bool.
        """
        require_flag(tokenize)
        if self.base_prompt != "chat_template":
            text = render_base(self.base_prompt, conversation(messages))
            return self.base_encoder.ids(text, begin=True) if tokenize else text
        # The aligned template, with the aligned special tokens' names written in.
        special = self.aligned_tokenizer.special_tokens_map.items()
        constants = (f"{{% set {name} = {json.dumps(text)} %}}" for name, text in special)
        template = "".join(constants) + self.aligned_tokenizer.get_chat_template()
        rendered: str | list[int] = render_aligned(
            self.base_encoder,
            conversation(messages),
            tokenize=tokenize,
            template_kwargs={**self.template_kwargs, "chat_template": template},
        )
        return rendered

    def render_aligned(
        self,
        messages: Messages,
        *,
        tokenize: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str | list[int]:
        """Return what the aligned model is fed for a conversation, as text or as token ids.

        Args:
            messages: A string, or role/content dicts.
            tokenize: Whether to return token ids.
            tools: Tools to offer, as OpenAI-style dicts.

        Raises:
            PromptError: The conversation is malformed, or the chat template refuses it.
            ParameterError: `tokenize` is not a bool, or `tools` not a list of dicts.
        """
        require_flag(tokenize)
        if not self.aligned_tokenizer.chat_template:
            text = render_base(self.base_prompt, conversation(messages))
            return self.aligned_encoder.ids(text, begin=True) if tokenize else text
        listed = isinstance(tools, list | tuple) and all(isinstance(t, Mapping) for t in tools)
        if not (listed or tools is None):
            allowed = "a list of OpenAI-style dicts"
            raise ParameterError("tools", allowed, tools, "None offers none.")
        offered = plain_json(tools or [], "tools", ParameterError)
        rendered: str | list[int] = render_aligned(
            self.aligned_encoder,
            conversation(messages),
            tokenize=tokenize,
            tools=offered,
            template_kwargs=self.template_kwargs,
        )
        return rendered

    def raw_ids(self, prompt: str | Sequence[int]) -> tuple[list[int], list[int]]:
        """Return what base and aligned are fed for a prompt that has its whole frame.

        Control tokens that a text spells are control tokens. Each tokenizer puts its BOS in front,
        as for any text, where the text does not begin with it.

        Args:
            prompt: A text, or token ids that both sides read.

        Raises:
            PromptError: A token id is unknown to one of the models.
        """
        if isinstance(prompt, str):
            text = require_whole(prompt, "messages")
            base, aligned = (
                encoder.meant_ids(text, begin=True)
                for encoder in (self.base_encoder, self.aligned_encoder)
            )
            return base, aligned
        size = min(self.base_size, self.aligned_size)
        for token in prompt:
            if not 0 <= token < size or any(table.pieces[token] is None for table in self._tables):
                allowed = f"token ids below {size} that both tokenizers know, where raw is set"
                remedy = "Encode the text with pair.encode(text), or give the text itself."
                raise PromptError("messages", allowed, token, remedy)
        return list(prompt), list(prompt)

    def answer_ids(self, text: str) -> tuple[list[int], list[int]]:
        """Return what base and aligned are fed, behind their prompts, for a begun answer.

        The text is literal, control tokens that it spells included. The white space in front of it
        is that of the frame's earlier answers.

        Raises:
            PromptError: A text holds a control token that a tokenizer cannot spell out.
        """
        base = aligned = gap(self.base_prompt)
        if self.aligned_tokenizer.chat_template:
            aligned = template_gap(self.aligned_encoder, self.template_kwargs)
        if self.base_prompt == "chat_template":
            base = aligned
        for_base, for_aligned = (
            space + text.lstrip() if space else text for space in (base, aligned)
        )
        return (
            self.base_encoder.ids(for_base, behind=True),
            self.aligned_encoder.ids(for_aligned, behind=True),
        )

    def count_tokens(self, messages: Messages) -> int:
        """Return how many tokens the aligned model is fed for a conversation.

        Raises:
            PromptError: As for `render_aligned`.
        """
        return len(self.render_aligned(messages, tokenize=True))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text as the aligned model reads it, without special tokens.

        Raises:
            ParameterError: It is no text, or holds half a character.
        """
        if not isinstance(text, str):
            raise ParameterError("text", "a string", text, "Render conversations instead.")
        return self.aligned_encoder.meant_ids(require_whole(text, "text", ParameterError))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of decoded tokens, control tokens left out."""
        data = b"".join(self.vocabulary.token_bytes[token_id] for token_id in ids)
        return data.decode(errors="replace")


def one_model_note(base_prompt: str, template: bool) -> str:
    """Say what the two sides of a pair of one model are.

    Args:
        base_prompt: The kind of base prompt.
        template: Whether the model has a chat template.
    """
    if not template or base_prompt == "chat_template":
        lacking = "another base_prompt" if template else "a model with a chat template"
        return (
            "One model is both sides, and both are shown the same, so it decodes nearly as it does "
            f"alone. Take {lacking}."
        )
    return (
        f"One model is both sides: base is shown the base prompt {base_prompt!r}, aligned the chat "
        "template. How much that gains depends on the model: measure it, as with `baco eval`."
    )


def tool_template(tokenizer: Any) -> str | None:
    """Return the text of a chat template, of several the one for tools; None if there is none.

    Raises:
        PairError: It is not text.
    """
    if not tokenizer.chat_template:
        return None
    try:
        template: str = tokenizer.get_chat_template(tools=[{}])
        template.encode()
    except Exception as error:  # It may be anything that JSON can hold.
        raise PairError(
            f"The aligned tokenizer's chat_template is no text ({error}). Set it in "
            "tokenizer_config.json, or put chat_template.jinja beside that."
        ) from error
    return template


def require_flag(tokenize: object) -> None:
    """Require True or False."""
    if not isinstance(tokenize, bool):
        raise ParameterError("tokenize", "True or False", tokenize, "True asks for token ids.")
