"""From bytes to text, as they come: whole characters, and nothing that may be a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of successive tokens into text that is safe to show.

    Held back are the bytes of an unfinished character and any ending that may still become a stop
    string. White space before the first other character is dropped, unless it is to be kept. The
    joined results are the whole text, which ends before the first stop string.

    Args:
        stops: Strings that end the text.
        keep_space: Whether white space at the beginning is kept.

    Attributes:
        stopped: Whether a stop string has come.
    """

    def __init__(self, stops: Sequence[str] = (), *, keep_space: bool = False) -> None:
        self.stopped = False
        self._stops = tuple(stops)
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._held = ""
        self._begun = keep_space

    def push(self, data: bytes, *, last: bool = False) -> str:
        """Take a token's bytes; return the text that can be shown now.

        Args:
            data: The bytes.
            last: Whether these are the last bytes: then nothing is held back any more.
        """
        if self.stopped:
            return ""
        text = self._held + self._decode(data, last)
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        places = [(text.find(stop), len(stop)) for stop in self._stops]
        # The first to be complete wins, so that the result does not depend on how tokens cut it.
        found = [(place + length, place) for place, length in places if place >= 0]
        if found:
            self.stopped = True
            return text[: min(found)[1]]
        keep = 0 if last else unsettled(text, self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def unsettled(text: str, strings: Sequence[str]) -> int:
    """Return the length of the longest ending of a text that begins a string, but is not whole."""
    longest = max(map(len, strings), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if text.endswith(tuple(each[:length] for each in strings if len(each) > length)):
            return length
    return 0
