"""JSON schemas of pydantic classes whose types know more than pydantic's own schemas say.

Invariant: what follows the schema of a number, a key, a complex number, an address or a time can
be read by the type. What only the day of reading or a validator decides is not in it.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

_INTEGER = r"^(0|-?[1-9]\d{0,17})$"
_NUMBER = r"^(0|-?[1-9]\d{0,14})(\.\d{1,15})?$"
_COMPLEX = r"^-?\d{1,15}(\.\d{1,15})?([+-]\d{1,15}(\.\d{1,15})?j)?$"
_NAIVE = r"^[1-9]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d$"
_ADDRESS = r"://([a-z][a-z0-9]*\.)+[a-z]{2,}(/[A-Za-z0-9_.~-]*)*$"
_KEYS = {"int": _INTEGER, "float": _NUMBER, "decimal": _NUMBER}
_FINITE = 1e15


def within(schema: dict[str, Any], most: float) -> dict[str, Any]:
    """Return a schema of numbers below a limit on either side, where it has no limit there."""
    for way, sign in (("Maximum", 1), ("Minimum", -1)):
        if not {f"exclusive{way}", way.lower()} & schema.keys():
            schema = {**schema, f"exclusive{way}": sign * most}
    return schema


class TypedJsonSchema(GenerateJsonSchema):
    """Writes schemas of pydantic classes; see `BaseModel.model_json_schema`."""

    def decimal_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a number without the alternative of any string at all."""
        number: Any = {**schema, "type": "float"}
        written = super().float_schema(number)
        places, digits = schema.get("decimal_places"), schema.get("max_digits")
        if places is not None:
            written.setdefault("multipleOf", float(f"1e-{places}"))
        return within(written, _FINITE if digits is None else 10.0 ** (digits - (places or 0)))

    def float_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a number, within bounds where it has to be finite."""
        written = super().float_schema(schema)
        return written if schema.get("allow_inf_nan", True) else within(written, _FINITE)

    def complex_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a complex number as Python writes it."""
        return {"type": "string", "pattern": _COMPLEX}

    def datetime_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a time, without a zone where there must be none."""
        if schema.get("tz_constraint") == "naive":
            return {"type": "string", "pattern": _NAIVE}
        return super().datetime_schema(schema)

    def url_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a URL, whose pattern admits only the allowed schemes."""
        written = super().url_schema(schema)
        if schemes := schema.get("allowed_schemes"):
            return {**written, "pattern": f"^({'|'.join(schemes)}){_ADDRESS}"}
        return written

    def dict_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a mapping, with keys that their type reads."""
        written = super().dict_schema(schema)
        pattern = _KEYS.get(schema.get("keys_schema", {}).get("type"))
        return {**written, "propertyNames": {"pattern": pattern}} if pattern else written
