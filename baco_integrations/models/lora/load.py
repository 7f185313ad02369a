"""The two sides of a pair, loaded from one model and a LoRA adapter: most weights serve both."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ...core.errors import ParameterError
from ...core.registry import Registry
from ...text.compatibility import compare
from ..checkpoint import Checkpoint, load_generation_config, load_tokenizer
from ..files import ModelFiles
from ..hub import ADAPTER_CONFIG, fetch_weights, locate
from ..loading import progress_bars
from ..memory import WIDTHS, require_memory, target_devices
from ..options import SIDES, LoadOptions, Side, check_exact, plain
from ..sides import Sides
from .modules import SwitchableLora, SwitchedModel
from .read import WEIGHTS, adapter_size, read_adapter_config, read_card, read_changes

LORAS: Registry[SwitchableLora] = Registry()
"""The models with adapters in memory."""


class AdapterFiles(NamedTuple):
    """A model and an adapter; `exact` and `error` are those of the `ModelPair`."""

    model: ModelFiles
    adapter: ModelFiles
    exact: Side
    error: float | None


def locate_adapter(
    model: str | Path, adapter: str | Path, exact: Side | None, options: LoadOptions
) -> AdapterFiles:
    """Find the files of a model and an adapter, and which side the model is."""
    if exact is not None:
        check_exact(exact)
    target_devices(options.placement)
    adapter_files = locate(adapter, other_side(exact or "base"), options, ADAPTER_CONFIG)
    card = read_card(adapter_files)
    if exact is not None and card.exact not in (None, exact):
        allowed = f"{card.exact!r}, as {adapter_files.name} says"
        raise ParameterError("exact", allowed, exact, "Leave it out.")
    chosen = exact or card.exact or "base"
    return AdapterFiles(locate(model, chosen, options), adapter_files, chosen, card.error)


def load_adapter_sides(files: AdapterFiles, options: LoadOptions) -> Sides:
    """Load a model and its adapter; the two sides are the model with the adapter off and on."""
    model, adapter, exact, error = files
    other = other_side(exact)
    checkpoint = Checkpoint(model, options.of(exact))
    checkpoint.require_decodable()
    lora_config = read_adapter_config(adapter)
    has_tokenizer = (adapter.folder / "tokenizer_config.json").is_file()
    own = adapter if has_tokenizer else model
    tokenizers = {
        exact: load_tokenizer(model, options),
        other: load_tokenizer(own, options, checkpoint.config),
    }
    compare(tokenizers[exact], tokenizers[other]).require()
    lora = load_lora(checkpoint, adapter, lora_config)
    settings = load_generation_config(adapter)
    labels = {exact: model.label, other: f"{model.label}+{adapter.label}"}
    revisions = {exact: model.revision, other: f"{model.revision}+{adapter.revision}"}
    notes = checkpoint.notes()
    if error is not None or exact == "aligned":
        missing = "" if error is None else f", {error:.0%} of the difference left out"
        notes += [f"The {other} model is approximate: {exact} with a low-rank adapter{missing}."]
    if not has_tokenizer:
        notes += [f"The adapter has no tokenizer, so {other} has that of the {exact} model."]
    return Sides(
        models={exact: SwitchedModel(lora, False), other: SwitchedModel(lora, True, settings)},
        tokenizers=tokenizers,
        name=f"{model.name}+{adapter.name}",
        identity={
            **{side: labels[side] for side in SIDES},
            **{f"{side}_revision": revisions[side] for side in SIDES},
            "dtype": options.dtype,
            "quantization": plain(checkpoint.options.quantization),
        },
        notes=tuple(notes),
        lora=lora,
        exact=exact,
        error=error,
    )


def load_lora(checkpoint: Checkpoint, adapter: ModelFiles, config: Any) -> SwitchableLora:
    """Load a model with an adapter, unless it is in memory; `config` is the adapter's."""
    options, model = checkpoint.options, checkpoint.files
    quantizer = checkpoint.quantizer()
    fetch_weights(adapter, options, WEIGHTS)
    key = (*checkpoint.key, *adapter.key)
    if options.check_memory and key not in LORAS:
        width = WIDTHS.get(options.dtype_of(checkpoint.config), 4.0)
        needed = checkpoint.load_bytes() + round(adapter_size(adapter) * width)
        devices = target_devices(options.placement)
        require_memory(needed, devices, f"{model.name} with {adapter.name}")
    fetch_weights(model, options)

    def load() -> SwitchableLora:
        with progress_bars(options) as add_bar:
            loaded = checkpoint.load(quantizer, add_bar(f"Loading {model.name}"))
        return SwitchableLora(loaded, read_changes(adapter, config, loaded))

    return LORAS.get(key, load)


def other_side(side: Side) -> Side:
    """Return the side that is not this one."""
    return "base" if side == "aligned" else "aligned"
