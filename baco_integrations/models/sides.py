"""The two sides of a pair, loaded from two folders; equal weights are in memory once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ParameterError
from ..core.registry import Registry
from ..text.compatibility import compare
from ..tiny import WEIGHTS as TINY
from .checkpoint import Checkpoint, load_tokenizer
from .files import ModelFiles, tokenizer_fingerprint
from .hub import fetch_weights, locate
from .loading import progress_bars
from .memory import require_memory, target_devices
from .options import SIDES, LoadOptions, Side, plain
from .presets import PRESETS

if TYPE_CHECKING:
    from .lora.modules import SwitchableLora

MODELS: Registry[Any] = Registry()
"""The models in memory, by `Checkpoint.key`."""


@dataclass(frozen=True)
class Sides:
    """What a `ModelPair` is made of; the attributes not described here are those of the pair.

    Attributes:
        models: The model of each side.
        tokenizers: The tokenizer of each side.
        notes: Sentences to add to the pair's notes.
        folders: Where an engine that loads the weights itself finds them; else empty.
    """

    models: dict[Side, Any]
    tokenizers: dict[Side, Any]
    name: str
    identity: dict[str, Any]
    notes: tuple[str, ...] = ()
    lora: SwitchableLora | None = None
    exact: Side | None = None
    error: float | None = None
    folders: dict[Side, Path] = field(default_factory=dict)


def locate_sides(
    base: str | Path, aligned: str | Path, options: LoadOptions
) -> tuple[ModelFiles, ModelFiles]:
    """Find the files of two models, once it is known that their devices are there."""
    for side in SIDES:
        target_devices(options.of(side).placement)
    return locate(base, "base", options), locate(aligned, "aligned", options)


def load_tokenizers(files: Mapping[Side, ModelFiles], options: LoadOptions) -> dict[Side, Any]:
    """Read the tokenizers of both sides; sides with equal files get one object."""
    loaded: dict[str, Any] = {}
    tokenizers: dict[Side, Any] = {}
    for side, each in files.items():
        key = repr(each.key) if each.gguf else tokenizer_fingerprint(each.folder)
        if key not in loaded:
            loaded[key] = load_tokenizer(each, options)
        tokenizers[side] = loaded[key]
    return tokenizers


def load_sides(base: ModelFiles, aligned: ModelFiles, options: LoadOptions) -> Sides:
    """Load base and aligned; what can be checked without weights is checked before they are.

    For an engine that loads the weights itself, the models have none.
    """
    files: dict[Side, ModelFiles] = {"base": base, "aligned": aligned}
    checkpoints = {side: Checkpoint(each, options.of(side)) for side, each in files.items()}
    for each in checkpoints.values():
        each.require_decodable()
        if each.files.gguf and options.engine != "local":
            remedy = f"Save it as a folder first: baco dequantize {each.files.name} FOLDER."
            raise ParameterError("engine", "'local' for a GGUF file", options.engine, remedy)
    tokenizers = load_tokenizers(files, options)
    compare(tokenizers["base"], tokenizers["aligned"]).require()
    quantizers = {side: each.quantizer() for side, each in checkpoints.items()}
    name = pair_name(base, aligned)
    local = options.engine == "local"
    if options.check_memory and local:
        needed: Counter[frozenset[str]] = Counter()
        for each in {each.key: each for each in checkpoints.values()}.values():
            devices = target_devices(each.options.placement)
            needed[devices] += 0 if each.key in MODELS else each.load_bytes()
        for devices, size in needed.items():
            require_memory(size, devices, name)
    for source in files.values():
        fetch_weights(source, options)
    models = {}
    with progress_bars(options) as add_bar:
        for side, each in checkpoints.items() if local else ():
            load = partial(each.load, quantizers[side], add_bar(f"Loading {each.files.name}"))
            models[side] = MODELS.get(each.key, load)
    if not local:
        outlines = {each.key: each.outline() for each in checkpoints.values()}
        models = {side: outlines[each.key] for side, each in checkpoints.items()}
    quantizations = {s: plain(each.options.quantization) for s, each in checkpoints.items()}
    identity: dict[str, Any] = {
        **{side: each.label for side, each in files.items()},
        **{f"{side}_revision": each.revision for side, each in files.items()},
        "dtype": options.dtype,
        **{f"{side}_quantization": quantizations[side] for side in SIDES},
    }
    notes = dict.fromkeys(note for each in checkpoints.values() for note in each.notes())
    folders = {} if local else {side: each.folder for side, each in files.items()}
    return Sides(models, tokenizers, name, identity, tuple(notes), folders=folders)


def pair_name(base: ModelFiles, aligned: ModelFiles) -> str:
    """Return the name of the embedded pair or of the preset that two models are, or make one."""
    if base.key == aligned.key:
        return base.name
    if base.folder == TINY / "base" and aligned.folder == TINY / "aligned":
        return "tiny"
    for known in PRESETS.values():
        if (known.base, known.aligned) == (base.name, aligned.name):
            return known.name
    return f"{base.name}|{aligned.name}"
