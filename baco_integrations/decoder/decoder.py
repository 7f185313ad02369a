"""The decoder that everything shares: conversations in, text with provenance out.

It renders a conversation for both sides, submits one row per sample to the engine, and turns the
tokens that come back into text. Every way of asking, whole or streamed, sync or async, one prompt
or many, goes through `Decoder._submit`. Rendering may take long: a sync request does it in its
caller's thread, an async one in a thread of the decoder's.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Annotated, Any, Literal, TypeVar, cast, overload

from pydantic import Field

from ..core.errors import (
    BacoError,
    DecoderClosedError,
    DecoderError,
    ParameterError,
    PromptError,
    QueueFullError,
)
from ..core.messages import Messages, conversation
from ..core.outputs import Completion
from ..core.params import SamplingParams
from ..core.registry import Registry
from ..core.settings import Checked, Integer, param
from ..core.threads import Pool
from ..engines.local.cuda_graphs import Mode
from ..engines.local.engine import Engine, failure
from ..engines.local.sequence import Row
from ..engines.local.speculative import Depth
from ..engines.metrics import Metrics
from ..policy.token_classes import TokenClasses
from .request import Pair, Renderer, deadline_of
from .stream import AsyncStream, Sample, Stream

T = TypeVar("T")

RENDERING = 4
"""Most requests of event loops that are rendered at once: one that takes long holds up nobody."""


class DecoderSettings(Checked):
    """How a decoder is opened; see `Decoder` for what the settings mean.

    Raises:
        ParameterError: A value is not allowed; raised when the object is made.
    """

    max_rows: Annotated[Integer, Field(ge=1)] = param(
        32, "a whole number of at least 1", "Leave it out if in doubt."
    )
    max_waiting: Annotated[Integer, Field(ge=1)] = param(
        65536, "a whole number of at least 1", "Leave it out if in doubt."
    )
    lookahead: Literal["auto", "off"] | Annotated[Integer, Field(ge=0, le=64)] | None = param(
        None,
        "'auto', 'off', or a whole number up to 64",
        "'auto' drafted ahead where that saves time.",
    )
    prefix_bytes: Annotated[Integer, Field(ge=0)] = param(
        2**30, "a whole number of at least 0", "Leave it out if in doubt."
    )
    graphs: Mode = param("off", "one of auto, on, off", "'auto' is 'on' for CUDA devices.")


class Decoder:
    """Decodes with a pair of models; safe to use from many threads and event loops at once.

    All requests, whoever sends them, meet in one batch. Most callers want `Decoder.shared`, which
    keeps one decoder per pair in the process.

    Args:
        pair: The pair of models.
        **settings: The settings of `DecoderSettings`, which follow.
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
        ParameterError: A setting is unknown or its value is not allowed, or `pair` is no pair.
    """

    def __init__(self, pair: Pair, **settings: Any) -> None:
        self._settings = own = DecoderSettings(**settings)
        if isinstance(pair, type) or not hasattr(pair, "open_sides"):
            raise ParameterError(
                "pair", "a ModelPair or a ScriptedPair", pair, "Try ModelPair.from_preset(...)."
            )
        self.pair = pair
        self._renderer = Renderer(pair)
        self._beside = Pool(RENDERING, "baco-prompts")
        self._unrendered: set[AsyncStream] = set()
        self._users = 0
        self._known_users: weakref.WeakSet[Any] = weakref.WeakSet()
        base, aligned = pair.open_sides(own.max_rows, own.graphs)
        classes = token_classes_of(pair, getattr(aligned, "device", "cpu"))
        ahead: Depth = getattr(pair, "lookahead", "auto")
        ahead = ahead if own.lookahead is None else own.lookahead
        self._engine = Engine(
            base,
            aligned,
            classes,
            max_rows=own.max_rows,
            max_waiting=own.max_waiting,
            lookahead=ahead,
            prefix_bytes=own.prefix_bytes,
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
            ParameterError: A setting is not allowed, or it is open already, and was opened with
                other settings; or `user` cannot be told from others.
        """
        _require_user(user)
        with _TURNS.turn(id(pair)):  # who uses another pair does not wait for this one to open
            decoder = _SHARED.get(id(pair))
            if decoder is None or decoder.closed:
                decoder = _SHARED[id(pair)] = cls(pair, **settings)
            elif settings and DecoderSettings(**settings) != decoder._settings:
                opened = decoder._settings.model_dump(exclude_unset=True)
                raise ParameterError(
                    "settings",
                    f"left out, or {opened}, with which this decoder was opened",
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

        Raises:
            ParameterError: `user` cannot be told from others.
        """
        _require_user(user)
        with _TURNS.turn(id(self.pair)):
            if user is None:
                self._users = max(self._users - 1, 0)
            else:
                self._known_users.discard(user)
            if self._users or len(self._known_users):
                return
            if _SHARED.get(id(self.pair)) is self:
                del _SHARED[id(self.pair)]
        if self._engine.forked:
            return  # nobody here waits for anything
        self._engine.close()
        for stream in list(self._unrendered):
            stream.publish(DecoderClosedError("the decoder was closed before this request ran."))

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
            DecoderError: Decoding cannot go on: see its kinds.
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

        Settings, and the form of the messages, are checked at once. The conversation is rendered
        in a thread, so all else that is wrong with it is told with the first token.
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
                its neighbours are decoded all the same. What a router of the user's own raises
                becomes the cause of a `WorkerError`.
            **settings: Single settings, over those of `params`.

        Returns:
            Per conversation, its completions.

        Raises:
            ParameterError: As for `generate`; raised before anything is decoded.
        """
        if not isinstance(return_exceptions, bool):
            raise ParameterError(
                "return_exceptions", "True or False", return_exceptions, "The default is False."
            )
        each = self._per_conversation(conversations, params)
        self._engine.require_open()
        settled = _settled if return_exceptions else _called
        prepared = [
            settled(partial(self._prepared, messages, own, settings))
            for messages, own in zip(conversations, each, strict=True)
        ]
        try:
            self._submit([each for each in prepared if isinstance(each, Stream)], streaming=False)
        except QueueFullError:
            if not return_exceptions:
                raise
            # Not all have room, but some may.
            prepared = [
                settled(partial(self._submitted, each)) if isinstance(each, Stream) else each
                for each in prepared
            ]
        try:
            return [
                settled(partial(_drained, each)) if isinstance(each, Stream) else each
                for each in prepared
            ]
        except BaseException:  # whoever keeps it keeps the streams that run beside, too
            streams = [each for each in prepared if isinstance(each, Stream)]
            self._engine.cancel([row for each in streams for row in each.rows])
            raise

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
        self._engine.require_open()
        stream = self._prepared(messages, params, settings)
        self._submit([stream], streaming)
        return stream

    def _prepared(
        self, messages: Messages, params: SamplingParams | None, settings: Mapping[str, Any]
    ) -> Stream:
        """Check and render a request; nothing has run yet when this raises."""
        began, checked = time.monotonic(), _checked_params(params, settings)
        rows = self._renderer.rows(messages, checked, began)
        return Stream(self._engine, rows, self, checked, deadline_of(checked, began))

    def _astream(
        self,
        messages: Messages,
        params: SamplingParams | None,
        settings: Mapping[str, Any],
        *,
        streaming: bool,
    ) -> AsyncStream:
        began, checked = time.monotonic(), _checked_params(params, settings)
        self._engine.require_open()
        if len(self._unrendered) >= self._engine.max_waiting:
            raise QueueFullError(
                f"{len(self._unrendered)} requests wait to be rendered, and the queue holds no "
                "more. Send fewer at once, or raise max_waiting."
            )
        prepare = partial(self._renderer.rows, conversation(messages), checked, began)
        stream = AsyncStream(self._engine, [], self, checked, deadline_of(checked, began))
        submit = partial(self._submit, [stream], streaming)
        self._unrendered.add(stream)
        try:
            self._beside.submit(partial(copy_context().run, self._render, stream, prepare, submit))
        except RuntimeError as error:
            self._unrendered.discard(stream)
            raise DecoderError(
                f"the process can start no thread to render with: {error}"
            ) from error
        return stream

    def _render(
        self, stream: AsyncStream, prepare: Callable[[], list[Row]], submit: Callable[[], None]
    ) -> None:
        try:
            try:
                self._engine.require_open()
                rows = prepare() if stream.wanted else []
            finally:
                self._unrendered.discard(stream)
            stream.begin(rows, submit)
        except BaseException as error:  # whatever it is must reach the reader, who waits
            stream.publish(error)

    def _submit(self, streams: Sequence[Stream | AsyncStream], streaming: bool) -> None:
        """Let the rows of some streams run, all or none."""
        for stream in streams:
            for row in stream.rows:
                sample = cast(Sample, row.sink)
                sample.publish, sample.streaming = stream.publish, streaming
        self._engine.submit([row for stream in streams for row in stream.rows])

    def _submitted(self, stream: Stream) -> Stream:
        self._submit([stream], streaming=False)
        return stream

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


def _require_user(user: object) -> None:
    try:
        hash(weakref.ref(user))
    except TypeError:
        if user is not None:
            raise ParameterError(
                "user",
                "an object that can be weakly referenced and hashed",
                user,
                "It counts until it is gone. Leave it out to count until close().",
            ) from None


def _called(call: Callable[[], T]) -> T:
    return call()


def _settled(call: Callable[[], T]) -> T | BacoError:
    """Return what a call returns, or the error that it raises."""
    try:
        return call()
    except BacoError as error:
        return error
    except Exception as error:  # of a router of the user's own
        return failure(error)


def _drained(stream: Stream) -> list[Completion]:
    with stream:
        for _ in stream:
            pass
    return stream.completions


def token_classes_of(pair: Pair, device: Any) -> TokenClasses:
    """Return the classes of a pair's vocabulary, where the logits meet."""
    vocabulary, text = pair.vocabulary, pair.shared.copy()
    for end in (*pair.base_eos, *pair.aligned_eos):
        text[end : end + 1] = False  # whatever it spells, it ends a turn
    return TokenClasses.build(
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


_SHARED: dict[int, Decoder] = {}
_TURNS: Registry[Any] = Registry()
