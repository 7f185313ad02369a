"""What the schema of a Python type lets through, the type reads."""

from __future__ import annotations

import ipaddress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import numpy as np
import pytest
from pydantic import (
    UUID4,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    Field,
    FiniteFloat,
    HttpUrl,
    NaiveDatetime,
    TypeAdapter,
)

from baco_integrations import SamplingParams
from baco_integrations.core.python_types import TypedJsonSchema
from baco_integrations.core.tool_calls import FORMATS
from baco_integrations.text.grammar import Grammars

END = 256
GRAMMARS = Grammars([bytes([n]) for n in range(END)], lambda text: [], FORMATS["hermes"])
TYPES: dict[Any, list[str]] = {
    Decimal: ["12.50", "0"],
    Annotated[Decimal, Field(max_digits=5, decimal_places=2)]: ["999.99", "-1.5"],
    Annotated[Decimal, Field(ge=0, le=10)]: ["10", "0.125"],
    FiniteFloat: ["-0.5"],
    complex: ['"1+2j"'],
    date: ['"2024-02-29"', '"2000-02-29"', '"0001-12-31"'],
    datetime: ['"2024-02-29T23:59:59.123456+14:00"'],
    AwareDatetime: ['"2024-01-31T00:00:00Z"'],
    NaiveDatetime: ['"2024-01-28T00:00:00"'],
    time: ['"23:59:59Z"'],
    timedelta: ['"P1DT2H"', '"PT5M"', '"P2W"', '"P1Y2M3DT4H5M6S"'],
    UUID: ['"12345678-1234-1234-1234-123456789abc"'],
    UUID4: ['"12345678-1234-4234-9234-123456789abc"'],
    Base64Bytes: ['"aGk="'],
    AnyUrl: ['"https://b.org/x"'],
    HttpUrl: ['"https://b.org/x"'],
    ipaddress.IPv4Network: ['"10.0.0.1/32"'],
    ipaddress.IPv4Interface: ['"10.0.0.1/8"'],
    ipaddress.IPv6Network: ['"1:2:3:4:5:6:7:8"'],
    ipaddress.IPv6Interface: ['"1:2:3:4:5:6:7:8/64"'],
    dict[int, str]: ['{"1": "a", "-7": ""}', "{}"],
    dict[float, int]: ['{"0.5": 1}'],
    dict[date, int]: ['{"2024-02-29": 1}'],
}


def written(schema: dict[str, Any], draw: np.random.Generator) -> str:
    """Write a text at random that a grammar lets through."""
    matcher = GRAMMARS.matcher(SamplingParams(json_schema=schema), {END})
    assert matcher is not None
    text = bytearray()
    while True:
        bits = np.zeros(END // 32 + 1, dtype=np.int32)
        matcher.allow(bits)
        allowed = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")[: END + 1])
        closing = [token for token in allowed if token in (*b'"}', END)]
        short = len(text) < 300 and draw.random() > 0.3
        token = int(draw.choice(allowed if short or not closing else closing))
        if token == END:
            return text.decode()
        assert matcher.accept(token)
        text.append(token)


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_what_a_schema_lets_through_is_read(type_: Any) -> None:
    adapter = TypeAdapter(type_)
    schema = adapter.json_schema(schema_generator=TypedJsonSchema)
    draw = np.random.default_rng(1)
    for _ in range(25):
        adapter.validate_json(written(schema, draw))
    for text in TYPES[type_]:
        matcher = GRAMMARS.matcher(SamplingParams(json_schema=schema), {END})
        adapter.validate_json(text)
        assert matcher and all(matcher.accept(token) for token in [*text.encode(), END]), text
