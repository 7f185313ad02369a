"""A decoder whose models are on another machine."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeVar

from ..core.messages import Messages
from ..core.params import SamplingParams
from ..core.threads import fork_safe
from ..decoder.base import BaseDecoder
from ..decoder.settings import checked_prompt, deadline_of, params_of_call
from ..decoder.stream import AsyncStream, Stream
from ..decoder.users import Users
from .body import request_of
from .client import AT_ONCE, Client
from .engine import RemoteEngine, RemoteRequest
from .pair import ServedPair
from .settings import RemoteOptions

S = TypeVar("S", Stream, AsyncStream)
T = TypeVar("T")

GRACE_S = 1.0
"""For so long the server's own error is waited for, once a request has run out of time."""

MOST_SHARED = 128
"""So many decoders are kept for who asks again."""

_SHARED: OrderedDict[object, RemoteDecoder] = OrderedDict()
_LOCK = fork_safe(threading.Lock())


class RemoteDecoder(BaseDecoder):
    """Decodes with a pair of a server, as a `Decoder` does with one of this process.

    It is safe to use from many threads and event loops at once; most callers want `shared`.

    Args:
        base_url: Where the server's API begins, such as ``http://host:8000/v1``.
        pair: What the server calls the pair; None for its only one.
        **options: Further ones of `RemoteOptions`.

    Attributes:
        pair: What is known of the pair.
        engine: Has the server decode.

    Raises:
        ParameterError: An option is not allowed.
    """

    engine: RemoteEngine
    max_rows = AT_ONCE
    """Most requests that are sent at once."""

    def __init__(self, base_url: str, *, pair: str | None = None, **options: Any) -> None:
        asked = RemoteOptions(base_url=base_url, **options)
        client = Client(str(asked.base_url), asked.api_key or None, asked.max_retries)
        self.pair = ServedPair(client, pair)
        self.engine = RemoteEngine(client, self.pair)
        self._users = Users()

    @classmethod
    def shared(cls, base_url: str, *, user: object | None = None, **settings: Any) -> RemoteDecoder:
        """Return the process's decoder of a server, a key and a pair.

        Args:
            base_url: As for the constructor.
            user: The object that uses it, as in `Decoder.shared`.
            **settings: Further arguments of the constructor.
        """
        Users.require(user)
        key = (base_url, *sorted(settings.items()))
        with _LOCK:
            decoder = _SHARED.pop(key, None)
            if decoder is None or decoder.closed:
                decoder = cls(base_url, **settings)
            _SHARED[key] = decoder
            if len(_SHARED) > MOST_SHARED:
                _SHARED.popitem(last=False)
            decoder._users.add(user)
            return decoder

    def close(self, user: object | None = None) -> None:
        """Stop using the decoder; the last user's close cancels what still runs."""
        Users.require(user)
        self._users.remove(user)
        if not self._users:
            self.engine.close()

    @property
    def closed(self) -> bool:
        """Whether the decoder has been closed, or stayed behind in a parent process."""
        return self.engine.closed

    def _prepare(self, *asked: Any, streaming: bool) -> Stream:
        return self._prepared(Stream, *asked, streaming=streaming)

    def _astream(self, *asked: Any, streaming: bool) -> AsyncStream:
        stream = self._prepared(AsyncStream, *asked, streaming=streaming)
        self.engine.submit(stream.mailbox.requests)
        return stream

    def _prepared(
        self,
        kind: type[S],
        messages: Messages,
        params: SamplingParams | None,
        settings: Mapping[str, Any],
        *,
        streaming: bool,
    ) -> S:
        """Check a request; return its stream, which has not been submitted yet."""
        checked = params_of_call(params, settings)
        self.engine.require_open()
        path, body = request_of(checked_prompt(messages, checked), checked)
        late = deadline_of(checked) + GRACE_S
        stream = kind(self.engine, self, checked, late, streaming=streaming)
        request = RemoteRequest(path, body, checked, stream.mailbox.publish, streaming)
        stream.mailbox.requests += [request] * checked.n  # it stands for all of its samples
        return stream
