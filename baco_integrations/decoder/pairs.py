"""Which pair is meant, and the process's one decoder of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ParameterError, nearest
from ..core.registry import Registry
from ..models.base import Pair, is_pair
from ..models.options import LoadOptions
from ..models.presets import PRESETS

if TYPE_CHECKING:
    from .decoder import Decoder

_PAIRS: Registry[Any] = Registry()


def open_decoder(
    pair: str | Pair | None = None,
    *,
    model: str | None = None,
    base: str | None = None,
    aligned: str | None = None,
    user: object | None = None,
    **options: Any,
) -> Decoder:
    """Return the process's one decoder of a pair, loading it at the first call.

    Args:
        pair: ``"tiny"``, a preset's name, or a pair that is loaded already.
        model: The folder, id or GGUF file of one model that is both sides, instead of `pair`.
        base: The base model's folder, id or GGUF file, instead of `pair`.
        aligned: The aligned model's.
        user: The object that uses the decoder, as in `Decoder.shared`.
        **options: Settings of `LoadOptions`.

    Raises:
        ParameterError: It is not clear which pair is meant, or a setting is not allowed.
        PairError: The pair cannot be loaded.
    """
    from .decoder import Decoder

    base, aligned = named_sides(pair, model, base, aligned)
    return Decoder.shared(open_pair(pair, base=base, aligned=aligned, **options), user)


def open_pair(
    pair: str | Pair | None = None,
    *,
    base: str | None = None,
    aligned: str | None = None,
    **options: Any,
) -> Pair:
    """Return a pair, loading it unless the process has it; as for `open_decoder`."""
    if pair is not None and not isinstance(pair, str):
        check_pair_choice(pair, base, aligned, options)
        return pair
    # With their types, as True is equal to 1 and only one of them may be allowed.
    given = (pair, base, aligned, tuple((n, type(each), each) for n, each in options.items()))
    try:
        key = _key(*given)
    except TypeError:  # an option that cannot be hashed, such as a device map
        key = _key.__wrapped__(*given)
    loaded: Pair = _PAIRS.get(key, lambda: _load(pair, base, aligned, options))
    return loaded


@lru_cache(maxsize=256)
def _key(pair: object, base: object, aligned: object, options: tuple[Any, ...]) -> Any:
    """Tell pairs that are loaded by name apart; it is asked for at every call of an adapter."""
    checked = check_pair_choice(pair, base, aligned, {name: value for name, _, value in options})
    revisions = (checked.revision, checked.base_revision, checked.aligned_revision)
    # One model has a base prompt of its own where none is asked for.
    prompted = "base_prompt" in checked.model_fields_set
    # `ModelPair` finds a loaded pair again too, but only after it has asked the hub.
    return pair, base, aligned, revisions, prompted, checked.pair_key()


def named_sides(pair: object, model: Any, base: Any, aligned: Any) -> tuple[Any, Any]:
    """Return base and aligned, which are both `model` where that is given.

    Raises:
        ParameterError: Something else is given beside `model`, or it is no name.
    """
    if model is None:
        return base, aligned
    for name, other in (("pair", pair), ("base", base), ("aligned", aligned)):
        if other is not None:
            remedy = "One model is both sides: give one or the other."
            raise ParameterError("model", f"left out where {name} is given", model, remedy)
    if not isinstance(model, str | Path) or not str(model).strip():
        remedy = "A model that is loaded already: pair=ModelPair.from_model(model, tokenizer)."
        allowed = "a folder or an id on the Hugging Face hub"
        raise ParameterError("model", allowed, model, remedy)
    return model, model


def check_pair_choice(
    pair: object, base: object, aligned: object, options: Mapping[str, Any]
) -> LoadOptions:
    """Check which pair is meant and how to load it, without loading anything.

    Raises:
        ParameterError: As for `open_decoder`.
    """
    names = ("tiny", *PRESETS)
    if pair is None:
        if base is None or aligned is None:
            raise ParameterError(
                "pair" if base is aligned else "base" if base is None else "aligned",
                "given: pair, or model, or both base and aligned",
                None,
                "For example pair='tiny', or model='Qwen/Qwen2.5-0.5B-Instruct', or "
                "base='Qwen/Qwen2.5-0.5B' together with aligned='Qwen/Qwen2.5-0.5B-Instruct'.",
            )
    elif base is not None or aligned is not None:
        raise ParameterError(
            "pair", "left out where base and aligned are given", pair, "Give one or the other."
        )
    elif isinstance(pair, str):
        if pair.lower() not in names:
            hint = nearest(pair, names)
            raise ParameterError(
                "pair",
                f"one of {', '.join(names)}, or a ModelPair",
                pair,
                f"{hint}Any two models work as base=..., aligned=..., and one as model=....",
            )
    elif not is_pair(pair):
        raise ParameterError(
            "pair", "a name, a ModelPair or a ScriptedPair", pair, "For example pair='tiny'."
        )
    elif options:
        name = next(iter(options))
        raise ParameterError(
            "pair", f"a name where {name} is given", pair, f"Load the pair with {name} instead."
        )
    return LoadOptions(**options)


def _load(
    pair: str | None, base: str | None, aligned: str | None, options: Mapping[str, Any]
) -> Pair:
    from ..models.pair import ModelPair

    if base is not None and aligned is not None:
        return ModelPair.from_pretrained(base, aligned, **options)
    name = str(pair).lower()
    return ModelPair.tiny(**options) if name == "tiny" else ModelPair.from_preset(name, **options)
