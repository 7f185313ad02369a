"""From tokens to text: one sample's token outputs become steps and a completion."""

from __future__ import annotations

from collections.abc import Callable

from ..core.outputs import (
    Alternative,
    Completion,
    Distribution,
    FinishReason,
    TokenStep,
    Usage,
)
from ..core.params import SamplingParams
from ..core.routing import Source
from ..core.text_stream import TextStream
from ..core.tool_calls import CallPiece, CallReader
from ..engines.base import TokenOutput
from ..text.token_space import TokenSpace

SOURCES: tuple[Source, Source] = ("base", "aligned")
DISTRIBUTIONS: tuple[Distribution, ...] = (*SOURCES, "sampled")

Event = TokenStep | Completion | BaseException
"""What a sample publishes: its steps, then its completion, or the error that ended it."""


class SampleOutput:
    """One sample's `TokenSink`: publishes a step for each token, then the completion.

    Args:
        publish: Takes each event: a step, a completion or an error.
        params: The request's settings.
        seed: The request's seed.
        index: Which of its samples this is.
        usage: The tokens of its prompts.
        space: What each token adds to the text.
        stop: Strings that end the text.
        reader: Reads tool calls, if tools are offered.
        approximate: Whether a side only stands for a model; an engine may find out later.
    """

    def __init__(
        self,
        publish: Callable[[Event], None],
        params: SamplingParams,
        seed: int,
        index: int,
        usage: Usage,
        space: TokenSpace,
        stop: tuple[str, ...],
        reader: CallReader | None = None,
        approximate: bool = False,
    ) -> None:
        self._publish, self._params, self._seed = publish, params, seed
        self._index, self._usage, self._space = index, usage, space
        self._text, self._reader = TextStream(stop, keep_space=params.continues), reader
        self._steps: list[TokenStep] = []
        self.approximate = approximate
        self._finished = False

    def put(self, token: TokenOutput, finish: FinishReason | None) -> bool:
        """Take a token, and why it is the last one if it is; return whether a stop string came."""
        data = b"" if finish == "stop" else self._space.bytes_of([token.token])
        text = self._text.push(data, last=finish is not None)
        calls: tuple[CallPiece, ...] = ()
        if self._reader is not None:
            cut = self._text.stopped or finish == "length"
            text, calls = self._reader.push(text, last=cut or finish is not None, cut=cut)
        step = TokenStep(
            token_id=token.token,
            text=text,
            source=SOURCES[token.source],
            p_base=token.p_base,
            p_aligned=token.p_aligned,
            p_sampled=token.p_sampled,
            p_max=token.p_max,
            entropy=token.entropy,
            switched=token.switched,
            sample=self._index,
            alternatives=self._alternatives(token),
            calls=calls,
        )
        self._steps.append(step)
        self._publish(step)
        if self._text.stopped or finish is not None:
            self._finish("stop" if self._text.stopped else finish or "stop")
        return self._text.stopped

    def fail(self, error: BaseException) -> None:
        """Publish the error that ended the sample."""
        if not self._finished:
            self._finished = True
            self._publish(error)

    def cancelled(self) -> None:
        """Publish the completion with what there is."""
        if not self._finished:
            self._finish("cancelled")

    def _finish(self, reason: FinishReason) -> None:
        params = self._params
        if self._reader is not None:
            self._reader.push("", last=True)  # a cancelled sample ends in the middle
        calls = () if self._reader is None else tuple(self._reader.calls)
        has_gamma = params.spec.rule is not None or not isinstance(params.router, str)
        completion = Completion(
            text="".join(step.text for step in self._steps),
            steps=tuple(self._steps),
            finish_reason="tool_calls" if calls and reason == "stop" else reason,
            usage=self._usage._replace(completion_tokens=len(self._steps)),
            seed=self._seed,
            sample=self._index,
            router=params.spec.name,
            gamma=params.effective_gamma if has_gamma else None,
            tool_calls=calls,
            approximate=self.approximate,
        )
        self._finished = True  # not before: what raises above has yet to reach the reader
        self._publish(completion)

    def _alternatives(
        self, token: TokenOutput
    ) -> dict[Distribution, tuple[Alternative, ...]] | None:
        count = self._params.alternatives
        if not count or token.alternatives is None:
            return None
        return {
            distribution: tuple(
                Alternative(each, self._space.bytes_of([each]).decode("utf-8", "replace"), p)
                for each, p in offered[:count]
                if p
            )
            for distribution, offered in zip(DISTRIBUTIONS, token.alternatives, strict=True)
        }
