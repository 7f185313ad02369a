"""Both models of a pair as one model of vLLM's: one forward of each, then one step."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from vllm.compilation.backends import set_model_tag
from vllm.forward_context import get_forward_context
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.models import ModelRegistry
from vllm.model_executor.models.interfaces import SupportsQuant
from vllm.model_executor.models.utils import maybe_prefix
from vllm.transformers_utils.config import get_config

from ...core.errors import PairError
from ...models.options import SIDES, Side
from .rows import OPEN, Rows
from .shifted import shifted_backend

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
"""vLLM's class for each kind of model that can be fused."""
OF_BASE = "base of the pair:"
"""Stands before the names of base's weights."""


class BacoForCausalLM(nn.Module, SupportsQuant):
    """Base and aligned as one model; see `channel` for what its logits are.

    Each attention layer of both has a cache of its own, so that vLLM pages, shares and splits them
    as those of any model. The served folder is aligned's; base's is ``baco_base`` of the config.
    """

    packed_modules_mapping = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        model_config = vllm_config.model_config
        aligned = model_config.hf_config
        revision = getattr(aligned, "baco_base_revision", None)
        base = get_config(
            aligned.baco_base, trust_remote_code=model_config.trust_remote_code, revision=revision
        )
        self.config = aligned
        self.aligned = build_side(vllm_config, aligned, maybe_prefix(prefix, "aligned"))
        with set_model_tag("baco_base"):
            self.base = build_side(vllm_config, base, maybe_prefix(prefix, "base"))
        attention = vllm_config.compilation_config.static_forward_context
        self.layers = {side: shift_layers(attention, maybe_prefix(prefix, side)) for side in SIDES}
        self.widths = [base.hidden_size, aligned.hidden_size]
        self.vllm_config_id = id(vllm_config)
        self.secondary_weights = [
            DefaultModelLoader.Source(aligned.baco_base, revision, prefix=OF_BASE)
        ]

    @property
    def rows(self) -> Rows | None:
        """The rows of the batch."""
        return OPEN.get(self.vllm_config_id)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """Return aligned's embeddings; vLLM asks for them of models that read images."""
        embeddings: Tensor = self.aligned.embed_input_ids(input_ids)
        return embeddings

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden states of base and aligned, side by side."""
        return torch.cat([self.read(side, input_ids, positions) for side in SIDES], -1)

    def read(self, side: Side, input_ids: Tensor, positions: Tensor) -> Tensor:
        """Return the last hidden states of one side, which may have a prompt of its own."""
        shift = self.rows.shifts.pop(SIDES.index(side), None) if self.rows else None
        if shift is not None:
            count = len(shift.ids)
            read = torch.where(shift.own, shift.ids.to(input_ids.dtype), input_ids[:count])
            input_ids = torch.cat([read, input_ids[count:]])
            positions = torch.cat([shift.positions.to(positions.dtype), positions[count:]])
            context = get_forward_context()
            own = dict.fromkeys(self.layers[side], shift.slots)
            context.slot_mapping = {**context.slot_mapping, **own}
        hidden: Tensor = getattr(self, side)(input_ids, positions)
        return hidden

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Return logits in which only the token of each row is possible."""
        parts = torch.split(hidden_states, self.widths, -1)
        logits: list[Tensor | None] = [
            getattr(self, side).compute_logits(hidden.contiguous())
            for side, hidden in zip(SIDES, parts, strict=True)
        ]
        base, aligned = logits
        if base is None or aligned is None or self.rows is None:  # another rank draws
            return aligned
        return self.rows.decide(base, aligned)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the weights of both, which come one after the other; return their names."""
        loaded = set()
        for of_base, group in groupby(weights, lambda named: named[0].startswith(OF_BASE)):
            side: Side = "base" if of_base else "aligned"
            own = ((name.removeprefix(OF_BASE), weight) for name, weight in group)
            loaded |= {f"{side}.{name}" for name in getattr(self, side).load_weights(own)}
        return loaded


def shift_layers(attention: dict[str, Any], prefix: str) -> list[str]:
    """Let a side's attention layers be told what it reads; return their names."""
    names = [name for name in attention if name.startswith(f"{prefix}.")]
    for name in names:
        layer = attention[name]
        layer.attn_backend = shifted_backend(layer.attn_backend, SIDES.index(prefix.split(".")[-1]))
    return names


def build_side(vllm_config: Any, config: Any, prefix: str) -> Any:
    """Build one side as vLLM's own model, without weights.

    Raises:
        PairError: vLLM or this package knows no such model.
    """
    if config.model_type not in FAMILIES:
        raise PairError(
            f"A model of type {config.model_type!r} cannot be fused: known are "
            f"{', '.join(FAMILIES)}. Decode with engine='local'."
        )
    own = vllm_config.with_hf_config(config, [FAMILIES[config.model_type]])
    # What is compiled for one side names its layers: the other one must not find it in the cache.
    own.additional_config = {**(own.additional_config or {}), "baco_side": prefix}
    family, _ = ModelRegistry.resolve_model_cls(own.model_config.architectures, own.model_config)
    return family(vllm_config=own, prefix=prefix)
