"""Frozen settings whose every complaint is a `ParameterError` that says what to do."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import ParameterError, nearest
from .plain import require_whole

Self = TypeVar("Self", bound="Checked")


def _integer(value: Any) -> object:
    """Admit true integers, NumPy's and torch's scalars among them; pydantic refuses the rest."""
    if isinstance(value, int):
        return value
    try:
        # A scalar's item tells a truth value from a number, which its index does not.
        return value.item() if hasattr(value, "item") else operator.index(value)
    except Exception:  # Of several elements, without memory, or no number: each raises its own.
        return value


Integer = Annotated[int, BeforeValidator(_integer)]


def param(default: Any, allowed: str, remedy: str, **constraints: Any) -> Any:
    """Declare a setting: what is allowed (a phrase after "must be") and what to do otherwise."""
    return Field(default, description=allowed, json_schema_extra={"remedy": remedy}, **constraints)


class Checked(BaseModel):
    """A frozen, strict pydantic model; unknown keys are refused with the nearest valid name."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
            return
        except ValidationError as error:
            problem = _parameter_error(type(self), error)
        # Out here nothing refers to pydantic's error, which holds every value that came.
        raise problem

    def replace(self: Self, **changes: Any) -> Self:
        """Return a copy with some settings changed, checked like a new object."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**given, **changes})


def _parameter_error(model: type[Checked], error: ValidationError) -> ParameterError:
    first = error.errors(include_url=False)[0]
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, ParameterError):
        return inner
    name = str(first["loc"][0]) if first["loc"] else model.__name__
    if first["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields)
        return ParameterError(
            name,
            f"one of the settings of {model.__name__}",
            type(first["input"]),  # The value stays untold: it may be somebody's secret.
            f"{nearest(name, model.model_fields)}Known settings: {known}.",
        )
    if first["type"] == "string_unicode":
        require_whole(first["input"], name, ParameterError)
    field = model.model_fields[name]
    extra = field.json_schema_extra
    remedy = str(extra["remedy"]) if isinstance(extra, dict) else ""
    return ParameterError(name, str(field.description), first["input"], remedy)
