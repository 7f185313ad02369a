"""The decoder that everything shares: conversations in, text with provenance out.

It renders a conversation for both sides, submits one row per sample to the engine, and turns the
tokens that come back into text. Every way of asking, whole or streamed, sync or async, one prompt
or many, goes through `Decoder._submit`.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from copy import deepcopy
from functools import partial
from types import TracebackType
from typing import Any, Literal, cast, overload

from .core.errors import BacoError, DecoderClosedError, ParameterError, PromptError
from .core.messages import Message, Messages, conversation
from .core.params import SamplingParams
from .core.trace import Completion
from .decoding.engine import Engine
from .decoding.graphs import MODES, Mode
from .decoding.lookahead import Depth
from .decoding.metrics import Metrics
from .decoding.row import Row
from .decoding.tables import Tables
from .rendering import Pair, Renderer
from .streams import AsyncStream, Sample, Stream

LONG = 4096
"""A conversation of more characters is rendered in a thread, where an event loop would wait."""


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
        _check_settings(sizes, lookahead, graphs)
        if not hasattr(pair, "open_sides"):
            raise ParameterError(
                "pair", "a ModelPair or a ScriptedPair", pair, "Try ModelPair.from_preset(...)."
            )
        self.pair = pair
        self._renderer = Renderer(pair)
        # One thread, as a pair renders one prompt at a time; it begins with the first prompt.
        self._beside = ThreadPoolExecutor(1, "baco-prompts")
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
        if not self._engine.forked:
            self._beside.shutdown(wait=False, cancel_futures=True)
        for stream in list(self._unrendered):
            stream.publish(DecoderClosedError("the decoder was closed before this request ran."))
        self._unrendered.clear()

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
                prepared.append(self._prepared(messages, own, settings))
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
        stream = self._prepared(messages, params, settings)
        self._submit([stream], streaming)
        return stream

    def _prepared(
        self, messages: Messages, params: SamplingParams | None, settings: Mapping[str, Any]
    ) -> Stream:
        """Check and render a request; nothing has run yet when this raises."""
        rows = self._renderer.rows(messages, _checked_params(params, settings), time.monotonic())
        return Stream(self._engine, rows, self)

    def _astream(
        self,
        messages: Messages,
        params: SamplingParams | None,
        settings: Mapping[str, Any],
        *,
        streaming: bool,
    ) -> AsyncStream:
        params, checked = _checked_params(params, settings), conversation(messages)
        self._engine.require_open()
        # Whoever comes while another is rendered would wait for the tokenizer.
        late = bool(self._unrendered) or _length(checked, params) > LONG
        rendered = deepcopy(checked) if late else checked
        prepare = partial(self._renderer.rows, rendered, params, time.monotonic())
        stream = AsyncStream(self._engine, [], self)
        submit = partial(self._submit, [stream], streaming)
        if late:
            self._unrendered.add(stream)
            try:
                self._beside.submit(copy_context().run, self._render, stream, prepare, submit)
                return stream
            except RuntimeError:  # the decoder has been closed meanwhile, or the interpreter ends
                self._unrendered.discard(stream)
        stream.begin(prepare, submit)
        return stream

    def _render(
        self, stream: AsyncStream, prepare: Callable[[], list[Row]], submit: Callable[[], None]
    ) -> None:
        try:
            self._engine.require_open()
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


def _check_settings(sizes: Mapping[str, object], lookahead: object, graphs: object) -> None:
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
