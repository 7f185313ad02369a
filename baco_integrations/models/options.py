"""What can be asked of loading a pair, checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationInfo, field_validator

from ..core.errors import ParameterError, nearest, shorten
from ..core.settings import Checked, param
from ..text.prompts import BasePrompt, check_base_prompt

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}
SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")
WORDS = ("4bit", "8bit")
Side = Literal["base", "aligned"]
SIDES: tuple[Side, Side] = ("base", "aligned")
_REVISION = ("the name of a branch or tag, or a commit hash", "Leave it out for the newest.")
_FLAG = "True or False"


def _dtype(value: object) -> object:
    """Name a dtype: torch's own objects are admitted."""
    name = value if isinstance(value, str) else shorten(value).removeprefix("torch.")
    name = _SHORT.get(name, name)
    if name not in DTYPES:
        hint = nearest(name, DTYPES)
        remedy = f"{hint}'auto' keeps the checkpoint's own."
        raise ParameterError("dtype", f"one of {', '.join(DTYPES)}", value, remedy)
    return name


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


def _device_map(value: Any) -> object:
    """Tell devices from typing errors; a GPU that is missing shows when memory is counted."""
    if isinstance(value, Mapping) and not value.keys().isdisjoint(SIDES):
        if value.keys() <= {*SIDES}:
            return {side: _placed(value.get(side)) for side in SIDES}
        raise _misplaced(value)
    return _placed(value)


def _placed(value: Any) -> object:
    """Name where one model goes."""
    if value is None or (isinstance(value, str) and value in SPREAD):
        return value
    try:
        if isinstance(value, Mapping):
            return {module: device_name(device) for module, device in value.items()}
        return device_name(value)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise _misplaced(value) from error


def _misplaced(value: object) -> ParameterError:
    return ParameterError(
        "device_map",
        f"a device such as 'cpu' or 'cuda:1', one of {', '.join(SPREAD)}, a dict from modules to "
        "devices, or a dict from base and aligned to one of these",
        value,
        "Leave it out for the first GPU, or the CPU if there is none.",
    )


def _quantization(value: object, info: ValidationInfo) -> object:
    if value is None or (isinstance(value, str) and value in WORDS):
        return value
    if not isinstance(value, str):
        with suppress(Exception):  # data that holds itself has no plain form
            if isinstance(plain(value), dict):
                return value
    hint = nearest(value, WORDS) if isinstance(value, str) else ""
    raise ParameterError(
        str(info.field_name),
        "'4bit', '8bit', a quantisation config of transformers, or its dict",
        value,
        f"{hint}'8bit' works on every device, '4bit' on CUDA.",
    )


def plain(value: Any) -> Any:
    """Write a quantisation as plain data that is equal where the quantisation is.

    Objects that may print addresses are told by their type and attributes.
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


def _token(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    # http libraries show a token that cannot stand in a header, a line break at its end for one.
    if isinstance(value, str) and re.fullmatch("[!-~]*", value):
        return value
    # What came may be a secret in a wrapper, so only its type is told.
    raise ParameterError(
        "token", "visible ASCII text, True, False or None", type(value), "Pass it without spaces."
    )


def _template_kwargs(value: object) -> object:
    try:
        named = isinstance(value, dict) and all(isinstance(name, str) for name in value)
        repr(value)  # it is part of the pair's key
    except Exception:  # It is nested too deeply, or cannot be shown.
        named = False
    if named:
        return value
    # What a template is given may be a secret, so only its type is told.
    raise ParameterError(
        "template_kwargs",
        "a dict of template variables by their names",
        type(value),
        "For example {'enable_thinking': False}.",
    )


_Quantization = Annotated[Any, BeforeValidator(_quantization)]


class LoadOptions(Checked):
    """How the models of a pair are loaded; everything has a default.

    Attributes:
        dtype: Number format of the weights; ``auto`` keeps the checkpoint's own, which is bfloat16
            for most models.
        device_map: A device, ``auto``, or a dict from modules to devices; or a dict that gives one
            of these for ``base`` and for ``aligned``. Left out: the first CUDA device if there is
            one, else the CPU.
        attn_implementation: ``sdpa`` or ``eager``; left out, what transformers prefers of the two.
        quantization: How the weights of linear layers are stored; embeddings, output layers and
            norms stay as they are. ``8bit`` is torchao's weight-only int8, with a scale for each
            output, on any device; ``4bit`` is bitsandbytes' nf4 with double quantisation, on CUDA.
            Or any quantisation config of transformers, or its dict.
        base_quantization: The base model's, if it differs.
        aligned_quantization: The aligned model's, if it differs.
        revision: Branch, tag or commit of both models on the hub.
        base_revision: The base model's, if it differs.
        aligned_revision: The aligned model's, if it differs.
        token: A hub token, True for the one stored at login. It is never shown.
        local_files_only: Whether only files already on this machine may be used.
        trust_remote_code: Whether code that comes with a model may run.
        base_prompt: How the base model is shown a conversation: ``qa``, ``plain``, ``urial``,
            ``chat_template`` or a function of the messages.
        template_kwargs: Variables for the aligned model's chat template.
        progress: Whether progress is shown; left out, on a terminal only.
        check_memory: Whether a pair that seems too large is refused before loading.

    Raises:
        ParameterError: A value is not allowed; raised when the object is made.
    """

    dtype: Annotated[str, BeforeValidator(_dtype)] = "auto"
    device_map: Annotated[Any, BeforeValidator(_device_map)] = None
    attn_implementation: Literal["sdpa", "eager"] | None = param(
        None,
        "'sdpa' or 'eager'",
        "Flash attention takes no per-row masks, which decoding rows of different ages needs.",
    )
    quantization: _Quantization = None
    base_quantization: _Quantization = None
    aligned_quantization: _Quantization = None
    revision: str | None = param(None, *_REVISION)
    base_revision: str | None = param(None, *_REVISION)
    aligned_revision: str | None = param(None, *_REVISION)
    token: Annotated[str | bool | None, BeforeValidator(_token)] = param(
        None, "a string", "Leave it out.", repr=False
    )
    local_files_only: bool = param(False, _FLAG, "True stays off the network.")
    trust_remote_code: bool = param(False, _FLAG, "True runs code that comes with the model.")
    base_prompt: Any = "qa"
    template_kwargs: Annotated[dict[str, Any], BeforeValidator(_template_kwargs)] = {}
    progress: bool | None = param(None, "True, False or None", "None shows it on a terminal.")
    check_memory: bool = param(True, _FLAG, "False loads whatever the size.")

    @field_validator("base_prompt")
    @classmethod
    def _base_prompt_exists(cls, kind: BasePrompt) -> BasePrompt:
        return check_base_prompt(kind)

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
        """Tell apart what makes a difference to one model's weights in memory; see `of`."""
        chosen = (
            self.dtype,
            self.placement,
            self.attn_implementation,
            plain(self.quantization),
            self.trust_remote_code,
        )
        return tuple(map(repr, chosen))

    def pair_key(self) -> tuple[object, ...]:
        """Tell apart what makes a difference to the pair."""
        weights = [self.of(side).weights_key() for side in SIDES]
        return (*weights, self.base_prompt, repr(sorted(self.template_kwargs.items())))
