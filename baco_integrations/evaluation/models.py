"""Whatever answers: the one shape that every method asks, and pairs in that shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..core.errors import ParameterError
from ..core.messages import Message
from ..core.outputs import Completion
from ..core.params import SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.routing import Source
    from ..decoder.decoder import Decoder
    from ..decoder.request import Pair
    from ..engines.local.cuda_graphs import Mode
    from ..engines.local.runner import Side
    from ..engines.local.speculative import Depth


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
    runs: list[tuple[str, str]] | None = None


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
        if only is None:
            return decoder_of(self.pair, self.rows, None)
        return decoder_of(_Alone(self.pair, only), self.rows, "off")

    def _decoder(self, only: Source | None) -> Decoder:
        """Return the decoder; there is one at a time, as caches take memory."""
        if only not in self._decoders:
            self.close()
            self._decoders[only] = self.open(only)
        return self._decoders[only]


class _Alone:
    """A pair of which one side says nothing, and takes no time for it."""

    def __init__(self, pair: Pair, speaker: Source) -> None:
        self._pair, self._speaker = pair, speaker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pair, name)

    def open_sides(self, max_rows: int, graphs: Mode = "off") -> tuple[Any, Any]:
        base, aligned = self._pair.open_sides(max_rows, graphs)
        device = getattr(aligned, "device", "cpu")
        if self._speaker == "base":
            return Through(base), _Silent(self._pair.aligned_size, device)
        return _Silent(self._pair.base_size, device), aligned


class Through:
    """A side as it is, but for what is written over it; it is always fed by itself."""

    advance_both = None

    def __init__(self, side: Side) -> None:
        self.side = side

    def __getattr__(self, name: str) -> Any:
        return getattr(self.side, name)


class _Silent:
    """A side for which every token is as good as any other."""

    def __init__(self, size: int, device: Any) -> None:
        self._size, self.device = size, device

    def read(self, start: int, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> None:
        pass

    def copy(self, source: int, target: int, length: int) -> None:
        pass

    def reset(self) -> None:
        pass

    def advance(self, tokens: Sequence[Sequence[int]], positions: Sequence[int]) -> Tensor:
        import torch

        return torch.zeros(len(tokens), len(tokens[0]), self._size, device=self.device)


def decoder_of(pair: Any, rows: int, lookahead: Depth | None) -> Decoder:
    """Open a decoder whose answers do not depend on what it has answered before."""
    from ..decoder.decoder import Decoder

    # What a prompt that is read in other pieces gives differs by rounding.
    return Decoder(pair, max_rows=rows, lookahead=lookahead, prefix_bytes=0)


def _answer(completion: Completion) -> Answer:
    steps = completion.steps
    runs = [
        (source, text)
        for source, group in groupby(steps, key=lambda step: step.source)
        if (text := "".join(step.text for step in group))
    ]
    base = sum(step.source == "base" for step in steps)
    return Answer(completion.text, len(steps), base, completion.switches, runs)


def as_model(model: Any, *, name: str | None = None, rows: int | None = None) -> Model:
    """Return anything that answers as what methods ask.

    Args:
        model: A pair; a chat model or LLM of LangChain or LlamaIndex; or a function that returns
            one for a temperature.
        name: How records are to name it.
        rows: How many answers it works on at once; 64 for pairs and 8 for others if left out.

    Raises:
        ParameterError: It is none of these.
    """
    if all(hasattr(model, each) for each in ("answer", "spent")):
        return model  # type: ignore[no-any-return]
    if hasattr(model, "open_sides"):
        return PairModel(model, rows or 64)
    from .external import ExternalModel, is_external

    if is_external(model) or callable(model):
        return ExternalModel(model, name=name, rows=rows or 8)
    raise ParameterError(
        "model",
        "a pair, a model of LangChain or LlamaIndex, or a function of the temperature",
        model,
        "For example ModelPair.tiny().",
    )
