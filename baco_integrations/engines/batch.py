"""A batch of sequences in one step: their state in, their tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from ..core.outputs import FinishReason
from ..policy.grammar_masks import Constraint, GrammarMasks
from ..policy.params import BASE, NOBODY, State
from ..policy.step import StepOutput
from .base import TokenOutput
from .faults import off_grammar, worker_failure
from .metrics import Metrics
from .sequence import SequenceState

S = TypeVar("S", bound=SequenceState)


def state_of(
    sequences: Sequence[SequenceState],
    owners: Sequence[int],
    depth: int,
    device: torch.device,
) -> State:
    """Return the state of some sequences `depth` drafted tokens after their decided ones."""
    positions = [sequence.decoded + depth for sequence in sequences]
    numbers = torch.tensor([list(owners), positions], device=device)
    drawn = [each.noise_at(at) for each, at in zip(sequences, positions, strict=True)]
    noise = torch.from_numpy(np.stack(drawn)).to(device)
    tokens = [sequence.tokens for sequence in sequences]
    return State(numbers[0], numbers[1], noise[:, 0], noise[:, 1], tokens)


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


def deliver(sequences: Sequence[S], output: StepOutput, metrics: Metrics) -> list[S]:
    """Hand the tokens of a step to their sequences; return those that have ended."""
    tokens = outputs_of(output)
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


def outputs_of(output: StepOutput) -> list[TokenOutput | None]:
    """Bring a step's output to Python in one copy; None where a row's logits are not finite."""
    rows = torch.stack([column.double() for column in output[:8]], -1).tolist()
    offers: list[tuple[list[tuple[int, float]], ...] | None] = [None] * len(rows)
    if output.alternatives is not None:
        ids, probabilities = (tensor.tolist() for tensor in output.alternatives)
        kinds = (
            [list(zip(*row, strict=True)) for row in zip(*each, strict=True)]
            for each in zip(ids, probabilities, strict=True)
        )
        offers = list(zip(*kinds, strict=True))
    return [
        TokenOutput(int(row[0]), int(row[1]), row[2], row[3], row[4], row[5], row[6], False, offer)
        if row[7]
        else None
        for row, offer in zip(rows, offers, strict=True)
    ]
