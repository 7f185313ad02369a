"""The rows of vLLM's batch: what each was asked for and how far it is, and the step over them."""

from __future__ import annotations

from collections import deque
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from ...core.params import SamplingParams
from ...models.pair import ModelPair
from ...policy.noise import uniforms
from ...policy.params import NOBODY, PolicyParams, State
from ...policy.step import step
from ..sequence import FIRST_UNIFORMS
from .admission import Row, row_of
from .channel import encode

REWOUND = 8
"""Most tokens that vLLM takes back of what it has drawn already, which is one at a time."""


class RowState:
    """A request as long as it lives, whether it is in the batch or has lost its place.

    Args:
        row: What was asked for.
        seed: Its seed.
        decoded: The ids decoded so far, a list that vLLM extends.
    """

    def __init__(self, row: Row, seed: int, decoded: list[int]) -> None:
        self.row, self.seed, self.decoded = row, seed, decoded
        self.policy = PolicyParams.build(SamplingParams(**row.settings))
        self.noise = np.empty((0, 2))
        # Position, a step's sources, and the row's place among them: nothing waits for the device.
        self.sources: deque[tuple[int, Tensor, int]] = deque(maxlen=REWOUND)

    @property
    def position(self) -> int:
        """How many tokens have been decided; a token is only there once vLLM has taken it."""
        return len(self.decoded)

    def noise_here(self) -> Any:
        """Return the uniforms ``(2,)`` of its position."""
        if self.position >= len(self.noise):
            count = 2 * self.position + FIRST_UNIFORMS
            self.noise = uniforms(self.seed % 2**64, self.row.sample, count)
        return self.noise[self.position]

    def owner(self, nobody: Tensor) -> Tensor:
        """Return who gave the previous token, as a tensor without dimensions."""
        while self.sources and self.sources[-1][0] >= self.position:
            self.sources.pop()  # of a prompt that had not been read to its end
        if not self.sources:
            return nobody
        _, sources, place = self.sources[-1]
        return sources[place]


class Rows(LogitsProcessor):
    """Follows vLLM's batch; the fused model asks it for each step.

    vLLM calls such objects where requests come, go, and change places. It is no processor of
    logits: those would come too late for masks and reports.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.device = device
        self.rows: dict[int, RowState] = {}
        # What each side reads instead in this step, where prompts differ; see `shifted`.
        self.shifts: dict[int, Any] = {}
        self.policy: PolicyParams | None = None
        pair = fused_pair(vllm_config.model_config)
        self.classes = pair.token_space.classes(device)
        self.nobody = torch.tensor(NOBODY, device=device)
        OPEN[id(vllm_config)] = self

    def is_argmax_invariant(self) -> bool:
        """Say that logits stay as they are."""
        return True

    def apply(self, logits: Tensor) -> Tensor:
        """Return the logits as they are."""
        return logits

    def update_state(self, batch_update: Any) -> None:
        """Follow what has changed of the batch."""
        if batch_update is None:
            return
        self.policy = None
        for place in batch_update.removed:
            self.rows.pop(place, None)
        for place, params, _, decoded in batch_update.added:
            self.rows[place] = state_of(params, decoded)
        for source, target, kind in batch_update.moved:
            moved, other = self.rows.pop(source, None), self.rows.pop(target, None)
            if moved is not None:
                self.rows[target] = moved
            if other is not None and kind is MoveDirectionality.SWAP:
                self.rows[source] = other

    def asked(self) -> list[Row]:
        """Return what was asked for, row by row."""
        return [self.rows[place].row for place in range(len(self.rows))]

    def decide(self, base: Tensor, aligned: Tensor) -> Tensor:
        """Return logits in which only each row's token is possible; see `channel`.

        Args:
            base: Base's logits, ``(r, v)``.
            aligned: Aligned's.
        """
        if not self.rows:
            return aligned  # vLLM is warming up
        rows = [self.rows[place] for place in range(len(self.rows))]
        if self.policy is None:
            self.policy = PolicyParams.stack(
                [row.policy for row in rows], self.device, torch.float32
            )
        drawn = np.stack([row.noise_here() for row in rows], -1).astype(np.float32)
        noise = torch.from_numpy(drawn).to(self.device)
        positions = torch.tensor([row.position for row in rows], device=self.device)
        owners = torch.stack([row.owner(self.nobody) for row in rows])
        state = State(owners, positions, noise[0], noise[1])
        output = step(base, aligned, self.policy, state, self.classes)
        for place, row in enumerate(rows):
            row.sources.append((row.position, output.source, place))
        return encode(output, aligned.shape[-1])


OPEN: WeakValueDictionary[int, Rows] = WeakValueDictionary()
"""The rows of each engine of this process, by the id of its configuration."""


def state_of(params: Any, decoded: list[int]) -> RowState:
    """Return the state of a request, the same one after it has lost its place and come back.

    vLLM keeps the object `params` as long as the request lives, one for each.
    """
    state: RowState | None = params.__dict__.get("baco_state")
    if state is None:
        row = row_of(params) or Row({})
        state = params.__dict__["baco_state"] = RowState(row, params.seed or 0, decoded)
    state.decoded = decoded
    return state


def fused_pair(model_config: Any) -> ModelPair:
    """Return the pair of a fused model, without its weights."""
    config = model_config.hf_config
    return ModelPair.from_pretrained(
        config.baco_base,
        model_config.model,
        engine="vllm",
        base_revision=getattr(config, "baco_base_revision", None),
        aligned_revision=model_config.revision,
        trust_remote_code=bool(model_config.trust_remote_code),
        base_prompt="chat_template",
    )
