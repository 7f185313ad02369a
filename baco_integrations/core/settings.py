"""Frozen settings: each wrong value is a `ParameterError` that says what to do.

A setting is stated once, by `param`. Errors, the classes' docstrings, the adapters' fields and the
command line take its default, its help and what is allowed from there.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from inspect import cleandoc
from textwrap import wrap
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from .errors import ParameterError, nearest
from .plain import require_whole

Self = TypeVar("Self", bound="Checked")


def as_integer(value: Any) -> object:
    """Admit true integers, NumPy's and torch's scalars among them; pydantic refuses the rest."""
    if isinstance(value, int):
        return value
    try:
        # A scalar's item tells a truth value from a number, which its index does not.
        return value.item() if hasattr(value, "item") else operator.index(value)
    except Exception:  # Of several elements, without memory, or no number: each raises its own.
        return value


Integer = Annotated[int, BeforeValidator(as_integer)]


def param(
    default: Any,
    allowed: str,
    remedy: str,
    help: str | None = None,
    *,
    unset: str = "",
    names: Iterable[str] = (),
    secret: bool = False,
    **constraints: Any,
) -> Any:
    """Declare a setting: its default and all that is said about it anywhere.

    A validator of the setting may raise a ValueError without a text: the message is then made of
    what stands here.

    Args:
        default: The value where none is given.
        allowed: What is allowed, as a phrase that follows "must be".
        remedy: What to do about a value that is not, as a sentence.
        help: What the setting does, as a sentence or two; the text under the field if left out.
        unset: What a default of None stands for, as a phrase.
        names: Names that are among the allowed values; the error of a mistyped one names the
            nearest.
        secret: Whether errors tell only the type of a value.
        **constraints: More for pydantic's ``Field``.
    """
    notes: dict[str, Any] = {"allowed": allowed, "remedy": remedy}
    more = {"unset": unset, "names": [*names], "secret": secret}
    notes |= {name: value for name, value in more.items() if value}
    return Field(default, description=help, json_schema_extra=notes, **constraints)


def stated(field: FieldInfo, what: str) -> Any:
    """Return what `param` was given as ``allowed``, ``remedy``, ``help``, ...; nothing is ""."""
    notes = field.json_schema_extra
    return notes.get(what, "") if isinstance(notes, dict) else ""


def with_attributes(doc: str | None, texts: Mapping[str, str]) -> str | None:
    """Return a class's docstring with what its attributes are, in front of its errors."""
    if doc is None or not texts:
        return doc
    text, *errors = cleandoc(doc).partition("\n\nRaises:")
    lines = [f"{text}\n\nAttributes:"]
    for name, each in texts.items():
        lines += wrap(f"{name}: {each}", 96, initial_indent=" " * 4, subsequent_indent=" " * 8)
    return "\n".join(lines) + "".join(errors)


class Checked(BaseModel):
    """A frozen, strict pydantic model; unknown keys are refused with the nearest valid name."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Write what the settings do into the docstring."""
        shown = {}
        for name, field in cls.model_fields.items():
            if field.description and isinstance(field.json_schema_extra, dict):
                field.json_schema_extra["help"] = help = " ".join(field.description.split())
                allowed = stated(field, "allowed")
                default = stated(field, "unset") or repr(field.default)
                shown[name] = f"{help} {allowed[0].upper()}{allowed[1:]}; default: {default}."
        cls.__doc__ = with_attributes(cls.__doc__, shown)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
            return
        except ValidationError as error:
            problem = parameter_error(type(self), error)
        # Out here nothing refers to pydantic's error, which holds every value that came.
        raise problem

    def replace(self: Self, **changes: Any) -> Self:
        """Return a copy with some settings changed, checked like a new object."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**given, **changes})


def parameter_error(model: type[Checked], error: ValidationError) -> ParameterError:
    """Return the first of pydantic's errors as a `ParameterError`."""
    first = error.errors(include_url=False)[0]
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, ParameterError):
        return inner
    name = str(first["loc"][0]) if first["loc"] else model.__name__
    received = first["input"]
    if first["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields)
        return ParameterError(
            name,
            f"one of the settings of {model.__name__}",
            type(received),  # The value stays untold: it may be somebody's secret.
            f"{nearest(name, model.model_fields)}Known settings: {known}.",
        )
    if first["type"] == "string_unicode":
        require_whole(received, name, ParameterError)
    field = model.model_fields[name]
    hint = nearest(received, stated(field, "names")) if isinstance(received, str) else ""
    received = type(received) if stated(field, "secret") else received
    return ParameterError(name, stated(field, "allowed"), received, hint + stated(field, "remedy"))
