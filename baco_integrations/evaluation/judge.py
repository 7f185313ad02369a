"""An outside judge as a router: before each word it is asked which model should write it.

Slow by design: one question for each word that could be written by the other side. A question that
has been asked is not asked again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import DecoderError, ParameterError

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.base import Pair
    from ..policy.routers import RouteInputs

QUESTION = (
    "Two writers share one answer, word by word. 'base' writes freely and has many ideas; "
    "'aligned' is careful about form and sense. Say who should write the next word so that the "
    "answer becomes both good and unusual. Reply with one word: base or aligned.\n\n"
    "Request:\n{prompt}\n\nAnswer so far:\n{text}"
)
"""What a chat model is asked."""


class Judge:
    """Says whether base or aligned should write the next word.

    Args:
        judge: A LangChain chat model, or a function of the prompt and the text so far that returns
            ``"base"`` or ``"aligned"``.
        name: What to call it in a run's settings.

    Attributes:
        name: What it is called.
        asked: How many questions it has been asked.

    Raises:
        ParameterError: It is neither.
    """

    def __init__(self, judge: Any, name: str | None = None) -> None:
        if not (hasattr(judge, "batch") or callable(judge)):
            allowed = "a LangChain chat model, or a function of prompt and text"
            raise ParameterError(
                "judge", allowed, judge, "The function returns 'base' or 'aligned'."
            )
        own = judge if hasattr(judge, "__qualname__") else type(judge)
        self.name = name or f"{own.__module__}:{own.__qualname__}"
        self.asked = 0
        self._judge = judge
        self._known: dict[tuple[str, str], bool] = {}

    def wants_base(self, prompt: str, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether base should go on; anything but "base" means aligned.

        Raises:
            DecoderError: The judge failed; the cause is attached.
        """
        new = [text for text in dict.fromkeys(texts) if (prompt, text) not in self._known]
        try:
            replies = self.ask(prompt, new) if new else []
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            raise DecoderError(f"the judge failed: {fault}. Nothing was decided.") from error
        self.asked += len(new)
        for text, reply in zip(new, replies, strict=True):
            named = re.search(r"\b(base|aligned)\b", reply.lower())
            self._known[prompt, text] = named is not None and named[0] == "base"
        return [self._known[prompt, text] for text in texts]

    def ask(self, prompt: str, texts: Sequence[str]) -> list[str]:
        """Ask about each text; a chat model is asked about all of them in one batch."""
        if not hasattr(self._judge, "batch"):
            return [self._judge(prompt, text) for text in texts]
        questions = [QUESTION.format(prompt=prompt, text=text or "(nothing)") for text in texts]
        return [str(getattr(reply, "text", reply)) for reply in self._judge.batch(questions)]


class JudgeRouter:
    """A router that asks a judge, for one prompt.

    Args:
        judge: The judge, whose memory may serve many routers.
        pair: The pair that decodes.
        prompt: What is being answered.
    """

    def __init__(self, judge: Judge, pair: Pair, prompt: str) -> None:
        self._judge, self._prompt = judge, prompt
        self._bytes = pair.vocabulary.token_bytes
        self._starts_word = pair.vocabulary.starts_word

    def route(self, inputs: RouteInputs) -> Tensor:
        """Return ``(r,)`` bool, true where base is to speak; asks where a word may start."""
        import torch

        from ..policy.params import BASE, NOBODY

        top = torch.where(inputs.owner == BASE, inputs.top, inputs.aligned_logits.argmax(-1))
        places = [
            row
            for row, (token, owner) in enumerate(
                zip(top.tolist(), inputs.owner.tolist(), strict=True)
            )
            if owner == NOBODY or self._starts_word[token]
        ]
        texts = [
            b"".join(self._bytes[token] for token in inputs.decoded[row]).decode(errors="replace")
            for row in places
        ]
        # Within a word the owner goes on, whatever is returned here.
        chosen = torch.zeros(len(top), dtype=torch.bool)
        chosen[places] = torch.tensor(self._judge.wants_base(self._prompt, texts), dtype=torch.bool)
        return chosen
