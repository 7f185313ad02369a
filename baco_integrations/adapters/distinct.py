"""Distinct answers: samples are drawn, round by round, until enough of them differ.

Nothing here knows of a framework: an adapter says how one sample is drawn.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, suppress
from contextvars import copy_context
from functools import lru_cache
from queue import SimpleQueue
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..core.errors import ParameterError
from ..core.notebook import answer_html, how_decoded
from ..core.settings import Checked, Integer, param

T = TypeVar("T")

Similarity = Callable[[str, str], float]
"""How alike two texts are, from 0 to 1."""

# Each new text is compared with all known ones, whose words or embeddings are kept.
_REMEMBERED = 65536


def word_overlap(one: str, other: str) -> float:
    """Return the share of the two texts' words that both have, whatever their case and order.

    Punctuation does not count, so texts that differ in nothing else are the same. Texts without a
    word are the same if they are equal.
    """
    words, others = words_of(one), words_of(other)
    if not words | others:
        return float(one.strip() == other.strip())
    return len(words & others) / len(words | others)


@lru_cache(maxsize=_REMEMBERED)
def words_of(text: str) -> frozenset[str]:
    """Return the words of a text, whatever their case."""
    return frozenset(re.findall(r"\w+", text.casefold()))


def cosine_similarity(embed: Callable[[str], Sequence[float]]) -> Similarity:
    """Return the cosine similarity of two texts' embeddings; opposites count as unrelated.

    Args:
        embed: Embeds a text; each text once, as long as it is among the last 65536.
    """

    @lru_cache(maxsize=_REMEMBERED)
    def direction(text: str) -> Any:
        vector = np.asarray(embed(text), dtype=float)
        return vector / (np.linalg.norm(vector) or 1)

    return lambda one, other: float(np.clip(direction(one) @ direction(other), 0, 1))


def as_tuple(value: object) -> object:
    """Return an iterable other than a string as a tuple, and any other value as it is."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


_Share = Annotated[float, Field(ge=0, le=1)]
_Ladder = Annotated[tuple[_Share, ...], BeforeValidator(as_tuple), Field(min_length=1)]


class BreadthParams(Checked):
    """How many answers are looked for, how, and which count as the same.

    Attributes:
        n: Number of distinct answers to find.
        gamma: Diversity of every sample; the model's own if neither it nor `ladder` is given.
        ladder: Diversities that the samples take in turn.
        similarity: How alike two answers' texts are, from 0 to 1. It may be slow: it is called in
            a thread.
        threshold: Similarity from which two answers count as the same.
        max_samples: Most samples to draw; 4 * n if it is left out.
        seed: Repeats a result: sample number i has the seed ``seed + i``. Fresh if it is left out.

    Raises:
        ParameterError: A value is not allowed.
    """

    n: Annotated[Integer, Field(ge=1)] = param(
        8, "a whole number of at least 1", "It is the number of distinct answers to find."
    )
    gamma: _Share | None = param(None, "a number from 0 to 1", "Raise it for variety.")
    ladder: _Ladder | None = param(
        None, "one or more numbers from 0 to 1", "For example (0.2, 0.5, 0.8)."
    )
    similarity: Similarity = param(
        word_overlap, "a function of two texts", "Leave it out, or try embedding_similarity(...)."
    )
    threshold: _Share = param(
        0.8, "a number from 0 to 1", "Answers at least so similar count as the same."
    )
    max_samples: Annotated[Integer, Field(ge=1)] | None = param(
        None, "a whole number of at least n", "Leave it out for 4 * n."
    )
    seed: Annotated[Integer, Field(ge=0, lt=2**64)] | None = param(
        None, "a whole number from 0 to 2**64 - 1, or None", "Leave it out for fresh samples."
    )

    @model_validator(mode="after")
    def check_together(self) -> BreadthParams:
        """Refuse settings that contradict each other."""
        if self.gamma is not None and self.ladder is not None:
            raise ParameterError(
                "ladder", "left out where gamma is given", self.ladder, "Give one of them."
            )
        if self.max_samples is not None and self.max_samples < self.n:
            raise ParameterError(
                "max_samples", f"at least n, {self.n}", self.max_samples, "Leave it out for 4 * n."
            )
        return self

    def sample(self, number: int, seed: int) -> dict[str, Any]:
        """Return the gamma, if there is one, and the seed of one sample.

        Args:
            number: The sample's number, from 0.
            seed: The seed of sample 0.
        """
        gamma = self.ladder[number % len(self.ladder)] if self.ladder else self.gamma
        own = {} if gamma is None else {"gamma": gamma}
        return {**own, "seed": (seed + number) % 2**64}

    def is_new(self, text: str, known: Iterable[str]) -> bool:
        """Tell whether a text has words and differs from all that are known.

        Raises:
            ParameterError: The similarity function fails or returns no number from 0 to 1.
        """
        for other in known if text.strip() else ():
            try:
                score = float(self.similarity(text, other))
                if not 0 <= score <= 1:
                    raise ValueError(f"{score!r} for {text!r} and {other!r}")
            except Exception as error:
                raise ParameterError(
                    "similarity",
                    "a function that returns a number from 0 to 1 for any two texts",
                    error,
                    "Return 0 where nothing is alike, 1 for the same.",
                ) from error
            if score >= self.threshold:
                return False
        return bool(text.strip())


class Idea(BaseModel):
    """One distinct answer, and how it came about.

    Ideas add up to a list.

    Attributes:
        value: The text, or the parsed object of structured output.
        text: The text; JSON for a structured value.
        gamma: The sample's diversity.
        seed: The sample's seed; with it and gamma the model gives the answer again.
        router: The router; None, as the next two, where only the parsed value is known.
        base_share: Share of tokens from the base model.
        switches: How often the sides switched.
        sources: The answer in pieces, each a list of the side that gave it and the text; likewise.
        sample: The sample's number, from 0.
    """

    model_config = ConfigDict(frozen=True)

    value: Any
    text: str
    gamma: float | None = None
    seed: int | None = None
    router: str | None = None
    base_share: float | None = None
    switches: int | None = None
    sources: list[list[str]] | None = Field(None, repr=False)
    sample: int

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        """Return the text for a notebook, with a mark on what base gave, where that is known."""
        pieces = self.sources or []
        if "".join(text for _, text in pieces).strip() != self.text.strip():
            pieces = [["aligned", self.text]]  # a value that was read out of the answer
        return answer_html(
            pieces, *how_decoded(self.router, self.gamma, self.base_share, self.seed)
        )

    def __add__(self, other: Idea) -> list[Idea]:
        return [self, other]

    def __radd__(self, others: list[Idea]) -> list[Idea]:
        return [*others, self]


def idea_fields(*sources: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what some dicts say about a sample, under the names of `Idea`; the last dict wins."""
    return {
        name: value
        for source in sources
        for name, value in (source or {}).items()
        if name in Idea.model_fields
    }


Draw = Callable[[int, Mapping[str, Any]], Coroutine[Any, Any, Idea | Exception]]
"""Draws a sample, given its number and settings, or returns why it cannot be read."""


async def distinct(
    draw: Draw | Sequence[Draw],
    params: BreadthParams,
    *,
    in_order: bool,
    at_once: int | None = None,
    known: Iterable[str] = (),
) -> AsyncGenerator[Idea]:
    """Draw samples in rounds, as many at once as are missing, until enough of them differ.

    Args:
        draw: A function that draws a sample, or several of them. Each is called until it has given
            ``params.n`` ideas; the ideas of all functions differ from one another. The seeds of
            function number i begin at ``seed + i * max_samples``.
        params: How many are looked for, and which count as the same.
        in_order: Of similar samples keep the first by number, rather than the first to arrive.
        at_once: Most samples that are drawn at a time.
        known: Texts that the ideas have to differ from.

    Yields:
        Up to ``params.n`` ideas of each `draw`. A `draw` is not called again if none of the
        samples of its first round can be read, all for the same kind of reason.

    Raises:
        Exception: What `draw` raises; or the first that it returned, where no `draw` is left.
    """
    draws = [draw] if callable(draw) else list(draw)
    seed = secrets.randbits(53) if params.seed is None else params.seed
    limit = params.max_samples or 4 * params.n
    gate = asyncio.Semaphore(at_once or limit * len(draws))

    async def sample(place: int, number: int) -> tuple[int, Idea | Exception]:
        async with gate:
            settings = params.sample(number, seed + place * limit)
            return place, await draws[place](number, settings)

    said = list(known)
    missing = dict.fromkeys(range(len(draws)), params.n)
    drawn: Counter[int] = Counter()
    given_up: list[Exception] = []
    while samples := [
        (place, number)
        for place, size in missing.items()
        for number in range(drawn[place], min(drawn[place] + size, limit))
    ]:
        sizes = Counter(place for place, _ in samples)
        drawn += sizes
        failed: defaultdict[int, list[Exception]] = defaultdict(list)
        async with aclosing(results_of([sample(*each) for each in samples], in_order)) as answers:
            async for place, answer in answers:
                if isinstance(answer, Exception):
                    failed[place].append(answer)
                elif await asyncio.to_thread(params.is_new, answer.text, said):
                    missing[place] -= 1
                    said.append(answer.text)
                    yield answer
        for place, errors in failed.items():
            alike = len({type(each) for each in errors}) == 1
            if alike and missing[place] == params.n and len(errors) == sizes[place]:
                given_up.append(errors[0])
                missing[place] = 0
        if given_up and len(given_up) == len(draws):
            raise given_up[0]


async def results_of(work: list[Coroutine[Any, Any, T]], in_order: bool) -> AsyncGenerator[T]:
    """Run coroutines at once and yield their results; an error, or closing, cancels the rest.

    Args:
        work: The coroutines.
        in_order: Yield in the order of `work`, after the last has finished, rather than as they
            finish.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        for task in asyncio.as_completed(tasks):
            result = await task
            if not in_order:
                yield result
        if in_order:
            for done in tasks:
                yield done.result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def blocking(results: AsyncGenerator[T]) -> Iterator[T]:
    """Iterate over an async generator, which runs in a thread; closing cancels what still runs."""
    arrived: SimpleQueue[T | None] = SimpleQueue()
    started: Future[asyncio.Task[Any]] = Future()

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        started.set_result(task)
        try:
            async for result in results:
                arrived.put(result)
        finally:
            arrived.put(None)

    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(copy_context().run, asyncio.run, run())
        task = started.result()
        try:
            while (result := arrived.get()) is not None:
                yield result
        except BaseException:
            with suppress(RuntimeError):  # it has finished
                task.get_loop().call_soon_threadsafe(task.cancel)
            raise
        running.result()


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread with an event loop of its own."""

    async def results() -> AsyncGenerator[T]:
        yield await coroutine

    [result] = blocking(results())
    return result
