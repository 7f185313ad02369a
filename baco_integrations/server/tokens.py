"""Counting tokens for callers that have no tokenizer."""

from __future__ import annotations

from typing_extensions import TypedDict

from ..api.requests import TokenizeBody
from ..core.messages import conversation, require_text
from ..core.params import SamplingParams
from ..decoder.decoder import Decoder


class Tokens(TypedDict):
    """The tokens of a text or a conversation: aligned's, and how many base is fed."""

    tokens: list[int]
    base_tokens: int


def tokenize(decoder: Decoder, body: TokenizeBody) -> Tokens:
    """Return the tokens of a text as it stands, or of a conversation as it is rendered.

    Args:
        decoder: The pair's decoder.
        body: What was asked.

    Raises:
        ParameterError: There is neither a text nor a conversation, or a tool is malformed.
        PromptError: The conversation is malformed, or cannot be rendered.
    """
    pair = decoder.pair
    if body.text is not None and body.messages is None:
        tokens = pair.encode(body.text)
        return {"tokens": tokens, "base_tokens": len(tokens)}
    turns = conversation(body.conversation())
    require_text(turns)
    offered = list(SamplingParams(tools=body.tools or ()).tools)
    tools = {"tools": offered} if offered else {}
    tokens = list(pair.render_aligned(turns, tokenize=True, **tools))
    return {"tokens": tokens, "base_tokens": len(pair.render_base(turns, tokenize=True))}
