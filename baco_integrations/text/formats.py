"""Formats of strings as patterns which Python's own types read.

Invariant: what follows a pattern is a value of the type that pydantic gives the format for. The
engine's own formats let through days that no calendar has, seconds of 60 and durations beyond
`timedelta`, and it does not know pydantic's formats.
"""

from __future__ import annotations

_YEAR = r"([1-9]\d{3}|0[1-9]\d{2}|00[1-9]\d|000[1-9])"
_LEAP = r"(\d{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DAY = (
    rf"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)"
    rf"|02-(0[1-9]|1\d|2[0-8]))|{_LEAP}-02-29)"
)
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
_ZONE = r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_FOUR = "[A-Za-z0-9+/]{4}"


def counts(units: str) -> str:
    """Return the pattern of numbers with units in their order, at least one of them."""
    return "|".join(
        rf"\d{{1,4}}{unit}" + "".join(rf"(\d{{1,4}}{smaller})?" for smaller in units[n + 1 :])
        for n, unit in enumerate(units)
    )


_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-%d[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_WHOLE = {
    "date": _DAY,
    "time": _CLOCK + _ZONE,
    "date-time": f"{_DAY}T{_CLOCK}{_ZONE}",
    "duration": rf"P(\d{{1,4}}W|({counts('YMD')})(T({counts('HMS')}))?|T({counts('HMS')}))",
    "ipv4network": rf"({_BYTE}\.){{3}}{_BYTE}(/32)?",
    "ipv4interface": rf"({_BYTE}\.){{3}}{_BYTE}(/([12]?\d|3[0-2]))?",
    "ipv6network": "([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(/128)?",
    "ipv6interface": r"([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(/(\d{1,2}|1[01]\d|12[0-8]))?",
    "base64": f"({_FOUR})*([A-Za-z0-9+/]{{2}}==|[A-Za-z0-9+/]{{3}}=)?",
    **{f"uuid{version}": _UUID % version for version in range(1, 9)},
}
PATTERNS = {name: f"^({pattern})$" for name, pattern in _WHOLE.items()}
"""Patterns by the names of formats."""
