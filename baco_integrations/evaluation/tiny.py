"""The tiny world as a benchmark: requests that the embedded pair has not seen, and their judge."""

from __future__ import annotations

import re

from ..tiny.oracle import Verdict, judge
from ..tiny.requests import Request, requests
from ..tiny.words import BY_NAME
from .prompts import Prompt, spread


def tiny_prompts(count: int | None = None, split: str = "eval") -> list[Prompt]:
    """Return requests of the tiny world whose wording the tiny pair has not been trained on.

    Args:
        count: How many, spread over the kinds and forms; all 107 if left out.
        split: ``eval`` or ``validation``.
    """
    return [
        Prompt(
            request.id,
            request.messages[-1]["content"],
            f"{request.kind} {request.form}",
            tuple(request.messages[:-1]),
            request.paraphrases,
            request.again,
        )
        for request in spread(requests(split), count)
    ]


class TinyOracle:
    """Judges answers to the tiny world's requests by the requests' ids.

    Args:
        split: Where the requests come from, ``eval`` or ``validation``.
    """

    name = "the tiny world's oracle"
    qualities = {"task quality": ("valid", f"{name}: on topic, complete and well-formed")}
    floor = None

    def __init__(self, split: str = "eval") -> None:
        self.requests = {request.id: request for request in requests(split)}
        self.texts = {key: each.messages[-1]["content"] for key, each in self.requests.items()}

    def judge(self, prompt_id: str, text: str) -> Verdict:
        """Return whether an answer is valid, and which content it then names.

        Raises:
            KeyError: There is no such request.
        """
        return judge(self.requests[prompt_id], text)

    def mentioned(self, prompt_id: str, text: str) -> tuple[str, ...]:
        """Return the contents that an answer mentions, valid or not."""
        return mentioned(self.requests[prompt_id], text)


def mentioned(request: Request, text: str) -> tuple[str, ...]:
    """Return an answer's contents of the request's kind: of a list all, sorted; else the first."""
    # The longest first, so that no content hides another that it begins.
    contents = sorted(BY_NAME[request.kind].contents, key=len, reverse=True)
    found = re.findall("|".join(map(re.escape, contents)), text)
    return tuple(sorted(set(found))) if request.form == "list" else tuple(found[:1])
