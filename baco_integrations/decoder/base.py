"""How decoders are asked, whether their models are in this process or on another machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, overload

from typing_extensions import Self

from ..core.errors import BacoError, ParameterError, QueueFullError
from ..core.messages import Messages
from ..core.outputs import Completion
from ..core.params import SamplingParams
from .settings import params_of_each
from .stream import AsyncStream, Stream

T = TypeVar("T")


class BaseDecoder(ABC):
    """Answers conversations: whole, as streams, in batches, with and without an event loop.

    Attributes:
        engine: What decodes.
    """

    engine: Any

    @abstractmethod
    def close(self) -> None:
        """Stop using the decoder."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def generate(
        self, messages: Messages, params: SamplingParams | None = None, **settings: Any
    ) -> list[Completion]:
        """Decode a conversation to its end.

        Args:
            messages: Role/content dicts, or one string; with ``raw``, one text or token ids.
            params: How to decode.
            **settings: Single settings, over those of `params`.

        Returns:
            ``n`` completions, in order.

        Raises:
            ParameterError: A setting is not allowed.
            PromptError: The conversation is malformed or does not fit into the context window.
            DecoderError: Decoding cannot go on: see its kinds.
        """
        return self._streaming(messages, params, settings, streaming=False).drain()

    def stream(
        self, messages: Messages, params: SamplingParams | None = None, **settings: Any
    ) -> Stream:
        """Decode a conversation token by token; arguments and errors as for `generate`."""
        return self._streaming(messages, params, settings, streaming=True)

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
        in a thread, so any other error of it is raised when the first token is read.
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
        each = params_of_each(conversations, params)
        self.engine.require_open()
        call = settled if return_exceptions else called
        prepared = [
            call(partial(self._prepare, messages, own, settings, streaming=False))
            for messages, own in zip(conversations, each, strict=True)
        ]
        streams = [stream for stream in prepared if isinstance(stream, Stream)]
        try:
            self._submit(streams)
        except QueueFullError:
            if not return_exceptions:
                raise
            # Not all have room, but some may.
            prepared = [
                call(partial(self._submitted, stream)) if isinstance(stream, Stream) else stream
                for stream in prepared
            ]
        try:
            return [
                call(stream.drain) if isinstance(stream, Stream) else stream for stream in prepared
            ]
        except BaseException:  # whoever keeps it keeps the streams that run beside, too
            for stream in streams:
                stream.cancel()
            raise

    # -- what is particular ------------------------------------------------------------------

    @abstractmethod
    def _prepare(
        self,
        messages: Messages,
        params: SamplingParams | None,
        settings: Mapping[str, Any],
        *,
        streaming: bool,
    ) -> Stream:
        """Check a request; return its stream, which has not been submitted yet."""

    @abstractmethod
    def _astream(
        self,
        messages: Messages,
        params: SamplingParams | None,
        settings: Mapping[str, Any],
        *,
        streaming: bool,
    ) -> AsyncStream:
        """Check a request, and return a stream of it for event loops."""

    def _submit(self, streams: Sequence[Stream]) -> None:
        self.engine.submit([request for each in streams for request in each.mailbox.requests])

    def _submitted(self, stream: Stream) -> Stream:
        self._submit([stream])
        return stream

    def _streaming(self, *asked: Any, streaming: bool) -> Stream:
        return self._submitted(self._prepare(*asked, streaming=streaming))


def called(call: Callable[[], T]) -> T:
    """Return what a call returns."""
    return call()


def settled(call: Callable[[], T]) -> T | BacoError:
    """Return what a call returns, or its error: a `WorkerError` for what is not a `BacoError`."""
    try:
        return call()
    except BacoError as error:
        return error
    except Exception as error:  # of a router of the user's own
        from ..engines.faults import worker_failure

        return worker_failure(error)
