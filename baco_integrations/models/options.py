"""What can be asked of loading a pair, checked before anything is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ..core.errors import ParameterError, shorten
from ..core.settings import Checked, param
from ..text.prompts import check_base_prompt

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}
SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")
WORDS = ("4bit", "8bit")
Side = Literal["base", "aligned"]
PairKind = Literal["two-models", "adapter", "one-model"]
"""What the sides of a pair are: two models, one with and without an adapter, or one as it is."""
ONE_MODEL_PROMPT = "qa"
"""The base prompt of a pair of one model, where none is asked for."""
SIDES: tuple[Side, Side] = ("base", "aligned")


def check_exact(exact: object) -> None:
    """Refuse what is no side of a pair.

    Raises:
        ParameterError: It is neither ``base`` nor ``aligned``.
    """
    if not (isinstance(exact, str) and exact in SIDES):
        remedy = "It is the side that stays as it is; the other is approximated."
        raise ParameterError("exact", "'base' or 'aligned'", exact, remedy)


def device_name(device: Any) -> str:
    """Name one device in one way, whether it came as a number, a string or torch's own object."""
    import torch

    place = torch.device(device)
    return f"cuda:{place.index or 0}" if place.type == "cuda" else str(place)


def as_dtype(value: object) -> str:
    """Name a dtype in one way, whether it came as a name, a short name or torch's own object."""
    name = value if isinstance(value, str) else shorten(value).removeprefix("torch.")
    name = _SHORT.get(name, name)
    if name not in DTYPES:
        raise ValueError
    return name


def as_device_map(value: Any) -> object:
    """Name devices in one way, those of both sides or common ones.

    A GPU that is missing shows when memory is counted.
    """
    if isinstance(value, Mapping) and not value.keys().isdisjoint(SIDES):
        if not value.keys() <= {*SIDES}:
            raise ValueError
        return {side: as_placement(value.get(side)) for side in SIDES}
    return as_placement(value)


def as_placement(value: Any) -> object:
    """Name in one way where one model goes: a device, a way to spread it, or devices by module."""
    if value is None or (isinstance(value, str) and value in SPREAD):
        return value
    try:
        if isinstance(value, Mapping):
            return {module: device_name(device) for module, device in value.items()}
        return device_name(value)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError from error


def check_quantization(value: object) -> object:
    """Return one of `WORDS`, or a config that can be written as plain data."""
    if value is None or (isinstance(value, str) and value in WORDS):
        return value
    if not isinstance(value, str):
        with suppress(Exception):  # data that holds itself has no plain form
            if isinstance(plain(value), dict):
                return value
    raise ValueError


def plain(value: Any) -> Any:
    """Return a quantisation as plain data; equal quantisations give equal data.

    Objects whose ``repr`` may hold an address become their type's name and their attributes.
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    kind: Any = type(value)
    if is_dataclass(kind) or kind.__repr__ is object.__repr__:
        return [kind.__qualname__, plain(getattr(value, "__dict__", repr(value)))]
    return repr(value)


def check_template_kwargs(value: object) -> object:
    """Return the variables of a chat template.

    Raises:
        ValueError: They are no dict with string keys, or have no ``repr``, which the pair's key
            is made of.
    """
    try:
        named = isinstance(value, dict) and all(isinstance(name, str) for name in value)
        repr(value)
    except Exception:  # It is nested too deeply, or cannot be shown.
        named = False
    if not named:
        raise ValueError
    return value


def check_engine_options(value: object) -> object:
    """Return the arguments of an engine, which the command line gives as JSON.

    Raises:
        ValueError: They are no dict with string keys and plain values.
    """
    try:
        options = json.loads(value) if isinstance(value, str) else value
        json.dumps(options)
    except TypeError as error:
        raise ValueError from error
    if not (isinstance(options, dict) and all(isinstance(name, str) for name in options)):
        raise ValueError
    return options


Quantization = Annotated[Any, BeforeValidator(check_quantization)]
_QUANTIZATION = (
    "'4bit', '8bit', a quantisation config of transformers, or its dict",
    "'8bit' works on every device, '4bit' on CUDA.",
)
_REVISION = ("the name of a branch or tag, or a commit hash", "Leave it out for the newest.")
_FLAG = "True or False"


class LoadOptions(Checked):
    """How the models of a pair are loaded; everything has a default.

    Raises:
        ParameterError: A value is not allowed; raised when the object is made.
    """

    dtype: Annotated[str, BeforeValidator(as_dtype)] = param(
        "auto", f"one of {', '.join(DTYPES)}", "'auto' keeps the checkpoint's own.", names=DTYPES
    )
    """Number format of the weights; 'auto' keeps the checkpoint's own, which is bfloat16 for most
    models; a GGUF file's become float32."""
    device_map: Annotated[Any, BeforeValidator(as_device_map)] = param(
        None,
        f"a device such as 'cpu' or 'cuda:1', one of {', '.join(SPREAD)}, a dict from modules to "
        "devices, or a dict from base and aligned to one of these",
        "Leave it out for the first GPU, or the CPU if there is none.",
        unset="the first GPU, or the CPU",
    )
    """Where the models go: 'cpu', 'cuda:1', 'auto', ... 'mps', an Apple GPU, is untested."""
    attn_implementation: Literal["sdpa", "eager"] | None = param(
        None,
        "'sdpa' or 'eager'",
        "Flash attention takes no per-row masks, which decoding rows of different ages needs.",
        unset="what transformers prefers of the two",
    )
    """How attention is computed."""
    quantization: Quantization = param(None, *_QUANTIZATION, unset="as they are", names=WORDS)
    """How linear layers are stored: '8bit' in int8 with a scale for each output, by torchao, on any
    device; '4bit' in nf4 with double quantisation, by bitsandbytes, on CUDA only. Embeddings,
    output layers and norms stay as they are."""
    base_quantization: Quantization = param(
        None, *_QUANTIZATION, unset="the common one", names=WORDS
    )
    """The base model's, if it differs."""
    aligned_quantization: Quantization = param(
        None, *_QUANTIZATION, unset="the common one", names=WORDS
    )
    """The aligned model's, if it differs."""
    revision: str | None = param(None, *_REVISION, unset="the newest")
    """Branch, tag or commit of both models on the hub."""
    base_revision: str | None = param(None, *_REVISION, unset="the common one")
    """The base model's, if it differs."""
    aligned_revision: str | None = param(None, *_REVISION, unset="the common one")
    """The aligned model's, if it differs."""
    # Libraries of HTTP show a token that cannot stand in a header, such as one with a line break.
    token: Annotated[str, Field(pattern="^[!-~]*$")] | bool | None = param(
        None,
        "visible ASCII text, True, False or None",
        "Pass it without spaces.",
        unset="the stored one, where it is needed",
        secret=True,
        repr=False,
    )
    """A token for the hub, or True for the one stored at login. It is never shown."""
    local_files_only: bool = param(False, _FLAG, "True stays off the network.")
    """Whether only files already on this machine may be used."""
    trust_remote_code: bool = param(False, _FLAG, "True runs code that comes with the model.")
    """Whether code that comes with a model may run."""
    base_prompt: Annotated[Any, AfterValidator(check_base_prompt)] = param(
        "qa",
        "one of plain, qa, urial, chat_template, or a function from messages to text",
        "The default is 'qa'.",
        names=("qa", "plain", "urial", "chat_template"),
    )
    """How the base model is shown a conversation: 'qa', 'plain', 'urial' or 'chat_template'."""
    template_kwargs: Annotated[dict[str, Any], BeforeValidator(check_template_kwargs)] = param(
        {},
        "a dict of template variables by their names",
        "For example {'enable_thinking': False}.",
        secret=True,
    )
    """Variables for the aligned model's chat template."""
    progress: bool | None = param(
        None, "True, False or None", "None shows it on a terminal.", unset="on a terminal only"
    )
    """Whether progress is shown."""
    check_memory: bool = param(True, _FLAG, "False loads whatever the size.")
    """Whether a pair that seems too large is refused before loading."""
    engine: Literal["local", "vllm"] = param(
        "local",
        "'local' or 'vllm'",
        "'vllm' takes the extra vllm.",
        names=("local", "vllm"),
    )
    """What decodes the pair: 'local', the models as transformers loads them, or 'vllm', both inside
    an engine of vLLM's, which loads the weights when the pair is first used."""
    engine_options: Annotated[dict[str, Any], BeforeValidator(check_engine_options)] = param(
        {},
        "a dict of arguments of vLLM's engine by their names, or one as JSON",
        "For example {'tensor_parallel_size': 2}.",
    )
    """Arguments of vLLM's engine, such as tensor_parallel_size or gpu_memory_utilization."""

    @model_validator(mode="after")
    def _check_engine(self) -> LoadOptions:
        local = ("device_map", "attn_implementation", "quantization")
        sides = ("base_quantization", "aligned_quantization")
        refused = (*local, *sides) if self.engine == "vllm" else ("engine_options",)
        for name in refused:
            if value := getattr(self, name):
                raise ParameterError(
                    name,
                    f"left out where engine is {self.engine!r}",
                    value,
                    "vLLM places models and weights in its own way: see engine_options.",
                )
        return self

    @property
    def placement(self) -> Any:
        """The device map of one side, chosen if none was given."""
        import torch

        chosen = "cuda:0" if torch.cuda.is_available() else "cpu"
        return chosen if self.device_map is None else self.device_map

    def dtype_of(self, config: Any) -> str:
        """Name the dtype that a model with this configuration gets."""
        return str(config.dtype).removeprefix("torch.") if self.dtype == "auto" else self.dtype

    def of(self, side: Side) -> LoadOptions:
        """Return the settings of one model: those of its own stand before the common ones."""
        names = ("quantization", "revision")
        own = {name: getattr(self, f"{side}_{name}") for name in names}
        own = {name: value for name, value in own.items() if value is not None}
        if isinstance(self.device_map, dict) and self.device_map.keys() == {*SIDES}:
            own["device_map"] = self.device_map[side]
        return self.replace(**own)

    def weights_key(self) -> tuple[str, ...]:
        """Return a key of the settings that affect one model's weights in memory; see `of`."""
        chosen = (
            self.dtype,
            self.placement,
            self.attn_implementation,
            plain(self.quantization),
            self.trust_remote_code,
        )
        return tuple(map(repr, chosen))

    def pair_key(self) -> tuple[object, ...]:
        """Return a key of the settings that affect the pair."""
        weights = [self.of(side).weights_key() for side in SIDES]
        dicts = (self.template_kwargs, self.engine_options)
        return (*weights, self.base_prompt, self.engine, *(repr(sorted(d.items())) for d in dicts))
