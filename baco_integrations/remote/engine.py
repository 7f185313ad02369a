"""Requests that a server decodes: from the body of a request to what its reader gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..api.reading import SampleReader, read_choice, read_error
from ..core.errors import DecoderClosedError
from ..core.outputs import Completion, TokenStep
from ..core.params import SamplingParams
from .client import Client
from .pair import RemotePair

Publish = Callable[[TokenStep | Completion | BaseException], None]
"""Takes what the reader of a request is to get."""


@dataclass(eq=False)
class RemoteRequest:
    """A request with all its samples.

    Attributes:
        path: What the server is asked.
        body: What it is sent, but for the model.
        params: The settings.
        publish: Takes the samples' steps and completions, and errors.
        streaming: Whether steps are wanted, or completions only.
        samples: The samples that have not finished, by number.
        task: What waits for its answer, once it has begun.
    """

    path: str
    body: dict[str, Any]
    params: SamplingParams
    publish: Publish
    streaming: bool
    samples: dict[int, SampleReader] = field(init=False)
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.samples = {index: SampleReader(index) for index in range(self.params.n)}

    def finish(self, completion: Completion) -> None:
        """Publish a sample."""
        del self.samples[completion.sample]
        self.publish(completion)

    def cancel(self) -> None:
        """Publish what there is of the samples that have not finished."""
        spec = self.params.spec
        info = {
            "prompt_tokens": 0,  # the server tells with the last token
            "base_prompt_tokens": 0,
            "seed": self.body["seed"],
            "router": spec.name,
            "gamma": None if spec.rule is None else self.params.effective_gamma,
        }
        for sample in list(self.samples.values()):
            broken = [
                {"index": index, "error": "The answer was cancelled."}
                for index in range(len(sample.calls))
            ]
            own = {"completion_tokens": len(sample.steps), "invalid_tool_calls": broken}
            self.finish(sample.completion("cancelled", info | own))


class RemoteEngine:
    """Has a server decode requests; safe to use from many threads and event loops at once.

    It is to streams what an engine of this process is.

    Args:
        client: Asks the server.
        pair: The pair that decodes.
    """

    def __init__(self, client: Client, pair: RemotePair) -> None:
        self._client, self._pair = client, pair
        self._running: set[RemoteRequest] = set()
        self._closed = False

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process that the requests belong to."""
        return self._client.forked

    @property
    def closed(self) -> bool:
        """Whether it has been closed, or stayed behind in a parent process."""
        return self._closed or self.forked

    def require_open(self) -> None:
        """Refuse a request of which nothing would come.

        Raises:
            DecoderClosedError: It is closed, or belongs to a parent process.
        """
        if self._closed:
            raise DecoderClosedError("this decoder is closed. Open another one.")
        self.require_reader()

    def require_reader(self) -> None:
        """Refuse a reader to whom nothing comes.

        Raises:
            DecoderClosedError: The requests belong to a parent process.
        """
        if self.forked:
            raise DecoderClosedError("this request belongs to the parent process. Ask anew here.")

    def submit(self, requests: Sequence[RemoteRequest]) -> None:
        """Send requests, each as soon as there is room."""
        self.require_open()
        for request in dict.fromkeys(requests):
            if not self._client.loop.call(self._begin, request):
                raise DecoderClosedError("the interpreter ends: nothing can be asked.")

    def cancel(self, requests: Sequence[RemoteRequest]) -> None:
        """Ask requests to stop; the connections of those that run are closed."""
        for request in dict.fromkeys(requests):
            self._client.loop.call(self._cancel, request)

    def close(self) -> None:
        """Stop; requests that have not finished fail with `DecoderClosedError`."""
        self._closed = True
        self._client.loop.call(self._close)

    # -- on the network's event loop ---------------------------------------------------------

    def _begin(self, request: RemoteRequest) -> None:
        if self._closed:
            request.publish(DecoderClosedError("the decoder was closed before this request ran."))
            return
        request.task = asyncio.create_task(self._answer(request))
        self._running.add(request)
        request.task.add_done_callback(partial(self._end, request))

    def _cancel(self, request: RemoteRequest) -> None:
        if request.task is not None:
            request.task.cancel()

    def _close(self) -> None:
        for request in list(self._running):
            request.publish(DecoderClosedError("the decoder was closed while this request ran."))
            self._cancel(request)

    def _end(self, request: RemoteRequest, task: asyncio.Task[None]) -> None:
        self._running.discard(request)
        if task.cancelled():
            request.cancel()
        elif (error := task.exception()) is not None:
            request.publish(error)
        elif request.samples:
            request.publish(self._client.broken_off("samples are missing"))

    async def _answer(self, request: RemoteRequest) -> None:
        body = {**request.body, "model": await self._pair.model()}
        if request.streaming:
            await self._read_stream(request, {**body, "stream": True})
            return
        data = await self._client.json(request.path, body)
        with self._client.reading(json.dumps(data).encode()):
            for choice in data["choices"]:
                request.finish(read_choice(choice))

    async def _read_stream(self, request: RemoteRequest, body: dict[str, Any]) -> None:
        """Publish the steps and samples of a stream as they come."""
        async with aclosing(self._client.events(request.path, body)) as events:
            async for data in events:
                with self._client.reading(data):
                    self._read_event(request, json.loads(data))

    def _read_event(self, request: RemoteRequest, event: dict[str, Any]) -> None:
        if "error" in event and (error := read_error(500, event)):
            raise error
        for choice in event["choices"]:
            sample = request.samples[choice["index"]]
            for step in sample.read(choice):
                request.publish(step)
            if choice["finish_reason"] is not None:
                request.finish(sample.completion(choice["finish_reason"], choice["baco"]))
