"""The protocol `Model`, which every method asks, and pairs in this form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..core.messages import Message
from ..core.outputs import Completion
from ..core.params import SamplingParams

if TYPE_CHECKING:
    from ..core.routing import Source
    from ..decoder.decoder import Decoder
    from ..engines.base import Mix
    from ..models.base import Pair


class Answer(NamedTuple):
    """One answer; what a model does not tell is None.

    Attributes:
        text: The text.
        tokens: How many tokens it took.
        base: How many of them base gave.
        switches: How often the source changed.
        runs: The text in pieces, each with its source.
    """

    text: str
    tokens: int
    base: int | None = None
    switches: int | None = None
    runs: Sequence[tuple[str, str]] | None = None


Results = list[list[Answer] | Exception]
"""Per conversation its answers, or why there are none."""


def joined(results: Results) -> list[Answer] | Exception:
    """Return the answers of several results as one result, or the first error."""
    answers: list[Answer] = []
    for result in results:
        if isinstance(result, Exception):
            return result
        answers += result
    return answers


class Model(Protocol):
    """What methods ask.

    Attributes:
        name: How records name it.
        identity: What tells it from others, as plain data.
        rows: How many answers it works on at once.
    """

    name: str
    identity: Any
    rows: int

    def answer(
        self, conversations: Sequence[Sequence[Message]], params: Sequence[SamplingParams]
    ) -> Results:
        """Answer each conversation ``n`` times; all share one temperature."""

    def spent(self) -> tuple[int, int] | None:
        """Return forwards, counted by row, and tokens so far, if it counts them."""

    def close(self) -> None:
        """Free what it holds."""


class PairModel:
    """A pair as what methods ask, with a decoder of its own.

    What is base's or aligned's alone is decoded by that model alone, as its users would.

    Args:
        pair: The pair.
        rows: Most samples that are decoded at once.
    """

    def __init__(self, pair: Pair, rows: int = 64) -> None:
        self.pair, self.rows = pair, rows
        self.name = pair.name
        self.identity = getattr(pair, "identity", pair.name)
        self._decoders: dict[Source | None, Decoder] = {}
        self._spent = (0, 0)

    def answer(
        self, conversations: Sequence[Sequence[Message]], params: Sequence[SamplingParams]
    ) -> Results:
        """Answer each conversation ``n`` times, all in one batch."""
        decoder = self._decoder(params[0].spec.only)
        metrics = decoder.metrics
        before = metrics.fed, metrics.tokens
        results = decoder.generate_batch(conversations, params, return_exceptions=True)
        forwards, tokens = self._spent
        self._spent = (forwards + metrics.fed - before[0], tokens + metrics.tokens - before[1])
        return [
            result if isinstance(result, Exception) else [_answer(each) for each in result]
            for result in results
        ]

    def spent(self) -> tuple[int, int]:
        """Return forwards, counted by row and without those that read prompts, and tokens."""
        return self._spent

    def close(self) -> None:
        """Stop the decoder."""
        for decoder in self._decoders.values():
            decoder.close()
        self._decoders.clear()

    def open(self, only: Source | None) -> Decoder:
        """Open a decoder of the pair, or of one of its sides."""
        return open_decoder(self.pair, self.rows, only=only)

    def _decoder(self, only: Source | None) -> Decoder:
        """Return a decoder of the pair, or of the one side `only`.

        Only one is open at a time, as caches take memory: opening another closes it.
        """
        if only not in self._decoders:
            self.close()
            self._decoders[only] = self.open(only)
        return self._decoders[only]


def open_decoder(
    pair: Pair, rows: int, *, only: Source | None = None, mix: Mix | None = None
) -> Decoder:
    """Open a decoder whose answers do not depend on what it has answered before.

    Args:
        pair: The pair.
        rows: Most samples that are decoded at once.
        only: The one side that runs.
        mix: What replaces aligned's logits.
    """
    from ..decoder.decoder import Decoder
    from ..engines.base import EngineSettings
    from ..engines.open import open_engine

    settings = EngineSettings(
        max_rows=rows,
        lookahead="off" if only or mix else "auto",
        prefix_bytes=0,  # what a prompt gives that is read in other pieces differs by rounding
    )
    return Decoder(pair, engine=open_engine(pair, settings, only=only, mix=mix))


def _answer(completion: Completion) -> Answer:
    steps = completion.steps
    base = sum(step.source == "base" for step in steps)
    return Answer(completion.text, len(steps), base, completion.switches, completion.sources)
