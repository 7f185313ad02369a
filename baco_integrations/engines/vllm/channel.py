"""How what is known about a token travels through vLLM: as log-probabilities of other tokens.

vLLM carries log-probabilities from the model to the client, over HTTP too, and nothing else per
token. The fused model has drawn its token by then. So of the logits that it returns, the drawn
token's is 0, and `MARKS` others are far below, where no temperature makes them likely. Each of
these holds 16 bits: mark ``j`` with bits ``n`` is ``-(4096 + 128 j + n / 512)``, which float32
holds exactly, and which no softmax changes. In their order the marks hold who gave the token (0
base, 1 aligned, 2 nobody: the logits were not finite), then the upper and the lower halves of five
numbers in float32: ``p_base``, ``p_aligned``, ``p_sampled``, ``p_max`` and ``entropy``.

Whoever asks for `LOGPROBS` log-probabilities gets all of them. Their ids mean nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import torch
from torch import Tensor

from ...policy.step import StepOutput
from ..base import TokenOutput

MARKS = 11
"""How many log-probabilities hold what is known about a token."""
LOGPROBS = MARKS + 1
"""How many of the most probable tokens to ask vLLM for: the drawn one, and the marks."""
NOBODY_SPOKE = 2
"""Stands for a source where a model's logits are not finite."""

FIRST, BAND, UNIT = 4096.0, 128.0, 512.0


def encode(output: StepOutput, size: int) -> Tensor:
    """Return logits ``(r, size)`` in which only the drawn token is possible.

    Args:
        output: What a step decided.
        size: Number of logits that vLLM expects, at least `LOGPROBS`.
    """
    token = output.token.clamp(min=0)[:, None]
    source = output.source.where(output.sound & (output.token >= 0), NOBODY_SPOKE)
    numbers = torch.stack(output[2:7], -1).float().contiguous()
    bits = numbers.view(torch.int32).long()
    halves = torch.stack([bits >> 16 & 0xFFFF, bits & 0xFFFF], -1).flatten(1)
    marks = torch.arange(MARKS, device=token.device)
    held = torch.cat([source[:, None], halves], -1)
    logits = torch.full((len(token), size), -torch.inf, device=token.device)
    # The marks are at the lowest ids that are not the token's.
    logits.scatter_(-1, marks + (marks >= token), -(FIRST + BAND * marks + held / UNIT))
    return logits.scatter_(-1, token, 0.0)


def decode(token: int, logprobs: Iterable[float]) -> TokenOutput | None:
    """Read what is known about a token; None if the models' logits were not finite.

    Args:
        token: The token.
        logprobs: Log-probabilities that came with it, in any order, the marks among them.

    Raises:
        ValueError: A mark is missing: fewer than `LOGPROBS` were asked for, or another model
            gave them.
    """
    held = {}
    for logprob in logprobs:
        mark, rest = divmod(-logprob - FIRST, BAND)
        if 0 <= mark < MARKS:
            held[int(mark)] = round(rest * UNIT)
    if len(held) < MARKS:
        raise ValueError(f"{len(held)} of {MARKS} marks came: ask for {LOGPROBS} logprobs")
    if held[0] == NOBODY_SPOKE:
        return None
    halves = [held[mark] for mark in range(1, MARKS)]
    p_base, p_aligned, p_sampled, p_max, entropy = struct.unpack(
        ">5f", struct.pack(f">{len(halves)}H", *halves)
    )
    return TokenOutput(token, held[0], p_base, p_aligned, p_sampled, p_max, entropy, False)
