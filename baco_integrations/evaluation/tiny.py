"""The embedded tiny world as a benchmark: held-out requests, and the exact judge of answers."""

from __future__ import annotations

import re
from functools import cache
from random import Random

from ..tiny import words
from ..tiny.oracle import KINDS, Verdict, judge
from ..tiny.world import Request, ask, requests
from .prompts import Prompt, spread

_WORDINGS = 9


def tiny_prompts(count: int | None = None, split: str = "eval") -> list[Prompt]:
    """Return requests of the tiny world whose wording the tiny pair has not been trained on.

    Args:
        count: How many, spread over the kinds and forms; all 107 if left out.
        split: ``eval`` or ``validation``.
    """
    return [_prompt(request, split) for request in spread(requests(split), count)]


class TinyOracle:
    """Judges answers to the tiny world's requests by the requests' ids.

    Args:
        split: Where the requests come from.
    """

    def __init__(self, split: str = "eval") -> None:
        self.requests = {request.id: request for request in requests(split)}

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
    """Return contents of the right kind that an answer mentions, however badly; a list's sorted."""
    found = re.findall("|".join(map(re.escape, _contents(request.kind))), text)
    return tuple(sorted(set(found))) if request.form == "list" else tuple(found[:1])


@cache
def _contents(kind: str) -> list[str]:
    # The longest first, so that no content hides another that it begins.
    return sorted(KINDS[kind].contents, key=len, reverse=True)


def _prompt(request: Request, split: str) -> Prompt:
    before, text = request.messages[:-1], request.messages[-1]["content"]
    rng = Random(request.id)
    return Prompt(
        request.id,
        text,
        f"{request.kind} {request.form}",
        tuple(before),
        tuple(dict.fromkeys(_reworded(request, split, rng) for _ in range(_WORDINGS))),
        rng.choice(words.ANOTHER[split]),
    )


def _reworded(request: Request, split: str, rng: Random) -> str:
    if request.form in ("another", "why"):
        follow_ups = words.ANOTHER if request.form == "another" else words.WHY
        return rng.choice(follow_ups[split])
    return ask(KINDS[request.kind], request.form, split, rng)
