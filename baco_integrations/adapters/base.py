"""What the adapters of all frameworks share: their settings, and how a decoder is found for them.

An adapter holds settings only: which pair, how to load it or which server has it, how to decode.
The decoder is looked up in the process whenever it is needed, so copies, reconstructed and
unpickled adapters share it, and no adapter carries weights.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from uuid import uuid4
from weakref import WeakKeyDictionary

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, create_model, field_serializer
from typing_extensions import Self

from ..core.errors import ParameterError, nearest
from ..core.params import KNOBS, SamplingParams, SideSampling
from ..core.settings import stated, with_attributes
from ..decoder.pairs import check_pair_choice, named_sides, open_decoder
from ..models.options import SIDES, LoadOptions
from ..models.presets import PRESETS
from ..remote.settings import RemoteOptions, check_remote_choice
from ..tiny import WEIGHTS

if TYPE_CHECKING:
    from ..decoder.decoder import Decoder
    from ..remote import RemoteDecoder

SAMPLING = {
    {"base": "base_sampling", "aligned": "aligned_sampling"}.get(name, name): name
    for name in SamplingParams.model_fields
}
"""Settings of a request by their names at an adapter, where base and aligned are models."""

OF_A_CALL = ("n", "tools", "tool_choice", "parallel_tool_calls")
"""Settings of a request that not every adapter has as fields."""

_ONE_MODEL = {"model", "model_name", "model_id"}
_PAIR = (
    "Which models decode is said when the object is made: pair='qwen2.5-7b', say, or base=... and "
    "aligned=..., or one model=...."
)
_IMMATERIAL = {"token", "local_files_only", "progress", "check_memory"}
_OF_PRESET = ("base", "aligned", "base_prompt", "template_kwargs")
_SECRET = ("token", "api_key")
_NUMBERED: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def refuse_unknown(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse a mistyped keyword with the nearest valid one.

    Raises:
        ParameterError: There is a keyword that is not known.
    """
    known = tuple(known)
    for name in names:
        if name not in known:
            # The message leaves out the value, which may be somebody's secret.
            remedy = f"{nearest(name, known)}Known: {', '.join(known)}."
            raise ParameterError(name, what, name, _PAIR if name in _ONE_MODEL else remedy)


def sampling_params(own: Mapping[str, Any], call: Mapping[str, Any]) -> SamplingParams:
    """Join an adapter's settings with those of one call, which take precedence.

    Args:
        own: The adapter's settings, by the names of `SAMPLING`; None is not given.
        call: The call's settings, likewise.

    Raises:
        ParameterError: A value is not allowed.
    """
    given = {name: value for name, value in call.items() if value is not None}
    settings = {name: value for name, value in own.items() if value is not None}
    if not given.keys().isdisjoint(KNOBS):
        # Both say the same thing: the call's one replaces whichever the adapter has.
        settings = {name: value for name, value in settings.items() if name not in KNOBS}
    return SamplingParams(**{SAMPLING[n]: value for n, value in {**settings, **given}.items()})


def cache_key(value: Any) -> str:
    """Return a text that identifies a router, a pair or a function in the keys of caches.

    The key of an object of plain data is made of its class and its data. Any other object has a
    random key, which differs in each process: a cache then misses, but returns nothing wrong.
    """
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    prompt = getattr(value, "base_prompt", None)
    data = getattr(value, "identity", None)
    if data is None and not inspect.isroutine(value) and "<" not in name:
        data = getattr(value, "__dict__", None)
    if data is not None:
        with suppress(TypeError, ValueError):  # it is not plain data
            text = json.dumps([data, cache_key(prompt) if callable(prompt) else prompt])
            return f"{name}#{sha256(text.encode()).hexdigest()[:16]}"
    with suppress(TypeError):  # it cannot be hashed or weakly referenced
        return f"{name}#{_NUMBERED.setdefault(value, uuid4().hex)}"
    return f"{name}#{uuid4().hex}"


def revealed(value: Any) -> Any:
    """Return the text of a secret, and any other value as it is."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def absolute_folder(value: object) -> object:
    """Write a path as an absolute one, so that it is not taken for an id on the hub."""
    return str(value.expanduser().absolute()) if isinstance(value, Path) else value


def as_data(value: Any) -> object:
    """Write a settings object as a dict, so that adapters can be serialized."""
    if isinstance(value, SideSampling):
        return value.model_dump(exclude_none=True)
    return value.to_dict() if hasattr(value, "to_dict") else value


_Model = Annotated[str, BeforeValidator(absolute_folder)]
_Data = Annotated[dict[str, Any] | None, BeforeValidator(as_data)]
_Quantization = Annotated[str | dict[str, Any] | None, BeforeValidator(as_data)]
_WHICH: tuple[tuple[str, Any, str], ...] = (
    ("pair", Any, "The name of a preset, 'tiny', or a pair that is loaded already."),
    ("model", _Model, "One model's folder, GGUF file or id, instead of pair: it is both sides."),
    ("base", _Model, "The base model's folder, GGUF file or id on the hub, instead of pair."),
    ("aligned", _Model, "The aligned model's folder, GGUF file or id on the hub, instead of pair."),
)
# Types of fields that keep a value in another form than the settings do.
_KEPT_AS: dict[str, Any] = {
    **dict.fromkeys(("base_sampling", "aligned_sampling"), _Data),
    **dict.fromkeys(("quantization", "base_quantization", "aligned_quantization"), _Quantization),
    "token": SecretStr | bool,
    "base_url": str,
    "api_key": SecretStr,
    "stop": str | list[str],
    "choices": list[str],
}


def adapter_fields() -> dict[str, Any]:
    """Return the fields that say which pair, and one for each setting of loading and decoding.

    Returns:
        Types, each with None, and fields by name; a field's description is the setting's help.
    """
    fields: dict[str, Any] = {
        name: (its_kind | None, Field(None, description=help)) for name, its_kind, help in _WHICH
    }
    sampling = {name: SamplingParams.model_fields[SAMPLING[name]] for name in SAMPLING}
    settings = {**LoadOptions.model_fields, **RemoteOptions.model_fields, **sampling}
    for name, setting in settings.items():
        if name not in OF_A_CALL:
            kind: Any = _KEPT_AS.get(name, setting.annotation)
            if setting.metadata and name not in _KEPT_AS:
                kind = Annotated[(kind, *setting.metadata)]
            hidden: Any = {"exclude": True, "repr": False} if name in _SECRET else {}
            fields[name] = kind | None, Field(None, description=stated(setting, "help"), **hidden)
    return fields


if TYPE_CHECKING:

    class Settings(BaseModel):
        """The fields of `adapter_fields`."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Settings = create_model("Settings", **adapter_fields())


class Adapter(Settings):
    """Which pair, how to load it and how to decode: the fields that every adapter has.

    A field that is left out, or None, takes the default of `LoadOptions` or `SamplingParams`; with
    ``base_url``, that of the server.

    Raises:
        ParameterError: A field is unknown or its value is not allowed.
    """

    only_in_calls: ClassVar[tuple[str, ...]] = ()
    """Arguments of a call that are no settings of decoding, or no fields."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Write what each field does into the class's docstring."""
        fields = cls.model_fields.items()
        texts = {name: field.description for name, field in fields if field.description}
        cls.__doc__ = with_attributes(cls.__doc__, texts)

    def __init__(self, **values: Any) -> None:
        # Checked first, since pydantic would bury the error in one of its own.
        refuse_unknown(values, type(self).model_fields, f"a field of {type(self).__name__}")
        given = {name: revealed(value) for name, value in values.items() if value is not None}
        remote = RemoteOptions(
            **{n: v for n, v in given.items() if n in RemoteOptions.model_fields}
        )
        params = sampling_params({name: v for name, v in given.items() if name in SAMPLING}, {})
        if remote.base_url is not None:
            check_remote_choice(given, params)
        else:
            pair, *models = (given.get(name) for name in ("pair", "model", "base", "aligned"))
            base, aligned = named_sides(pair, *models)
            if remote.api_key is not None and isinstance(pair, str | None):
                given.setdefault("token", remote.api_key)
                values["token"] = given["token"]
            options = {name: v for name, v in given.items() if name in LoadOptions.model_fields}
            check_pair_choice(pair, base, aligned, options)
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
    def objects_as_keys(self, value: Any) -> str | None:
        """Write an object as its `cache_key`."""
        return value if value is None or isinstance(value, str) else cache_key(value)

    @property
    def decoder(self) -> Decoder | RemoteDecoder:
        """The process's decoder of this pair; the first use loads the models, or asks a server."""
        if self.base_url is not None:
            return self.remote_decoder()
        own = self.load_settings()
        models = {name: getattr(self, name) for name in ("model", "base", "aligned")}
        return open_decoder(self.pair, user=self, **models, **own)

    def remote_decoder(self) -> RemoteDecoder:
        """Return the process's decoder of this server and pair; nothing is asked yet."""
        from ..remote import RemoteDecoder

        key = revealed(self.api_key) or os.environ.get("BACO_API_KEY")
        options = {"api_key": key, "max_retries": self.max_retries}
        given = {name: value for name, value in options.items() if value is not None}
        return RemoteDecoder.shared(self.base_url, pair=self.pair, user=self, **given)

    async def adecoder(self) -> Decoder | RemoteDecoder:
        """Return the decoder; the event loop stays free while the models load."""
        return await asyncio.to_thread(lambda: self.decoder)

    @property
    def model_name(self) -> str:
        """The name of the pair, or those of its models; a URL until its server has told."""
        if self.base_url is not None:
            name: str = self.pair or self.remote_decoder().pair.known_name or self.base_url
            return name
        if self.pair is None:
            return self.model or f"{self.base}|{self.aligned}"
        return self.pair if isinstance(self.pair, str) else str(self.pair.name)

    def context_window(self, *, fetch: bool = False) -> int | None:
        """Return the smaller of the models' context windows, without loading the models.

        Args:
            fetch: Whether to ask the hub for configurations that are not on this machine, or a
                server.

        Returns:
            A number of tokens; None where a configuration is not at hand or does not say it.
        """
        if self.base_url is not None:
            pair = self.remote_decoder().pair
            known = pair.context if fetch else pair.known_context
            return None if known is None else min(known)
        from ..models.hub import configuration

        if self.pair is not None and not isinstance(self.pair, str):
            return min(map(int, self.pair.context))
        name, options = str(self.pair or "").lower(), LoadOptions(**self.load_settings())
        windows = []
        for side in SIDES:
            named = self.model or getattr(PRESETS.get(name, self), side)
            model = str(WEIGHTS / side) if name == "tiny" else named
            window = configuration(model, side, options, fetch).get("max_position_embeddings")
            windows.append(window if isinstance(window, int) else 0)
        return min(windows) if min(windows) > 0 else None

    def load_settings(self) -> dict[str, Any]:
        """Return the settings of `LoadOptions` that are given, secrets as plain text."""
        options = {name: revealed(getattr(self, name)) for name in LoadOptions.model_fields}
        return {name: value for name, value in options.items() if value is not None}

    def request_params(self, call: Mapping[str, Any]) -> SamplingParams:
        """Return the settings of one call, over the adapter's own.

        Raises:
            ParameterError: One is unknown, or its value is not allowed.
        """
        own = {name: getattr(self, name) for name in SAMPLING if name in type(self).model_fields}
        refuse_unknown(call, (*own, *self.only_in_calls), "a setting of a call")
        return sampling_params(own, {name: call[name] for name in call if name in SAMPLING})

    def with_settings(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with other settings of decoding; it shares the decoder.

        Args:
            changes: Settings by their names; None leaves one as it is.

        Raises:
            ParameterError: One is unknown, or its value is not allowed.
        """
        self.request_params(changes)
        fields = type(self).model_fields
        changes = {n: v for n, v in changes.items() if n in fields and v is not None}
        if not changes.keys().isdisjoint(KNOBS):
            changes = {**dict.fromkeys(KNOBS), **changes}
        return self.model_copy(update=changes)

    def identity(self, params: SamplingParams) -> dict[str, Any]:
        """Return everything that changes the output of a call with these settings, as plain data.

        Args:
            params: The settings, as from `request_params`.
        """
        if self.base_url is not None:
            # What is left out is as the server sets it.
            own = params.model_dump(include=params.model_fields_set - {"timeout"})
            return {"base_url": self.base_url, "pair": self.pair, **own}
        data: dict[str, Any] = {"pair": self.pair}
        if self.pair is not None and not isinstance(self.pair, str):
            data["pair"] = {**getattr(self.pair, "identity", {}), "key": cache_key(self.pair)}
        loading = [name for name in LoadOptions.model_fields if name not in _IMMATERIAL]
        for name in ("model", "base", "aligned", *loading):
            value = getattr(self, name)
            data[name] = cache_key(value) if callable(value) else value
        if isinstance(self.pair, str) and (preset := PRESETS.get(self.pair.lower())):
            data |= {name: getattr(preset, name) for name in _OF_PRESET if data[name] is None}
        data |= params.model_dump(exclude={*KNOBS, *SIDES, "router", "timeout"})
        for side in SIDES:
            own = getattr(params, side)
            data[f"{side}_sampling"] = own and own.model_dump(exclude_none=True)
        named = isinstance(params.router, str)
        router = params.spec.name if named else cache_key(params.router)
        return {**data, "router": router, "gamma": params.effective_gamma}
