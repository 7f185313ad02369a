"""The decoder that everything shares: conversations in, text with provenance out.

It renders a conversation for both sides, submits a request for each sample to the pair's engine,
and turns the tokens that come back into text. Rendering may take long: a sync call does it in its
caller's thread, an async one in a thread of the decoder's.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextvars import copy_context
from functools import partial
from typing import Any

from ..core.errors import (
    DecoderClosedError,
    DecoderError,
    ParameterError,
    QueueFullError,
)
from ..core.messages import Messages
from ..core.params import SamplingParams
from ..core.registry import Registry
from ..core.threads import Pool
from ..engines.base import Engine, EngineSettings
from ..engines.metrics import Metrics
from ..engines.open import open_engine
from ..models.base import Pair, is_pair
from .base import BaseDecoder
from .request import Renderer
from .settings import Prompt, checked_prompt, deadline_of, params_of_call
from .stream import AsyncStream, Stream
from .users import Users

MAX_RENDERING = 4
"""Most requests of event loops that are rendered at once: one that takes long holds up nobody."""

_SHARED: dict[int, Decoder] = {}
_TURNS: Registry[Any] = Registry()


class Decoder(BaseDecoder):
    """Decodes with a pair of models; safe to use from many threads and event loops at once.

    All requests, from any thread, share one batch, which changes no text but for rounding: in
    bfloat16 and float16 it may turn near ties. Most callers want `Decoder.shared`, which
    keeps one decoder per pair in the process.

    Args:
        pair: The pair of models.
        engine: An engine that is open already, for this decoder alone; settings are then its own.
        max_prompt_tokens: Longest prompt, in tokens of aligned's; the window if left out.
        **settings: Those of `EngineSettings`, such as ``max_rows`` or ``lookahead``.

    Raises:
        ParameterError: A setting is unknown or its value is not allowed, or `pair` is no pair.
    """

    engine: Engine

    def __init__(
        self,
        pair: Pair,
        *,
        engine: Engine | None = None,
        max_prompt_tokens: int | None = None,
        **settings: Any,
    ) -> None:
        opened = EngineSettings(**settings)
        if engine is not None and settings:
            raise ParameterError(
                "settings", "left out where an engine is given", settings, "Open it with them."
            )
        require_pair(pair)
        self.pair = pair
        self._renderer = Renderer(pair, max_prompt_tokens)
        self._rendering = Pool(MAX_RENDERING, "baco-prompts")
        self._unrendered: set[AsyncStream] = set()
        self._users = Users()
        self.engine = engine or open_engine(pair, opened)
        self._settings = self.engine.settings
        weakref.finalize(self, self.engine.stop)

    # -- sharing -----------------------------------------------------------------------------

    @classmethod
    def shared(cls, pair: Pair, user: object | None = None, **settings: Any) -> Decoder:
        """Return the process's one decoder of a pair, opening it at the first call.

        The first call may give settings; later ones, by chat models for example, share the decoder.

        Args:
            pair: The pair. Pairs loaded with the same parameters are the same object.
            user: An object that uses the decoder. It counts once, until `close` or until it is
                gone; a call without it counts until its `close`.
            **settings: Settings of the constructor, such as ``prefix_bytes``.

        Raises:
            ParameterError: A setting is not allowed, or it is open already, and was opened with
                other settings; or `user` cannot be told from others.
        """
        Users.require(user)
        with _TURNS.turn(id(pair)):  # who uses another pair does not wait for this one to open
            decoder = _SHARED.get(id(pair))
            if decoder is None or decoder.closed:
                decoder = _SHARED[id(pair)] = cls(pair, **settings)
            elif settings and EngineSettings(**settings) != decoder._settings:
                opened = decoder._settings.model_dump(exclude_unset=True)
                raise ParameterError(
                    "settings",
                    f"left out, or {opened}, with which this decoder was opened",
                    settings,
                    "Call Decoder.shared with settings before anything else uses the pair.",
                )
            decoder._users.add(user)
            return decoder

    def close(self, user: object | None = None) -> None:
        """Stop using the decoder; the last user's close stops the engine and frees its memory.

        Requests that still run then fail with `DecoderClosedError`. Each close undoes one
        `shared`; a decoder made by hand has one user.

        Args:
            user: The object that was given to `shared`, if one was.

        Raises:
            ParameterError: `user` cannot be told from others.
        """
        Users.require(user)
        with _TURNS.turn(id(self.pair)):
            self._users.remove(user)
            if self._users:
                return
            if _SHARED.get(id(self.pair)) is self:
                del _SHARED[id(self.pair)]
        if self.engine.forked:
            return  # nobody here waits for anything
        self.engine.close()
        for stream in list(self._unrendered):
            stream.mailbox.publish(
                DecoderClosedError("the decoder was closed before this request ran.")
            )

    @property
    def closed(self) -> bool:
        """Whether the decoder has been closed."""
        return self.engine.closed

    @property
    def metrics(self) -> Metrics:
        """Counts of what the decoder has done so far."""
        return self.engine.metrics

    @property
    def max_rows(self) -> int:
        """Most samples that are decoded at once."""
        return self._settings.max_rows

    @property
    def running(self) -> int:
        """How many samples are being prefilled or decoded."""
        return self.engine.running

    @property
    def waiting(self) -> int:
        """How many samples wait for their turn."""
        return self.engine.waiting

    # -- the one path ------------------------------------------------------------------------

    def _prepare(
        self,
        messages: Messages,
        params: SamplingParams | None,
        settings: Mapping[str, Any],
        *,
        streaming: bool,
    ) -> Stream:
        """Check and render a request; return its stream, which has not been submitted yet.

        Raises:
            DecoderClosedError: The engine is closed.
            DecoderError: A time limit has passed, or the caller is the engine's own thread.
            ParameterError: A setting is not allowed.
            PromptError: The conversation is malformed or does not fit into the context window.
        """
        checked = params_of_call(params, settings)
        deadline = deadline_of(checked)
        self.engine.require_open()
        stream = Stream(self.engine, self, checked, deadline, streaming=streaming)
        publish = stream.mailbox.publish
        requests = self._renderer.requests(messages, checked, deadline, publish)
        self.engine.capabilities.require(requests[0])
        stream.mailbox.requests += requests
        return stream

    def _astream(
        self,
        messages: Messages,
        params: SamplingParams | None,
        settings: Mapping[str, Any],
        *,
        streaming: bool,
    ) -> AsyncStream:
        checked = params_of_call(params, settings)
        deadline = deadline_of(checked)
        self.engine.require_open()
        if len(self._unrendered) >= self._settings.max_waiting:
            raise QueueFullError(
                f"{len(self._unrendered)} requests wait to be rendered, and the queue holds no "
                "more. Send fewer at once, or raise max_waiting."
            )
        prompt = checked_prompt(messages, checked)
        stream = AsyncStream(self.engine, self, checked, deadline, streaming=streaming)
        render = partial(self._render, stream, prompt, checked, deadline)
        self._unrendered.add(stream)
        try:
            self._rendering.submit(partial(copy_context().run, render))
        except RuntimeError as error:
            self._unrendered.discard(stream)
            raise DecoderError(
                f"the process can start no thread to render with: {error}"
            ) from error
        return stream

    def _render(
        self, stream: AsyncStream, prompt: Prompt, params: SamplingParams, deadline: float
    ) -> None:
        publish = stream.mailbox.publish
        try:
            try:
                self.engine.require_open()
                if not stream.wanted:
                    return
                requests = self._renderer.requests(prompt, params, deadline, publish)
            finally:
                self._unrendered.discard(stream)
            stream.begin(requests)
        except BaseException as error:  # whatever it is must reach the reader, who waits
            publish(error)


def require_pair(pair: object) -> None:
    """Refuse what is no pair.

    Raises:
        ParameterError: It is none.
    """
    if not is_pair(pair):
        raise ParameterError(
            "pair", "a ModelPair or a ScriptedPair", pair, "Try ModelPair.from_preset(...)."
        )
