"""What every adapter is told, and how that becomes a decoder and a request.

An adapter holds settings only: which pair, how to load it, how to decode. The decoder is looked up
in the process whenever it is needed, so copies, reconstructed and unpickled adapters share it, and
no adapter carries weights.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from uuid import uuid4
from weakref import WeakKeyDictionary

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, field_serializer
from typing_extensions import Self

from ..core.errors import ParameterError, nearest
from ..core.outputs import Completion, TokenStep
from ..core.params import SamplingParams, SideSampling
from ..core.settings import Integer
from ..decoder.pairs import check_pair, open_decoder
from ..models.options import SIDES, LoadOptions, Side
from ..models.presets import PRESETS

if TYPE_CHECKING:
    from ..decoder.decoder import Decoder

SAMPLING = {
    **{name: name for name in SamplingParams.model_fields},
    **{f"{side}_sampling": side for side in ("base", "aligned")},
}
"""Settings of a request by their names at an adapter, where base and aligned are models."""
del SAMPLING["base"], SAMPLING["aligned"]

_KNOBS = {"gamma", "threshold"}
_ONE_MODEL = {"model", "model_name", "model_id"}
_PAIR = (
    "Two models decode together: make the object with pair='qwen2.5-7b', say, or with base=... and "
    "aligned=...."
)
_IMMATERIAL = {"token", "local_files_only", "progress", "check_memory"}
_OF_PRESET = ("base", "aligned", "base_prompt", "template_kwargs")
_NUMBERED: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


# -- the request -----------------------------------------------------------------------------------


def sampling_params(own: Mapping[str, Any], call: Mapping[str, Any]) -> SamplingParams:
    """Join an adapter's settings with those of one call, which come first; None is not given.

    Args:
        own: The adapter's settings, by the names of `SAMPLING`.
        call: The call's.

    Raises:
        ParameterError: A value is not allowed.
    """
    given = {name: value for name, value in call.items() if value is not None}
    settings = {name: value for name, value in own.items() if value is not None}
    if given.keys() & _KNOBS:
        # They say the same thing: the call's one replaces whichever the adapter has.
        settings = {name: value for name, value in settings.items() if name not in _KNOBS}
    return SamplingParams(**{SAMPLING[n]: value for n, value in {**settings, **given}.items()})


def refuse_unknown(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse a mistyped keyword with the nearest valid one.

    Raises:
        ParameterError: There is a keyword that is not known.
    """
    known = tuple(known)
    for name in names:
        if name not in known:
            # The value stays untold: it may be somebody's secret.
            remedy = f"{nearest(name, known)}Known: {', '.join(known)}."
            raise ParameterError(name, what, name, _PAIR if name in _ONE_MODEL else remedy)


def plain_tool_choice(asked: Any) -> Any:
    """Return what `SamplingParams` calls a ``tool_choice``.

    Args:
        asked: ``auto``, ``any``, ``required``, ``none``, a bool, the name of a tool, or OpenAI's
            or Anthropic's dict that holds one. None leaves it to the model.
    """
    for name in ("function", "name", "type"):
        if isinstance(asked, Mapping):
            asked = asked.get(name, asked)
    common = {None: "auto", True: "any", False: "none", "required": "any"}
    return common.get(asked, asked) if isinstance(asked, str | bool | None) else asked


# -- the result ------------------------------------------------------------------------------------


def summary(completion: Completion) -> dict[str, Any]:
    """Sum up how a completion came about, as plain data."""
    return {
        "finish_reason": completion.finish_reason,
        "gamma": completion.gamma,
        "router": completion.router,
        "base_share": completion.base_share,
        "switches": completion.switches,
        "seed": completion.seed,
    }


def provenance(step: TokenStep) -> dict[str, Any]:
    """Tell where a token came from, as plain data."""
    told = {**step._asdict(), "calls": [piece._asdict() for piece in step.calls]}
    del told["sample"]
    alternatives = told.pop("alternatives")
    if alternatives is not None:
        told["alternatives"] = {
            source: [offered._asdict() for offered in each] for source, each in alternatives.items()
        }
    return told


def cache_key(value: Any) -> str:
    """Return a text that tells a router, a pair or a function from others: for caches' keys.

    What consists of plain data is told by them, and by its class. All else is told by a number of
    its own, which no other process gives: a cache may miss what it has, and never mistakes it.
    """
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    prompt = getattr(value, "base_prompt", None)
    told = getattr(value, "identity", None)
    if told is None and not inspect.isroutine(value) and "<" not in name:
        told = getattr(value, "__dict__", None)
    try:
        text = json.dumps([told, cache_key(prompt) if callable(prompt) else prompt])
    except (TypeError, ValueError):
        told = None
    return f"{name}#{_number(value) if told is None else sha256(text.encode()).hexdigest()[:16]}"


def _number(value: Any) -> str:
    with suppress(TypeError):  # it cannot be kept in mind
        return _NUMBERED.setdefault(value, uuid4().hex)
    return uuid4().hex


# -- the adapter -----------------------------------------------------------------------------------


def _folder(value: object) -> object:
    """Write a path so that it is not taken for an id on the hub."""
    return str(value.expanduser().absolute()) if isinstance(value, Path) else value


def _dtype(value: object) -> object:
    return value if value is None else str(value).removeprefix("torch.")


def _data(value: Any) -> object:
    """Write a settings object as a dict, so that adapters can be serialized."""
    if isinstance(value, SideSampling):
        return value.model_dump(exclude_none=True)
    return value.to_dict() if hasattr(value, "to_dict") else value


_Model = Annotated[str, BeforeValidator(_folder)]
_Data = Annotated[dict[str, Any] | None, BeforeValidator(_data)]
_Quantization = Annotated[str | dict[str, Any] | None, BeforeValidator(_data)]


class Adapter(BaseModel):
    """Which pair, how to load it and how to decode: the fields that every adapter has.

    A field that is left out, or None, takes the default of `LoadOptions` or `SamplingParams`.

    Raises:
        ParameterError: A field is unknown or its value is not allowed.
    """

    pair: Any = None
    base: _Model | None = None
    aligned: _Model | None = None

    dtype: Annotated[str | None, BeforeValidator(_dtype)] = None
    device_map: Any = None
    attn_implementation: str | None = None
    quantization: _Quantization = None
    base_quantization: _Quantization = None
    aligned_quantization: _Quantization = None
    revision: str | None = None
    base_revision: str | None = None
    aligned_revision: str | None = None
    token: SecretStr | bool | None = Field(default=None, exclude=True, repr=False)
    local_files_only: bool | None = None
    trust_remote_code: bool | None = None
    base_prompt: Any = None
    template_kwargs: dict[str, Any] | None = None
    progress: bool | None = None
    check_memory: bool | None = None

    gamma: float | None = None
    threshold: float | None = None
    router: Any = None
    signal_model: str | None = None
    first: str | None = None
    boundary: bool | None = None
    line_breaks: str | None = None
    temperature: float | None = None
    top_k: Integer | None = None
    top_p: float | None = None
    min_p: float | None = None
    base_sampling: _Data = None
    aligned_sampling: _Data = None
    seed: Integer | None = None
    max_tokens: Integer | None = None
    stop: str | list[str] | None = None
    alternatives: Integer | None = None
    json_schema: dict[str, Any] | None = None
    show_schema: bool | None = None
    regex: str | None = None
    choices: list[str] | None = None
    timeout: float | None = None

    _besides: ClassVar[tuple[str, ...]] = ()
    """What a call may be given besides settings of decoding."""

    def __init__(self, **values: Any) -> None:
        # Checked before pydantic would bury the error in one of its own.
        fields = type(self).model_fields
        refuse_unknown(values, fields, f"a field of {type(self).__name__}")
        given = {name: _plain(value) for name, value in values.items() if value is not None}
        pair, base, aligned = (given.get(name) for name in ("pair", "base", "aligned"))
        options = {name: v for name, v in given.items() if name in LoadOptions.model_fields}
        check_pair(pair, base, aligned, options)
        sampling_params({name: v for name, v in given.items() if name in SAMPLING}, {})
        super().__init__(**values)

    def __hash__(self) -> int:
        # A decoder tells its users apart by identity.
        return id(self)

    def __getstate__(self) -> dict[Any, Any]:
        if self.pair is not None and not isinstance(self.pair, str):
            raise ParameterError(
                "pair",
                "a name, or base and aligned, in an object that is pickled",
                self.pair,
                "A loaded pair holds weights, and those are not pickled.",
            )
        return super().__getstate__()

    @field_serializer("pair", "router", "base_prompt")
    def _as_text(self, value: Any) -> str | None:
        return value if value is None or isinstance(value, str) else cache_key(value)

    @property
    def decoder(self) -> Decoder:
        """The process's decoder of this pair; the first use loads the models."""
        return open_decoder(
            self.pair, base=self.base, aligned=self.aligned, user=self, **self._loading()
        )

    async def _adecoder(self) -> Decoder:
        """Return the decoder; the event loop stays free while the models load."""
        return await asyncio.to_thread(lambda: self.decoder)

    @property
    def model_name(self) -> str:
        """What the pair is called."""
        if self.pair is None:
            return f"{self.base}|{self.aligned}"
        return self.pair if isinstance(self.pair, str) else str(self.pair.name)

    def _window(self, *, fetch: bool = False) -> int | None:
        """Return the smaller context window, None where no file at hand tells it.

        Args:
            fetch: Whether to ask the hub for configurations that are not at hand.
        """
        from ..models.loading import configuration

        if self.pair is not None and not isinstance(self.pair, str):
            return min(map(int, self.pair.context))
        options = LoadOptions(**self._loading())
        configs = [configuration(self._models[side], side, options, fetch) for side in SIDES]
        windows: list[Any] = [config.get("max_position_embeddings") for config in configs]
        known = [window for window in windows if isinstance(window, int) and window > 0]
        return min(known) if len(known) == len(SIDES) else None

    @property
    def _models(self) -> dict[Side, str]:
        """Folders or ids of the two models."""
        if not isinstance(self.pair, str):
            return {"base": str(self.base), "aligned": str(self.aligned)}
        known = PRESETS.get(self.pair.lower())
        if known is not None:
            return {"base": known.base, "aligned": known.aligned}
        tiny = Path(__file__).parents[1] / "tiny" / "weights"
        return {side: str(tiny / side) for side in SIDES}

    def _loading(self) -> dict[str, Any]:
        """Return how to load the pair."""
        options = {name: _plain(getattr(self, name)) for name in LoadOptions.model_fields}
        return {name: value for name, value in options.items() if value is not None}

    def _sampling(self, call: Mapping[str, Any]) -> SamplingParams:
        """Return the settings of one call; see `sampling_params`."""
        own = {name: getattr(self, name) for name in SAMPLING if name in type(self).model_fields}
        known = (*own, *self._besides)
        refuse_unknown(call, known, "a setting of a call")
        return sampling_params(
            own, {name: call[name] for name in known if name in SAMPLING and name in call}
        )

    def _with(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with other settings; it shares the decoder. None leaves one as it is."""
        self._sampling(changes)
        fields = type(self).model_fields
        changes = {n: v for n, v in changes.items() if n in fields and v is not None}
        if changes.keys() & _KNOBS:
            changes = {**dict.fromkeys(_KNOBS), **changes}
        return self.model_copy(update=changes)

    def _identity(self, params: SamplingParams) -> dict[str, Any]:
        """Return everything that changes the output, as plain data."""
        models: dict[str, Any] = {"pair": self.pair}
        if self.pair is not None and not isinstance(self.pair, str):
            models["pair"] = {**getattr(self.pair, "identity", {}), "key": cache_key(self.pair)}
        loading = [name for name in LoadOptions.model_fields if name not in _IMMATERIAL]
        for name in ("base", "aligned", *loading):
            value = getattr(self, name)
            models[name] = cache_key(value) if callable(value) else value
        if isinstance(self.pair, str) and (known := PRESETS.get(self.pair.lower())):
            models |= {name: getattr(known, name) for name in _OF_PRESET if models[name] is None}
        router = params.spec.name if isinstance(params.router, str) else cache_key(params.router)
        sampling = params.model_dump(
            exclude={"gamma", "threshold", "router", "base", "aligned", "timeout"}
        )
        sides = {
            f"{side}_sampling": own and own.model_dump(exclude_none=True)
            for side, own in (("base", params.base), ("aligned", params.aligned))
        }
        return {**models, **sampling, **sides, "router": router, "gamma": params.effective_gamma}


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value
