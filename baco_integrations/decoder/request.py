"""From a conversation and its settings to rows: checked, rendered, with a grammar."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import BacoError, PromptError
from ..core.messages import Message, Messages, conversation, require_text
from ..core.outputs import Usage
from ..core.params import SamplingParams
from ..core.tool_calls import CallFormat, CallReader
from ..engines.local.engine import too_late
from ..engines.local.sequence import Row
from ..policy.routers import GuardedRouter
from ..policy.step import ALIGNED, BASE
from ..text.grammar import GrammarMatcher, Grammars
from ..text.prompts import with_schema
from ..text.templates import rendering_until
from ..text.trial import OutOfTimeError
from .stream import SOURCES, Sample

if TYPE_CHECKING:
    from ..engines.local.cuda_graphs import Mode
    from ..engines.local.runner import Side

LARGE = 2**16
"""For vocabularies of so many tokens, what compiles grammars is made before the first request."""

ROOMY = 8
"""Texts with more characters for each token of the window hardly ever fit into it."""


class Pair(Protocol):
    """What the decoder asks of a pair; `ModelPair` and `ScriptedPair` provide it."""

    name: str
    vocabulary: Any
    shared: Any
    base_size: int
    aligned_size: int
    base_eos: frozenset[int]
    aligned_eos: frozenset[int]
    base_stop: tuple[str, ...]
    context: tuple[int, int]
    call_format: CallFormat
    call_markers: dict[int, bytes]

    def render_base(self, messages: Messages, *, tokenize: bool = False) -> Any:
        """Return what the base model is fed."""

    def render_aligned(
        self,
        messages: Messages,
        *,
        tokenize: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Any:
        """Return what the aligned model is fed."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text as the aligned model reads it."""

    def open_sides(self, max_rows: int, graphs: Mode = "off") -> tuple[Side, Side]:
        """Return base and aligned, ready to decode so many rows at once."""


class Renderer:
    """Makes rows of requests; safe to use from many threads at once.

    Args:
        pair: The pair of models.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._grammars: dict[bool, Grammars] = {}
        self._compiling = threading.Lock()
        if len(pair.vocabulary.token_bytes) >= LARGE:
            threading.Thread(target=self._prepare, name="baco-grammars").start()

    def rows(self, messages: Messages, params: SamplingParams, began: float) -> list[Row]:
        """Return a request's rows, one for each sample.

        Args:
            messages: The conversation.
            params: The request's settings.
            began: When it came, by `time.monotonic`, in seconds; its timeout counts from then.

        Raises:
            DeadlineError: The time is over before everything is rendered and compiled.
            ParameterError: A schema or a pattern cannot be compiled.
            PromptError: The conversation is malformed, or does not fit the models' windows.
        """
        checked = conversation(messages)
        require_text(checked)
        deadline = deadline_of(params, began)
        if time.monotonic() > deadline:
            raise too_late(params, 0, params.max_tokens)
        prompts = self._prompts_until(deadline, checked, params)
        room = self._room(prompts)
        seed = secrets.randbits(53) if params.seed is None else params.seed
        spelling = self._spelling(bool(params.offered))
        usage = Usage(len(prompts[ALIGNED]), len(prompts[BASE]), 0)
        guard = None if isinstance(params.router, str) else _guard(params.router)
        # Of what the ids of calls are made: prompts may be long, and samples many.
        origin = blake2b(repr((prompts, seed)).encode()).digest() if params.offered else b""
        end = self._pair.base_eos if params.spec.only == "base" else self._pair.aligned_eos
        matcher = self._guide(params, end, deadline)
        return [
            Row(
                prompts=prompts,
                params=params,
                seed=seed,
                index=index,
                end=end,
                limit=min(params.max_tokens, room),
                room=room,
                sink=Sample(
                    params,
                    seed,
                    index,
                    usage,
                    spelling,
                    self._pair.base_stop,
                    self._reader(params, (origin, index)),
                ),
                guard=guard,
                matcher=matcher.fresh() if matcher and index else matcher,
                deadline=deadline,
            )
            for index in range(params.n)
        ]

    def _prompts_until(
        self, deadline: float, messages: list[Message], params: SamplingParams
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        try:
            with rendering_until(deadline):
                return self._prompts(messages, params)
        except PromptError as error:
            if time.monotonic() > deadline:
                raise too_late(params, 0, params.max_tokens) from error
            raise

    def _prompts(
        self, messages: list[Message], params: SamplingParams
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Render for both sides; only the aligned model is told of schemas and tools."""
        told = messages
        if params.json_schema is not None and params.show_schema:
            told = with_schema(messages, params.json_schema)
        tools = {"tools": list(params.offered)} if params.offered else {}
        try:
            self._refuse_far_too_long(told, tools)
            return (
                tuple(self._pair.render_base(messages, tokenize=True)),
                tuple(self._pair.render_aligned(told, tokenize=True, **tools)),
            )
        except BacoError:
            raise
        except Exception as error:  # of a base prompt or a pair of the user's own
            raise PromptError(
                "messages",
                "a conversation that the pair can render",
                messages,
                f"Rendering it fails with {type(error).__name__}: {error}.",
            ) from error

    def _refuse_far_too_long(self, messages: list[Message], tools: Mapping[str, Any]) -> None:
        """Refuse what is far beyond the window before all of it is tokenised: that takes long.

        Tokenising keeps other requests of the pair waiting, so it is done piece by piece.
        """
        window = self._pair.context[ALIGNED]
        told = [*(value for message in messages for value in message.values()), tools]
        if sum(len(str(value)) for value in told) <= ROOMY * window:
            return
        text, count = str(self._pair.render_aligned(messages, **tools)), 0
        for start in range(0, len(text), window):
            count += len(self._pair.encode(text[start : start + window]))
            if count > 2 * window:  # where pieces are cut, some tokens are others
                raise _too_long("aligned", window, f"more than {count} tokens")

    def _spelling(self, calls: bool) -> Sequence[bytes]:
        """Return what each token adds to the text; what frames a call counts only with tools."""
        spelled: Sequence[bytes] = self._pair.vocabulary.token_bytes
        if not (calls and self._pair.call_markers):
            return spelled
        spelled = list(spelled)
        for token, data in self._pair.call_markers.items():
            spelled[token] = data
        return spelled

    def _reader(self, params: SamplingParams, origin: object) -> CallReader | None:
        if not params.offered:
            return None
        names = [tool["function"]["name"] for tool in params.offered]
        # The same request gives the same ids, another turn of a conversation gives others; nine
        # letters and digits, because some chat templates take no other ids.
        digest = blake2b(repr(origin).encode()).hexdigest()
        return CallReader(
            self._pair.call_format, names, lambda index: f"{digest[:6]}{index % 1000:03d}"
        )

    def _guide(
        self, params: SamplingParams, end: Collection[int], deadline: float
    ) -> GrammarMatcher | None:
        if not (params.offered or params.json_schema is not None or params.regex or params.choices):
            return None
        # Outside of the lock: a schema that takes long keeps no other request waiting.
        try:
            grammars = self._compiler(bool(params.offered and self._pair.call_markers), deadline)
            return grammars.matcher(params, end, deadline)
        except OutOfTimeError:
            raise too_late(params, 0, params.max_tokens) from None

    def _compiler(self, calls: bool, deadline: float = math.inf) -> Grammars:
        """Return what compiles grammars, over a vocabulary with the tokens that frame calls."""
        left = min(max(deadline - time.monotonic(), 0), threading.TIMEOUT_MAX)
        if not self._compiling.acquire(timeout=left):
            raise OutOfTimeError
        try:
            if calls not in self._grammars:
                control = self._pair.vocabulary.control
                spelled = enumerate(self._pair.vocabulary.token_bytes)
                text = [b"" if control[i] else data for i, data in spelled]
                for marker, data in self._pair.call_markers.items() if calls else ():
                    text[marker] = data
                self._grammars[calls] = Grammars(text, self._pair.encode, self._pair.call_format)
            return self._grammars[calls]
        finally:
            self._compiling.release()

    def _prepare(self) -> None:
        with suppress(Exception):  # whoever asks for a grammar is told
            self._compiler(False)

    def _room(self, prompts: tuple[tuple[int, ...], tuple[int, ...]]) -> int:
        """Return how many tokens fit behind the prompts of both sides."""
        for source, prompt, window in zip(SOURCES, prompts, self._pair.context, strict=True):
            if not prompt:
                raise PromptError(
                    "messages",
                    f"a conversation that renders to at least one token for the {source} model",
                    "an empty prompt",
                    "Add some text, or choose another base prompt.",
                )
            if len(prompt) >= window:
                raise _too_long(source, window, f"{len(prompt)} tokens")
        return min(w - len(p) for w, p in zip(self._pair.context, prompts, strict=True))


def _too_long(source: str, window: int, told: str) -> PromptError:
    return PromptError(
        "messages",
        f"shorter than the {source} model's context window of {window} tokens",
        told,
        "Shorten the conversation, or use a pair with a longer window.",
    )


def deadline_of(params: SamplingParams, began: float) -> float:
    """Return when a request fails that came at `began`, both by `time.monotonic`."""
    return math.inf if params.timeout is None else began + params.timeout


def _guard(router: Any) -> GuardedRouter | None:
    return GuardedRouter(router) if callable(getattr(router, "route", None)) else None
