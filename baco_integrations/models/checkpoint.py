"""One model as files: its configuration is read and checked first, its weights last."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedConfig,
)

from ..core.errors import ModelNotFoundError, PairError, ParameterError
from .architecture import require_decodable, require_plausible, require_sizes
from .files import ModelFiles, count_layers, read_headers
from .gguf import end_ids
from .loading import Bar, reading
from .memory import build_empty, count_parameters, readable
from .options import LoadOptions, plain
from .quantization import quantizer

_LOG = logging.getLogger(__name__)
SHOWN = 3
"""How many names of weights a message lists."""


class Checkpoint:
    """A model's files, its configuration, and how it is to be loaded.

    Args:
        files: Where the files are.
        options: How to load this model; of a pair's options, those of its side.

    Attributes:
        config: The model's configuration.

    Raises:
        PairError: The configuration is damaged, or asks for what no model has.
    """

    def __init__(self, files: ModelFiles, options: LoadOptions) -> None:
        self.files, self.options = files, options
        with reading(files, "configuration"):
            fields, _ = PreTrainedConfig.get_config_dict(files.folder, **local(files, options))
        # Before a configuration is made of them: some kinds list all of their layers.
        require_plausible(files.config, fields)
        with reading(files, "configuration"):
            self.config: Any = (
                # Reading a GGUF file takes seconds; what it holds is dequantised to float32.
                AutoConfig.for_model(**fields | {"dtype": "float32"})
                if files.gguf
                else AutoConfig.from_pretrained(files.folder, **local(files, options))
            )
        require_sizes(files.config, self.config)

    @property
    def key(self) -> tuple[object, ...]:
        """Folder, revision and options of loading, which only equal weights in memory share."""
        return (*self.files.key, *self.options.weights_key())

    @property
    def stored_quantization(self) -> Any:
        """How the stored weights are quantised, as the configuration says; None if they are not."""
        return getattr(self.config, "quantization_config", None)

    def require_decodable(self) -> None:
        """Raise a `PairError` if the model cannot be decoded."""
        require_decodable(self.files.name, self.config)

    def quantizer(self) -> Any:
        """Make what transformers quantises the weights with; see `quantization.quantizer`.

        Of a GGUF file it is what dequantises them.
        """
        name, asked = self.files.name, self.options.quantization
        if self.files.gguf and asked is not None:
            remedy = f"Save it as a folder first: baco dequantize {name} FOLDER."
            allowed = f"left out for {name}, a GGUF file"
            raise ParameterError("quantization", allowed, asked, remedy)
        if self.files.gguf:
            return GgufConfig(dequantize=True)
        return quantizer(self.files.name, self.config, self.options)

    def empty_model(self) -> Any:
        """Build the model's modules on torch's ``meta`` device, without weights."""
        with reading(self.files, "configuration"):
            return build_empty(self.config, self.options.trust_remote_code)

    def outline(self) -> ModelOutline:
        """Return what is known of the model without its modules."""
        return ModelOutline(self.config, load_generation_config(self.files))

    def load_bytes(self) -> int:
        """Return the bytes that the model will take once loaded."""
        quantization = plain(self.options.quantization or self.stored_quantization)
        parameters = count_parameters(self.empty_model())
        return parameters.bytes(self.options.dtype_of(self.config), quantization)

    def notes(self) -> list[str]:
        """Return what is to be known of how the weights are loaded, as sentences."""
        if not self.files.gguf:
            return []
        stored, loaded = self.files.path.stat().st_size, self.load_bytes()
        return [
            f"{self.files.gguf} is dequantised when it is loaded: {readable(stored)} become "
            f"{readable(loaded)}. A folder that `baco dequantize` saves loads faster."
        ]

    def require_stored(self) -> None:
        """Raise a `PairError` if the stored weights have other shapes than the configuration asks.

        Nothing is compared where weights are missing, quantised, in a GGUF file, or of a model with
        remote code.
        """
        if self.files.gguf:
            return
        try:
            stored = read_headers(self.files)
        except ModelNotFoundError:
            return
        text = self.config.get_text_config()
        layers, asked = count_layers(stored), getattr(text, "num_hidden_layers", 0)
        if layers is not None and asked > layers:
            raise PairError(
                f"{self.files.config} says num_hidden_layers is {asked}, but the weights "
                f"beside it have {layers}. Fetch the files again, or check that they belong "
                "together."
            )
        if stored and not self.stored_quantization and not self.options.trust_remote_code:
            others = [
                (name, stored[name].shape, tuple(parameter.shape))
                for name, parameter in sorted(self.empty_model().named_parameters())
                # Some are transposed when they are read.
                if name in stored and sorted(stored[name].shape) != sorted(parameter.shape)
            ]
            require_fit(self.files, text, others)

    def load(self, quantizer: Any = None, bar: Bar | None = None) -> Any:
        """Read the weights onto their device; return the model, ready for inference.

        Args:
            quantizer: What `quantizer` has made.
            bar: Shows how many weights are read.

        Raises:
            PairError: The weights are damaged, incomplete, of another model, or fit no memory.
        """
        self.require_stored()
        load_generation_config(self.files)  # transformers would pass over one that is damaged
        read: Any = AutoModelForCausalLM.from_pretrained
        optional = {
            "attn_implementation": self.options.attn_implementation,
            "quantization_config": quantizer,
        }
        if self.files.gguf:
            _LOG.info("Dequantising %s", self.files.path)
        with reading(self.files, "weights", bar):
            model, info = read(
                self.files.folder,
                config=self.config,
                dtype=self.options.dtype,
                device_map=self.options.placement,
                use_safetensors=not self.files.gguf,
                ignore_mismatched_sizes=True,  # `require_fit` reports them
                output_loading_info=True,
                **local(self.files, self.options),
                **{name: value for name, value in optional.items() if value is not None},
            )
        # Of several towers only one is read, and quantisers store tensors of their own.
        whole = self.config.get_text_config() is self.config and not self.stored_quantization
        unused = info["unexpected_keys"] if whole else ()
        # transformers would go on with random numbers in place of what is missing.
        others = sorted(info["mismatched_keys"])
        require_fit(self.files, self.config, others, info["missing_keys"], unused)
        if self.files.gguf:
            model.generation_config.eos_token_id = end_ids(self.files.path) or None
        return model.eval().requires_grad_(False)


@dataclass
class ModelOutline:
    """A model that is loaded elsewhere: its settings, and no modules.

    Attributes:
        config: Its configuration.
        generation_config: Its generation settings, if it has any.
        device: Where its weights are.
    """

    config: Any
    generation_config: Any
    device: str = "elsewhere"

    def eval(self) -> ModelOutline:
        """Return the outline, as there is nothing to put into evaluation mode."""
        return self

    def requires_grad_(self, requires_grad: bool) -> ModelOutline:
        """Return the outline, as it has no gradients."""
        return self


def require_fit(
    files: ModelFiles,
    config: Any,
    others: Iterable[tuple[str, Collection[int], Collection[int]]],
    missing: Collection[str] = (),
    unused: Collection[str] = (),
) -> None:
    """Raise a `PairError` that names some of the weights that do not fit their configuration.

    `others` are weights of other shapes: (name, stored shape, expected shape); `missing` ones are
    needed but not stored, and `unused` ones are stored but not needed.
    """
    sizes = {field: value for field, value in config.to_dict().items() if type(value) is int}
    wrong = []
    for name, stored, made in others:
        fields = [field for field, size in sizes.items() if size in {*made} - {*stored}]
        of = f", by {' or '.join(fields)}" if fields else ""
        wrong.append(f"{name}: {tuple(stored)} instead of {tuple(made)}{of}")
    kinds = {
        f"has {len(wrong)} of other shapes": wrong,
        f"lacks {len(missing)}": sorted(missing),
        f"has {len(unused)} that would be left unused": sorted(unused),
    }
    problems = []
    for kind, names in kinds.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        problems += [f"{kind} ({', '.join(names[:SHOWN])}{more})"] if names else []
    if problems:
        raise PairError(
            f"The weights of {files.name} are not what {files.config} asks for: it "
            f"{'; it '.join(problems)}. Fetch the files again, or check that they belong together."
        )


def load_tokenizer(files: ModelFiles, options: LoadOptions, config: Any = None) -> Any:
    """Read a tokenizer; a folder without a model needs the `config` of the model that it is for."""
    # transformers would read tokenizer files that lie beside a GGUF file instead of it.
    alone = TemporaryDirectory() if files.gguf else nullcontext(files.folder)
    with reading(files, "tokenizer"), alone as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, **local(files, options))
        tokenizer.name_or_path = str(files.path)
        float(tokenizer.model_max_length)  # what the length of every prompt is compared with
        return tokenizer


def load_generation_config(files: ModelFiles) -> Any:
    """Read a model's generation settings; None if it has none."""
    if files.gguf:
        settings: Any = GenerationConfig
        return settings(eos_token_id=end_ids(files.path))
    if not (files.folder / "generation_config.json").is_file():
        return None
    with reading(files, "generation settings"):
        return GenerationConfig.from_pretrained(files.folder, local_files_only=True)


def local(files: ModelFiles, options: LoadOptions) -> dict[str, Any]:
    """Return the arguments with which transformers reads local files only, or one GGUF file."""
    gguf = {"gguf_file": str(files.path)} if files.gguf else {}
    return {"local_files_only": True, "trust_remote_code": options.trust_remote_code, **gguf}
