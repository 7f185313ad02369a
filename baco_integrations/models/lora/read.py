"""Reading a LoRA adapter that PEFT has saved: what it changes in a model, tensor by tensor.

Plain LoRA on linear layers and embeddings, biases and whole modules can be switched by row; every
other kind is refused, most of them before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, NoReturn

import torch
from pydantic import BaseModel, Field
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ...core.errors import MissingExtraError, PairError
from ..files import ModelFiles
from ..loading import reading
from ..options import Side
from ..quantization import quiet_torchao
from .modules import LowRank, Own

WEIGHTS = "adapter_model.safetensors"
CARD = "baco.json"
"""The file in which `extract` describes an adapter that it has made."""
PREFIX = "base_model.model."
"""What PEFT puts before the names of modules."""
PARTS = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_B.bias": "more",
    "lora_embedding_A": "down",
    "lora_embedding_B": "up",
}
"""What a tensor is for its module, by how its name in PEFT's file ends."""
KNOWN_SETTINGS = {
    *("peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("task_type", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha"),
    *("lora_dropout", "bias", "use_rslora", "modules_to_save", "init_lora_weights"),
    *("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "megatron_core"),
    *("loftq_config", "eva_config", "runtime_config", "lora_bias", "ensure_weight_tying"),
}
"""Settings of LoRA that do not change a forward, or are read here. All others must be unset."""
KNOWN_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the model's own weights as they are."""
EXPERT_FIELDS = ("num_experts", "num_local_experts", "n_routed_experts")
ONLY_PLAIN = (
    "Only plain LoRA can be switched by row. Merge it into its model, and load the two models by "
    "ModelPair.from_pretrained."
)


def require_peft(feature: str) -> None:
    """Raise a `MissingExtraError` if PEFT, which `feature` needs, is not installed."""
    try:
        with quiet_torchao():  # which PEFT imports
            import peft  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(feature, "adapters") from error


def read_adapter_config(source: ModelFiles) -> Any:
    """Read an adapter's configuration, a `peft.LoraConfig`.

    Raises:
        MissingExtraError: PEFT is not installed.
        PairError: The configuration is damaged, or the adapter is of a kind that cannot be on for
            some rows of a batch and off for others.
    """
    require_peft("Reading an adapter")
    from peft import LoraConfig, PeftConfig

    with reading(source, "adapter configuration"):
        config: Any = PeftConfig.from_pretrained(str(source.folder), local_files_only=True)
    if not isinstance(config, LoraConfig):
        kind = getattr(config.peft_type, "value", None)
        raise PairError(f"{source.name} is an adapter of type {kind}. {ONLY_PLAIN}")
    fields, defaults = vars(config), vars(LoraConfig())
    unknown = [
        name for name in sorted(defaults.keys() - KNOWN_SETTINGS) if fields[name] != defaults[name]
    ]
    if config.init_lora_weights not in KNOWN_BEGINNINGS:
        unknown.append("init_lora_weights")
    if unknown:
        settings = ", ".join(f"{name}={fields[name]!r}" for name in unknown)
        raise PairError(f"{source.name} is an adapter with {settings}. {ONLY_PLAIN}")
    return config


class Card(BaseModel):
    """What `extract` says of its adapter; see the attributes of `ModelPair` with these names."""

    exact: Side | None = None
    error: Annotated[float, Field(ge=0)] | None = None


def read_card(source: ModelFiles) -> Card:
    """Read the card of an adapter; an empty one for an adapter that was trained.

    Raises:
        PairError: It is damaged.
    """
    file = source.folder / CARD
    try:
        return Card.model_validate_json(file.read_bytes() if file.is_file() else "{}", strict=True)
    except (OSError, ValueError) as error:
        raise PairError(
            f"{file} is not what `baco extract` writes. Make the adapter again."
        ) from error


def adapter_size(source: ModelFiles) -> int:
    """Count an adapter's numbers, from the header of its file."""
    with reading(source, "adapter"), safe_open(source.folder / WEIGHTS, "pt") as file:
        names = [name for name in file.keys() if ".base_layer." not in name]  # noqa: SIM118
        return sum(prod(file.get_slice(name).get_shape()) for name in names)


def read_changes(source: ModelFiles, config: Any, model: Any) -> dict[str, LowRank | Own]:
    """Read what an adapter changes in a model, by module, in the model's dtype and on its devices.

    Raises:
        PairError: The adapter is incomplete, or belongs to another model.
    """
    found: dict[str, dict[str, Tensor]] = {}
    with reading(source, "adapter"):  # only now does PEFT look at what its configuration says
        for key, tensor in load_file(source.folder / WEIGHTS).items():
            module, part = split_name(key)
            found.setdefault(module, {})[part] = tensor
        reader = AdapterReader(source.name, config, model)
        reader.require_targets(found)
        return {name: reader.change(name, parts) for name, parts in found.items()}


def split_name(key: str) -> tuple[str, str]:
    """Split a tensor's name in PEFT's file into the module and what the tensor is for it."""
    key = key.removeprefix(PREFIX)
    for ending, part in PARTS.items():
        if key.endswith(f".{ending}"):
            return key.removesuffix(f".{ending}"), part
    module, _, parameter = key.rpartition(".")
    if module.endswith(".base_layer") and parameter == "weight":
        parameter = "plain"  # PEFT saves the embeddings that it was trained on
    return module.removesuffix(".base_layer"), parameter


class AdapterReader:
    """Turns the tensors of an adapter into changes of a model's modules."""

    def __init__(self, adapter: str, config: Any, model: Any) -> None:
        text = model.config.get_text_config()
        self.adapter, self.config, self.dtype = adapter, config, model.dtype
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.mixture = any(getattr(text, name, None) for name in EXPERT_FIELDS)

    def require_targets(self, found: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Refuse tensors without a module, and targets of the configuration without tensors."""
        from peft.tuners.tuners_utils import check_target_module_exists

        for name in found.keys() - self.modules.keys():
            self.refuse(f"changes {name}, which the model does not have")
        for name, module in self.modules.items():
            complete = {"down", "up"} <= found.get(name, {}).keys()
            if complete or not isinstance(module, nn.Linear | nn.Embedding):
                continue
            if check_target_module_exists(self.config, name):
                self.refuse(f"names {name} as a target, but lacks weights for it")

    def change(self, name: str, parts: Mapping[str, Tensor]) -> LowRank | Own:
        """Return what the adapter changes in a module, given its tensors for it."""
        module = self.modules[name]
        low_rank = bool({"down", "up"} & parts.keys())
        if low_rank and not isinstance(module, nn.Linear | nn.Embedding):
            self.refuse(f"targets {name}, which is neither linear nor an embedding")
        if low_rank and self.mixture and ".layers." in name and "attn" not in name:
            self.refuse(f"targets {name}, a part of a mixture of experts")
        if low_rank or (isinstance(module, nn.Linear) and parts.keys() == {"bias"}):
            return self.low_rank(name, module, parts)
        parameters = dict(module.named_parameters(recurse=False))
        for key, tensor in parts.items():
            if key not in parameters or tensor.shape != parameters[key].shape:
                self.refuse(f"has {name}.{key} of shape {tuple(tensor.shape)}, unlike the model")
        return {key: tensor.to(parameters[key]) for key, tensor in parts.items()}

    def low_rank(self, name: str, module: Any, parts: Mapping[str, Tensor]) -> LowRank:
        """Return the change of a linear layer or an embedding."""
        linear = isinstance(module, nn.Linear)
        # Not the weight's shape, which quantisation hides.
        into = module.in_features if linear else module.num_embeddings
        out = module.out_features if linear else module.embedding_dim
        down, up = parts.get("down", torch.zeros(0, into)), parts.get("up", torch.zeros(out, 0))
        if down.shape != (len(down), into) or up.shape != (out, len(down)):
            shapes = f"{tuple(up.shape)} and {tuple(down.shape)}"
            self.refuse(f"has factors of shapes {shapes} for {name}, which is {out} by {into}")
        weight, trained = module.weight, parts.get("plain")
        if trained is not None and not (
            trained.shape == weight.shape and torch.equal(trained.to(weight), weight)
        ):
            self.refuse(f"was trained on another {name}, or resized it")
        # Sums and scaled factors are computed in at least float32.
        wide = torch.promote_types(self.dtype, torch.float32)
        scale, bias = self.scale(name, len(down)), torch.zeros((), dtype=wide)
        if "more" in parts:
            bias = bias + scale * parts["more"]
        if "bias" in parts:
            bias = bias + (parts["bias"].to(wide) - module.bias.cpu())
        place = {"device": weight.device, "dtype": self.dtype}
        return LowRank(
            down.to(**place),
            (up.to(wide) * scale).to(**place),
            bias.to(**place) if bias.dim() else None,
        )

    def scale(self, name: str, rank: int) -> float:
        """Return the factor of a module's low-rank change, which the configuration sets.

        Raises:
            PairError: `rank` is neither 0 nor the rank that the configuration has for the module.
        """
        from peft.utils.other import get_pattern_key

        config = self.config
        ranks, alphas = config.rank_pattern, config.alpha_pattern
        if rank and ranks.get(get_pattern_key([*ranks], name), config.r) != rank:
            self.refuse(f"has rank {rank} at {name}, which its configuration does not say")
        alpha: float = alphas.get(get_pattern_key([*alphas], name), config.lora_alpha)
        return alpha / max(rank**0.5 if config.use_rslora else rank, 1)

    def refuse(self, why: str) -> NoReturn:
        """Raise a `PairError` with what is wrong with the adapter."""
        raise PairError(
            f"{self.adapter} {why}. Choose the model that the adapter was made for, and the "
            "adapter as PEFT has saved it."
        )
