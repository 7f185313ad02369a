"""LoRA adapters from PEFT folders: what they change, tensor by tensor.

Plain LoRA on linear layers and embeddings, biases and whole modules can be switched by row; every
other kind is refused before a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn

from ...core.errors import MissingExtraError, PairError
from ..loading import ADAPTER, ModelFiles, reading
from ..options import SIDES
from ..quantization import quiet_torchao

if TYPE_CHECKING:
    from torch import Tensor

    from ...engines.local.shared_weights import LowRank, Own

CONFIG = ADAPTER
WEIGHTS = "adapter_model.safetensors"
CARD = "baco.json"
"""What `extract` says of an adapter that it made."""

_TOLD = ("exact", "error")
PREFIX = "base_model.model."
_FACTORS = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_B.bias": "more",
    "lora_embedding_A": "down",
    "lora_embedding_B": "up",
}
# Settings of LoRA that say nothing about a forward, or are read here. All others must be unset.
_KNOWN = {
    *("peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("task_type", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha"),
    *("lora_dropout", "bias", "use_rslora", "modules_to_save", "init_lora_weights"),
    *("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "megatron_core"),
    *("loftq_config", "eva_config", "runtime_config", "lora_bias", "ensure_weight_tying"),
}
# All others change the plain model's weights as well.
_INITIAL = (True, False, "gaussian", "eva", "orthogonal")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_ONLY = (
    "Only plain LoRA can be switched by row. Merge it into its model, and load the two models by "
    "ModelPair.from_pretrained."
)


def require_peft(feature: str) -> None:
    """Refuse what cannot be done without PEFT.

    Raises:
        MissingExtraError: PEFT is not installed.
    """
    try:
        with quiet_torchao():  # which PEFT imports
            import peft  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(feature, "adapters") from error


def read_adapter_config(source: ModelFiles) -> Any:
    """Read and check an adapter's configuration.

    Raises:
        MissingExtraError: PEFT is not installed.
        PairError: The adapter cannot be switched by row.
    """
    require_peft("Reading an adapter")
    from peft import LoraConfig, PeftConfig

    with reading(source, "adapter configuration"):
        config: Any = PeftConfig.from_pretrained(str(source.folder), local_files_only=True)
    if not isinstance(config, LoraConfig):
        kind = getattr(config.peft_type, "value", None)
        raise PairError(f"{source.name} is an adapter of type {kind}. {_ONLY}")
    plain = vars(LoraConfig())
    unknown = [
        name for name in sorted(plain.keys() - _KNOWN) if getattr(config, name) != plain[name]
    ]
    if config.init_lora_weights not in _INITIAL:
        unknown.append("init_lora_weights")
    if unknown:
        told = ", ".join(f"{name}={getattr(config, name)!r}" for name in unknown)
        raise PairError(f"{source.name} is an adapter with {told}. {_ONLY}")
    return config


def read_card(source: ModelFiles) -> dict[str, Any]:
    """Return what `extract` says of the adapter; nothing of one that was trained.

    Raises:
        PairError: It is damaged.
    """
    file = source.folder / CARD
    with reading(source, CARD):
        card: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    exact, error = (card.get(name) if isinstance(card, dict) else card for name in _TOLD)
    measured = error is None or (isinstance(error, int | float) and error >= 0)
    if exact not in (None, *SIDES) or not measured:
        raise PairError(f"{file} is not what `baco extract` writes. Make the adapter again.")
    return card


def adapter_size(source: ModelFiles) -> int:
    """Count an adapter's numbers, from the header of its file."""
    from safetensors import safe_open

    with reading(source, "adapter"), safe_open(source.folder / WEIGHTS, "pt") as file:
        names = [*file.keys()]
        shapes = [file.get_slice(name).get_shape() for name in names if ".base_layer." not in name]
    return sum(map(prod, shapes))


def read_changes(source: ModelFiles, config: Any, model: Any) -> dict[str, LowRank | Own]:
    """Read what an adapter changes in a model, in the model's dtype and on its devices.

    Raises:
        PairError: The adapter is incomplete, or belongs to another model.
    """
    from safetensors.torch import load_file

    found: dict[str, dict[str, Tensor]] = {}
    with reading(source, "adapter"):  # PEFT looks at what its configuration says only now
        for key, tensor in load_file(source.folder / WEIGHTS).items():
            module, part = _place(key)
            found.setdefault(module, {})[part] = tensor
        reader = _Reader(source.name, config, model)
        reader.require_targets(found)
        return {name: reader.change(name, parts) for name, parts in found.items()}


def _place(key: str) -> tuple[str, str]:
    """Split the name of an adapter's tensor into the module and which part of it this is."""
    key = key.removeprefix(PREFIX)
    for ending, part in _FACTORS.items():
        if key.endswith(f".{ending}"):
            return key.removesuffix(f".{ending}"), part
    module, _, parameter = key.rpartition(".")
    if module.endswith(".base_layer") and parameter == "weight":
        parameter = "plain"  # PEFT saves the embeddings that it was trained on
    return module.removesuffix(".base_layer"), parameter


class _Reader:
    """Turns the tensors of one adapter into changes of one model's modules."""

    def __init__(self, adapter: str, config: Any, model: Any) -> None:
        text = model.config.get_text_config()
        self.adapter, self.config, self.dtype = adapter, config, model.dtype
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.mixture = any(getattr(text, name, None) for name in _EXPERTS)

    def require_targets(self, found: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Refuse targets without tensors, and tensors without modules."""
        from peft.tuners.tuners_utils import check_target_module_exists
        from torch.nn import Embedding, Linear

        for name in found.keys() - self.modules.keys():
            self.refuse(f"changes {name}, which the model does not have")
        for name, module in self.modules.items():
            complete = {"down", "up"} <= found.get(name, {}).keys()
            if complete or not isinstance(module, Linear | Embedding):
                continue
            if check_target_module_exists(self.config, name):
                self.refuse(f"names {name} as a target, but lacks weights for it")

    def change(self, name: str, parts: dict[str, Tensor]) -> LowRank | Own:
        """Return what the adapter changes in a module."""
        from torch.nn import Embedding, Linear

        plain = self.modules[name]
        low_rank = bool({"down", "up"} & parts.keys())
        if low_rank and not isinstance(plain, Linear | Embedding):
            self.refuse(f"targets {name}, which is neither linear nor an embedding")
        if low_rank and self.mixture and ".layers." in name and "attn" not in name:
            self.refuse(f"targets {name}, a part of a mixture of experts")
        if low_rank or (isinstance(plain, Linear) and parts.keys() == {"bias"}):
            return self._low_rank(name, plain, parts)
        return self._own(name, plain, parts)

    def _low_rank(self, name: str, plain: Any, parts: Mapping[str, Tensor]) -> LowRank:
        import torch

        from ...engines.local.shared_weights import LowRank

        into, out = _shape(plain)
        down, up = parts.get("down", torch.zeros(0, into)), parts.get("up", torch.zeros(out, 0))
        if down.shape != (len(down), into) or up.shape != (out, len(down)):
            shapes = f"{tuple(up.shape)} and {tuple(down.shape)}"
            self.refuse(f"has factors of shapes {shapes} for {name}, which is {out} by {into}")
        weight = plain.weight
        if "plain" in parts and not _same(parts["plain"], weight):
            self.refuse(f"was trained on another {name}, or resized it")
        # What is added up is added up in at least float32.
        wide = torch.promote_types(self.dtype, torch.float32)
        scale, more = self._scale(name, len(down)), torch.zeros((), dtype=wide)
        if "more" in parts:
            more = more + scale * parts["more"]
        if "bias" in parts:
            more = more + (parts["bias"].to(wide) - plain.bias.cpu())
        place = {"device": weight.device, "dtype": self.dtype}
        return LowRank(
            down.to(**place),
            (up.to(wide) * scale).to(**place),
            more.to(**place) if more.dim() else None,
        )

    def _scale(self, name: str, rank: int) -> float:
        from peft.utils.other import get_pattern_key

        def told(pattern: Mapping[str, int], default: int) -> int:
            return pattern.get(get_pattern_key([*pattern], name), default)

        config = self.config
        if rank and told(config.rank_pattern, config.r) != rank:
            self.refuse(f"has rank {rank} at {name}, which its configuration does not say")
        alpha = told(config.alpha_pattern, config.lora_alpha)
        return alpha / max(rank**0.5 if config.use_rslora else rank, 1)

    def _own(self, name: str, plain: Any, parts: Mapping[str, Tensor]) -> Own:
        parameters = dict(plain.named_parameters(recurse=False))
        for key, tensor in parts.items():
            if key not in parameters or tensor.shape != parameters[key].shape:
                self.refuse(f"has {name}.{key} of shape {tuple(tensor.shape)}, unlike the model")
        return {key: tensor.to(parameters[key]) for key, tensor in parts.items()}

    def refuse(self, why: str) -> NoReturn:
        raise PairError(
            f"{self.adapter} {why}. Choose the model that the adapter was made for, and the "
            "adapter as PEFT has saved it."
        )


def _shape(plain: Any) -> tuple[int, int]:
    """Return how many numbers go into a module and come out; quantised weights hide it."""
    if hasattr(plain, "in_features"):
        return plain.in_features, plain.out_features
    return plain.num_embeddings, plain.embedding_dim


def _same(saved: Tensor, weight: Tensor) -> bool:
    import torch

    return saved.shape == weight.shape and torch.equal(saved.to(weight), weight)
