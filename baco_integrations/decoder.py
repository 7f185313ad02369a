"""The decoder that everything shares: conversations in, text with provenance out.

It renders a conversation for both sides, submits one row per sample to the engine, and turns the
tokens that come back into text. Every way of asking, whole or streamed, sync or async, one prompt
or many, goes through `Decoder._submit`.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

from .core.calls import CallFormat, CallReader
from .core.errors import BacoError, ParameterError, PromptError
from .core.messages import Message, Messages, conversation, require_text
from .core.params import SamplingParams
from .core.trace import Completion, Usage
from .decoding.engine import Engine
from .decoding.graphs import MODES, Mode
from .decoding.lookahead import Depth
from .decoding.metrics import Metrics
from .decoding.routers import GuardedRouter
from .decoding.row import Row
from .decoding.step import ALIGNED, BASE
from .decoding.tables import Tables
from .pair.grammar import Grammars, Guide
from .pair.prompts import with_schema
from .streams import SOURCES, AsyncStream, Sample, Stream

if TYPE_CHECKING:
    from .decoding.sides import Side


LONG = 4096
"""A conversation of more characters is rendered in a thread, where an event loop would wait."""


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


class Decoder:
    """Decodes with a pair of models; safe to use from many threads and event loops at once.

    All requests, whoever sends them, meet in one batch. Most callers want `Decoder.shared`, which
    keeps one decoder per pair in the process.

    Args:
        pair: The pair of models.
        max_rows: Most samples that are decoded at once; further ones wait.
        max_waiting: Most samples that wait; beyond that, requests are refused.
        lookahead: How many tokens base reads ahead before aligned checks them all at once: ``auto``
            as many as save time, ``off`` none, or so many. It changes no text. Left out, it is
            ``auto`` for models and ``off`` for scripts.
        prefix_bytes: Most bytes to spend on remembering prompts and answers, so that whoever
            begins with the same tokens, as the next turn of a chat does, need not have them read
            again; 0 remembers nothing.
        graphs: Whether forwards are recorded as CUDA graphs and replayed, which saves launching
            their kernels one by one: ``auto`` on CUDA devices, ``off`` nowhere. ``on`` keeps to
            the few shapes that this takes on other devices too, where it saves nothing. Off by
            default, as it has been tested without a GPU only.

    Raises:
        ParameterError: A size is not a positive whole number, or `lookahead` or `graphs` is none
            of these.
    """

    def __init__(
        self,
        pair: Pair,
        *,
        max_rows: int = 32,
        max_waiting: int = 65536,
        lookahead: Depth | None = None,
        prefix_bytes: int = 2**30,
        graphs: Mode = "off",
    ) -> None:
        sizes = {"max_rows": max_rows, "max_waiting": max_waiting, "prefix_bytes": prefix_bytes}
        for name, value in sizes.items():
            least = 0 if name == "prefix_bytes" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ParameterError(
                    name, f"a whole number of at least {least}", value, "Leave it out if in doubt."
                )
        if not _is_depth(lookahead):
            raise ParameterError(
                "lookahead",
                "'auto', 'off', or a whole number up to 64",
                lookahead,
                "'auto' guesses ahead where that saves time.",
            )
        if graphs not in MODES:
            raise ParameterError(
                "graphs", f"one of {', '.join(MODES)}", graphs, "'auto' is 'on' for CUDA devices."
            )
        if not hasattr(pair, "open_sides"):
            raise ParameterError(
                "pair", "a ModelPair or a ScriptedPair", pair, "Try ModelPair.from_preset(...)."
            )
        self.pair = pair
        self._grammars: dict[bool, Grammars] = {}
        self._compiling = threading.Lock()
        # One thread, as a pair renders one prompt at a time; it begins with the first prompt.
        self._renderer = ThreadPoolExecutor(1, "baco-prompts")
        self._unrendered: set[AsyncStream] = set()
        self._users = 0
        self._settings: dict[str, Any] = {}
        self._known_users: weakref.WeakSet[Any] = weakref.WeakSet()
        base, aligned = pair.open_sides(max_rows, graphs)
        tables = tables_of(pair, getattr(aligned, "device", "cpu"))
        self._engine = Engine(
            base,
            aligned,
            tables,
            max_rows=max_rows,
            max_waiting=max_waiting,
            lookahead=getattr(pair, "lookahead", "auto") if lookahead is None else lookahead,
            prefix_bytes=prefix_bytes,
        )
        weakref.finalize(self, self._engine.stop)

    # -- sharing -----------------------------------------------------------------------------

    @classmethod
    def shared(cls, pair: Pair, user: object | None = None, **settings: Any) -> Decoder:
        """Return the process's one decoder of a pair, opening it at the first call.

        Whoever opens it first may say how; chat models and others that come later share it.

        Args:
            pair: The pair. Pairs loaded with the same parameters are the same object.
            user: An object that uses the decoder. It counts once, until `close` or until it is
                gone; a call without it counts until its `close`.
            **settings: Settings of the constructor, such as ``prefix_bytes``.

        Raises:
            ParameterError: It is open already, and was opened with other settings.
        """
        with _SHARED_LOCK:
            decoder = _SHARED.get(id(pair))
            if decoder is None or decoder.closed:
                decoder = _SHARED[id(pair)] = cls(pair, **settings)
                decoder._settings = settings
            elif settings and settings != decoder._settings:
                raise ParameterError(
                    "settings",
                    f"left out, or {decoder._settings}, with which this decoder was opened",
                    settings,
                    "Call Decoder.shared with settings before anything else uses the pair.",
                )
            if user is None:
                decoder._users += 1
            else:
                decoder._known_users.add(user)
            return decoder

    def close(self, user: object | None = None) -> None:
        """Stop using the decoder; the last user's close stops the worker and frees its memory.

        Requests that still run then fail with `DecoderClosedError`. Each close undoes one
        `shared`; a decoder made by hand has one user.

        Args:
            user: The object that was given to `shared`, if one was.
        """
        with _SHARED_LOCK:
            if user is None:
                self._users = max(self._users - 1, 0)
            else:
                self._known_users.discard(user)
            if self._users or len(self._known_users):
                return
            if _SHARED.get(id(self.pair)) is self:
                del _SHARED[id(self.pair)]
        self._engine.close()

    @property
    def closed(self) -> bool:
        """Whether the decoder has been closed."""
        return self._engine.closed

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- asking ------------------------------------------------------------------------------

    def generate(
        self, messages: Messages, params: SamplingParams | None = None, **settings: Any
    ) -> list[Completion]:
        """Decode a conversation to its end.

        Args:
            messages: Role/content dicts, or one string.
            params: How to decode.
            **settings: Single settings, over those of `params`.

        Returns:
            ``n`` completions, in order.

        Raises:
            ParameterError: A setting is not allowed.
            PromptError: The conversation is malformed or does not fit into the context window.
        """
        return _drained(self._stream(messages, params, settings, streaming=False))

    def stream(
        self, messages: Messages, params: SamplingParams | None = None, **settings: Any
    ) -> Stream:
        """Decode a conversation token by token; arguments and errors as for `generate`."""
        return self._stream(messages, params, settings, streaming=True)

    async def agenerate(
        self, messages: Messages, params: SamplingParams | None = None, **settings: Any
    ) -> list[Completion]:
        """Decode a conversation without blocking the event loop; as `generate` otherwise."""
        async with self._astream(messages, params, settings, streaming=False) as stream:
            async for _ in stream:
                pass
        return stream.completions

    def astream(
        self, messages: Messages, params: SamplingParams | None = None, **settings: Any
    ) -> AsyncStream:
        """Decode token by token, to be read on any event loop; as `stream` otherwise.

        A long conversation is rendered in a thread; what is wrong with it is told with the first
        token.
        """
        return self._astream(messages, params, settings, streaming=True)

    @overload
    def generate_batch(
        self,
        conversations: Sequence[Messages],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        return_exceptions: Literal[False] = False,
        **settings: Any,
    ) -> list[list[Completion]]: ...

    @overload
    def generate_batch(
        self,
        conversations: Sequence[Messages],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        return_exceptions: bool,
        **settings: Any,
    ) -> list[list[Completion] | BacoError]: ...

    def generate_batch(
        self,
        conversations: Sequence[Messages],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        return_exceptions: bool = False,
        **settings: Any,
    ) -> Any:
        """Decode many conversations in one batch, each with settings of its own if wanted.

        Args:
            conversations: The conversations.
            params: Settings for all, or one per conversation.
            return_exceptions: Put a conversation's error in its place instead of raising it;
                its neighbours are decoded all the same.
            **settings: Single settings, over those of `params`.

        Returns:
            Per conversation, its completions.

        Raises:
            ParameterError: As for `generate`; raised before anything is decoded.
        """
        each = self._per_conversation(conversations, params)
        prepared: list[Stream | BacoError] = []
        for messages, own in zip(conversations, each, strict=True):
            try:
                prepared.append(Stream(self._engine, self._prepare(messages, own, settings), self))
            except BacoError as error:
                if not return_exceptions:
                    raise
                prepared.append(error)
        self._submit([each for each in prepared if isinstance(each, Stream)], streaming=False)
        return [_settled(each, return_exceptions) for each in prepared]

    @property
    def metrics(self) -> Metrics:
        """Counts of what the decoder has done so far."""
        return self._engine.metrics

    @property
    def max_rows(self) -> int:
        """Most samples that are decoded at once."""
        return self._engine.max_rows

    # -- the one path ------------------------------------------------------------------------

    def _stream(
        self,
        messages: Messages,
        params: SamplingParams | None,
        settings: Mapping[str, Any],
        *,
        streaming: bool,
    ) -> Stream:
        stream = Stream(self._engine, self._prepare(messages, params, settings), self)
        self._submit([stream], streaming)
        return stream

    def _astream(
        self,
        messages: Messages,
        params: SamplingParams | None,
        settings: Mapping[str, Any],
        *,
        streaming: bool,
    ) -> AsyncStream:
        params, checked = _checked_params(params, settings), conversation(messages)
        prepare = partial(self._prepare, checked, params, {})
        # Whoever comes while another is rendered would wait for the tokenizer.
        late = bool(self._unrendered) or _length(checked, params) > LONG
        stream = AsyncStream(self._engine, [], self)
        submit = partial(self._submit, [stream], streaming)
        if late and not self.closed:
            self._unrendered.add(stream)
            self._renderer.submit(copy_context().run, self._render, stream, prepare, submit)
        else:
            stream.begin(prepare, submit)
        return stream

    def _render(
        self, stream: AsyncStream, prepare: Callable[[], list[Row]], submit: Callable[[], None]
    ) -> None:
        try:
            stream.begin(prepare, submit)
        except BaseException as error:  # whatever it is must reach the reader, who waits
            stream.publish(error)
        finally:
            self._unrendered.discard(stream)

    def _submit(self, streams: Sequence[Stream | AsyncStream], streaming: bool) -> None:
        """Let the rows of some streams run, all or none."""
        for stream in streams:
            for row in stream.rows:
                sample = cast(Sample, row.sink)
                sample.publish, sample.streaming = stream.publish, streaming
        self._engine.submit([row for stream in streams for row in stream.rows])

    def _prepare(
        self, messages: Messages, params: SamplingParams | None, settings: Mapping[str, Any]
    ) -> list[Row]:
        """Check and render a request; nothing has run yet when this raises."""
        params = _checked_params(params, settings)
        checked = conversation(messages)
        require_text(checked)
        prompts = self._prompts(checked, params)
        room = self._room(prompts)
        seed = secrets.randbits(53) if params.seed is None else params.seed
        spelling = self._spelling(bool(params.offered))
        usage = Usage(len(prompts[ALIGNED]), len(prompts[BASE]), 0)
        deadline = math.inf if params.timeout is None else time.monotonic() + params.timeout
        guard = None if isinstance(params.router, str) else _guard(params.router)
        end = self.pair.base_eos if params.spec.only == "base" else self.pair.aligned_eos
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
                    self.pair.base_stop,
                    self._reader(params, (prompts, seed, index)),
                ),
                guard=guard,
                guide=self._guide(params, end),
                deadline=deadline,
            )
            for index in range(params.n)
        ]

    def _prompts(
        self, messages: list[Message], params: SamplingParams
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Render for both sides; only the aligned model is told of schemas and tools."""
        told = messages
        if params.json_schema is not None and params.show_schema:
            told = with_schema(messages, params.json_schema)
        tools = {"tools": list(params.offered)} if params.offered else {}
        return (
            tuple(self.pair.render_base(messages, tokenize=True)),
            tuple(self.pair.render_aligned(told, tokenize=True, **tools)),
        )

    def _spelling(self, calls: bool) -> Sequence[bytes]:
        """Return what each token adds to the text; what frames a call counts only with tools."""
        spelled: Sequence[bytes] = self.pair.vocabulary.token_bytes
        if not (calls and self.pair.call_markers):
            return spelled
        return [self.pair.call_markers.get(i, data) for i, data in enumerate(spelled)]

    def _reader(self, params: SamplingParams, origin: object) -> CallReader | None:
        if not params.offered:
            return None
        names = [tool["function"]["name"] for tool in params.offered]
        # The same request gives the same ids, another turn of a conversation gives others; nine
        # letters and digits, because some chat templates take no other ids.
        digest = blake2b(repr(origin).encode()).hexdigest()
        return CallReader(
            self.pair.call_format, names, lambda index: f"{digest[:6]}{index % 1000:03d}"
        )

    def _guide(self, params: SamplingParams, end: Collection[int]) -> Guide | None:
        if not (params.offered or params.json_schema is not None or params.regex or params.choices):
            return None
        calls = bool(params.offered and self.pair.call_markers)
        with self._compiling:
            if calls not in self._grammars:
                control = self.pair.vocabulary.control
                spelled = enumerate(self.pair.vocabulary.token_bytes)
                text = [b"" if control[i] else data for i, data in spelled]
                for marker, data in self.pair.call_markers.items() if calls else ():
                    text[marker] = data
                self._grammars[calls] = Grammars(text, self.pair.encode, self.pair.call_format)
            return self._grammars[calls].guide(params, end)

    def _room(self, prompts: tuple[tuple[int, ...], tuple[int, ...]]) -> int:
        """Return how many tokens fit behind the prompts of both sides."""
        for source, prompt, window in zip(SOURCES, prompts, self.pair.context, strict=True):
            if not prompt:
                raise PromptError(
                    "messages",
                    f"a conversation that renders to at least one token for the {source} model",
                    "an empty prompt",
                    "Add some text, or choose another base prompt.",
                )
            if len(prompt) >= window:
                raise PromptError(
                    "messages",
                    f"shorter than the {source} model's context window of {window} tokens",
                    f"{len(prompt)} tokens",
                    "Shorten the conversation, or use a pair with a longer window.",
                )
        return min(w - len(p) for w, p in zip(self.pair.context, prompts, strict=True))

    @staticmethod
    def _per_conversation(
        conversations: Sequence[Messages], params: SamplingParams | Sequence[SamplingParams] | None
    ) -> Sequence[SamplingParams | None]:
        if isinstance(conversations, str) or not isinstance(conversations, Sequence):
            raise PromptError(
                "conversations", "a list of conversations", conversations, "Use generate() for one."
            )
        if params is None or isinstance(params, SamplingParams):
            return [params] * len(conversations)
        if not isinstance(params, Sequence) or len(params) != len(conversations):
            raise ParameterError(
                "params",
                f"one SamplingParams, or a list of {len(conversations)}",
                params,
                "Give one for all, or one per conversation.",
            )
        return params


def _checked_params(params: SamplingParams | None, settings: Mapping[str, Any]) -> SamplingParams:
    if params is None:
        return SamplingParams(**settings)
    if not isinstance(params, SamplingParams):
        raise ParameterError(
            "params", "a SamplingParams", params, "For example SamplingParams(gamma=0.6)."
        )
    return params.replace(**settings) if settings else params


def _length(messages: Sequence[Message], params: SamplingParams) -> int:
    """Return about how many characters are to be rendered."""
    told = [value for message in messages for value in message.values()]
    return sum(len(str(each)) for each in (*told, params.offered, params.json_schema))


def _guard(router: Any) -> GuardedRouter | None:
    return GuardedRouter(router) if callable(getattr(router, "route", None)) else None


def _drained(stream: Stream) -> list[Completion]:
    with stream:
        for _ in stream:
            pass
    return stream.completions


def tables_of(pair: Pair, device: Any) -> Tables:
    """Return the classes of a pair's vocabulary, where the logits meet."""
    vocabulary, text = pair.vocabulary, pair.shared.copy()
    for end in (*pair.base_eos, *pair.aligned_eos):
        text[end : end + 1] = False  # whatever it spells, it ends a turn
    return Tables.build(
        starts_word=vocabulary.starts_word,
        punctuation=vocabulary.punctuation,
        function_word=vocabulary.function_word,
        line_break=vocabulary.line_break,
        text=text,
        token_bytes=vocabulary.token_bytes,
        base_size=pair.base_size,
        aligned_size=pair.aligned_size,
        device=device,
    )


def _is_depth(value: object) -> bool:
    if value is None or value in ("auto", "off"):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 64


def _settled(stream: Stream | BacoError, return_exceptions: bool) -> list[Completion] | BacoError:
    if isinstance(stream, BacoError):
        return stream
    try:
        return _drained(stream)
    except BacoError as error:
        if not return_exceptions:
            raise
        return error


_SHARED: dict[int, Decoder] = {}
_SHARED_LOCK = threading.RLock()
