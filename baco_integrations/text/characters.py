"""How characters relate to words, those among them of which only the first bytes are known."""

from __future__ import annotations

import unicodedata
from collections import Counter
from enum import Enum
from functools import cache

# Blocks of the scripts that UAX #14 breaks without spaces (classes SA and ID), as written today.
_SPACELESS = (
    *((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19FF), (0x1A20, 0x1AAF)),
    *((0x1B00, 0x1B7F), (0x2E80, 0x312F), (0x3190, 0x31FF), (0x3220, 0x325F), (0x3280, 0x4DBF)),
    *((0x4E00, 0xA4CF), (0xA980, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF), (0xFF00, 0xFF9F)),
    *((0x16FE0, 0x1B2FF), (0x20000, 0x3FFFF)),
)


class Kind(Enum):
    """How a character relates to words."""

    LETTER = "a letter or digit of a script with spaces"
    MARK = "part of the character before it: accents, joiners, variation selectors"
    SPACELESS = "a letter or digit of a script without spaces"
    SYMBOL = "anything else that is visible"
    SPACE = "white space"


WITHIN_WORDS = {Kind.LETTER, Kind.MARK}
"""The kinds at which no word begins."""


@cache
def kind_of(char: str) -> Kind:
    """Return the kind of a character."""
    if char.isspace():
        return Kind.SPACE
    if char.isalnum():
        code = ord(char)
        spaceless = any(low <= code <= high for low, high in _SPACELESS)
        return Kind.SPACELESS if spaceless else Kind.LETTER
    # The zero width space is a format character whose one purpose is to part words; emoji skin
    # tones count as symbols in Unicode though they only modify.
    joins = unicodedata.category(char) in {"Mn", "Mc", "Me", "Cf"} and char != "\u200b"
    return Kind.MARK if joins or "\U0001f3fb" <= char <= "\U0001f3ff" else Kind.SYMBOL


@cache
def kind_begun(lead: bytes) -> Kind:
    """Guess the kind of a character from its first bytes: that of most characters that begin so.

    A strict rule would not do: the first two bytes of nearly all emoji can also begin a few
    rare digits. Large ranges are sampled; blocks are long compared to the step.
    """
    # The first and the last code point whose UTF-8 form begins with these bytes.
    length = 2 if lead[0] < 0xE0 else 3 if lead[0] < 0xF0 else 4
    code = lead[0] & (0x7F >> length)
    for byte in lead[1:]:
        code = code << 6 | byte & 0x3F
    shift = 6 * (length - len(lead))
    low = max(code << shift, {2: 0x80, 3: 0x800, 4: 0x10000}[length])
    high = min((code + 1 << shift) - 1, 0x10FFFF)  # below low for what begins none, such as E0 90
    chars = map(chr, range(low, high + 1, max(1, 1 + (high - low) // 1024)))
    counts = Counter(
        kind_of(char) for char in chars if unicodedata.category(char) not in {"Cn", "Co", "Cs"}
    )
    if 2 * sum(counts[kind] for kind in WITHIN_WORDS) > counts.total():
        return Kind.LETTER
    return Kind.SPACELESS if 2 * counts[Kind.SPACELESS] > counts.total() else Kind.SYMBOL
