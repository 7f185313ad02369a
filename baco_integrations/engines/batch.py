"""A batch of sequences in one step: their state in, their tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.outputs import FinishReason
from ..policy.grammar_masks import Constraint, GrammarMasks
from ..policy.params import BASE, NOBODY, State
from ..policy.step import StepOutput
from ..policy.transfer import download, upload
from .base import TokenOutput
from .faults import off_grammar, worker_failure
from .metrics import Metrics
from .sequence import SequenceState

S = TypeVar("S", bound=SequenceState)


def state_of(
    sequences: Sequence[SequenceState],
    device: torch.device,
    dtype: torch.dtype = torch.float64,
    depths: Sequence[int] = (),
    drafted: Sequence[Tensor] = (),
) -> State:
    """Return the state of some sequences, which may be named once for each of their drafted tokens.

    Args:
        sequences: The sequences.
        device: Where the logits meet.
        dtype: What the step computes in; not all devices have float64.
        depths: How many tokens have been drafted behind the decided ones; left out, none.
        drafted: The last sequences' sources of the token before each one's next, ``(r,)`` each;
            the others' are those of their last decided token.
    """
    depths = depths or [0] * len(sequences)
    positions = [each.decoded + depth for each, depth in zip(sequences, depths, strict=True)]
    noise = [each.noise_at(at) for each, at in zip(sequences, positions, strict=True)]
    values = [[each.owner for each in sequences], positions, *np.stack(noise, -1)]
    columns = upload(np.array(values), device, dtype)
    owner, position = columns[:2].long().unbind(0)
    if drafted:
        sources = torch.cat([*drafted])
        owner = torch.cat((owner[: -len(sources)], sources))
    return State(owner, position, columns[2], columns[3], [each.tokens for each in sequences])


def masks_of(
    sequences: Sequence[SequenceState], size: int, device: torch.device
) -> GrammarMasks | None:
    """Return what the grammars of some sequences allow of so many ids; None without grammars."""
    members, constraints, masks = [], [], []
    for number, sequence in enumerate(sequences):
        matcher = sequence.request.matcher
        if matcher and sequence.error is None:
            # One bit more than there are tokens: the grammar's own end.
            bits = np.zeros(size // 32 + 1, dtype=np.int32)
            with sequence.keeping_errors():
                matcher.allow(bits)
                constraints.append(Constraint.of(matcher))
                members.append(number)
                masks.append(bits)
    if not members:
        return None
    return GrammarMasks.build(members, constraints, np.stack(masks), size, device)


def deliver(
    sequences: Sequence[S], tokens: Sequence[TokenOutput | None], metrics: Metrics
) -> list[S]:
    """Hand the tokens of a step to their sequences; return those that have ended."""
    metrics.tokens += len(tokens)
    for sequence, token in zip(sequences, tokens, strict=True):
        with sequence.keeping_errors():
            sequence.error = sequence.error or fault_of(sequence, token)
            if sequence.error is None and token is not None:
                metrics.from_base += token.source == BASE
                sequence.finished = accept(sequence, token)
        if sequence.error is not None:
            sequence.fail(sequence.error)
    return [sequence for sequence in sequences if sequence.finished]


def fault_of(sequence: SequenceState, token: TokenOutput | None) -> BaseException | None:
    """Return the error that ends a sequence, None if it goes on; its matcher takes the token."""
    router, matcher = sequence.request.router, sequence.request.matcher
    if router is not None and router.error is not None:
        # It is raised as it is, unless it would end its reader's process.
        error = router.error
        return error if isinstance(error, Exception) else worker_failure(error)
    if token is None:
        return worker_failure(ArithmeticError("a model's logits are not finite"))
    if matcher and not (token.token >= 0 and matcher.accept(token.token)):
        return off_grammar(sequence.decoded, matcher.error)
    return None


def accept(sequence: SequenceState, token: TokenOutput) -> bool:
    """Give a sequence its next token; return whether it was the last one."""
    request = sequence.request
    token = token._replace(switched=sequence.owner not in (NOBODY, token.source))
    sequence.owner = token.source
    sequence.tokens.append(token.token)
    finish: FinishReason | None = None
    if token.token in request.end:
        finish = "stop"
    elif sequence.decoded == request.limit:
        finish = "length"
    return request.sink.put(token, finish) or finish is not None


def outputs_of(
    output: StepOutput, *more: Tensor
) -> tuple[list[TokenOutput | None], list[NDArray[Any]]]:
    """Bring a step's output to Python in one copy, with whatever else is wanted.

    Returns:
        A token for each row, None where its logits are not finite; and what else came.
    """
    names = [each.to(output.p_base.dtype) for each in output[:8]]
    columns, *rest = download(torch.stack(names, -1), *(output.alternatives or ()), *more)
    offers: list[Any] = [None] * len(columns)
    if output.alternatives is not None:
        ids, chances, *rest = rest
        # By row, then by kind.
        pairs = zip(ids.swapaxes(0, 1).tolist(), chances.swapaxes(0, 1).tolist(), strict=True)
        offers = [
            tuple(
                [(int(id_), chance) for id_, chance in zip(*kind, strict=True)]
                for kind in zip(*row, strict=True)
            )
            for row in pairs
        ]
    tokens = [
        TokenOutput(int(row[0]), int(row[1]), row[2], row[3], row[4], row[5], row[6], False, offer)
        if row[7]
        else None
        for row, offer in zip(columns.tolist(), offers, strict=True)
    ]
    return tokens, rest
