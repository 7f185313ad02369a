"""From bytes to text, as they come: whole characters, and nothing that may be a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of successive tokens into text that is safe to show.

    Held back are the bytes of an unfinished character and any ending that may still become a stop
    string. White space before the first other character is dropped. The joined results are the
    whole text, which ends before the first stop string.

    Args:
        stops: Strings that end the text.

    Attributes:
        stopped: Whether a stop string has come.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self._stops = tuple(stops)
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._held = ""
        self._begun = False

    def push(self, data: bytes, *, last: bool = False) -> str:
        """Take a token's bytes and return the text that they release.

        Args:
            data: The bytes.
            last: Whether no more will come: then everything held back is released.
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
        keep = 0 if last else self._possible_start(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _possible_start(self, text: str) -> int:
        """Return the length of the longest ending that begins a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if text.endswith(tuple(stop[:length] for stop in self._stops if len(stop) > length)):
                return length
        return 0
