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
from ..core.errors import DecoderClosedError, ParameterError
from ..core.outputs import Completion, TokenStep
from ..core.params import SamplingParams
from .client import Client
from .pair import ServedPair

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

    async def answer(self, client: Client, pair: ServedPair) -> None:
        """Ask a server for the answer, and publish it as it comes."""
        body = {**self.body, "model": await pair.model()}
        try:
            await self.read_answer(client, body)
        except ParameterError as error:
            if error.parameter != "seed" or self.params.seed is not None:
                raise
            del body["seed"]  # which was drawn here, for a pair that takes none
            await self.read_answer(client, body)

    async def read_answer(self, client: Client, body: dict[str, Any]) -> None:
        """Send a body, and publish what is answered."""
        if self.streaming:
            async with aclosing(client.events(self.path, {**body, "stream": True})) as events:
                async for data in events:
                    with client.reading(data):
                        self.read(json.loads(data))
            return
        data = await client.json(self.path, body)
        with client.reading(data):
            for choice in data["choices"]:
                self.finish(read_choice(choice))

    def read(self, event: dict[str, Any]) -> None:
        """Publish an event of a stream.

        Raises:
            BacoError: It is an error of the server's.
        """
        if "error" in event and (error := read_error(500, event)):
            raise error
        for choice in event["choices"]:
            sample = self.samples[choice["index"]]
            for step in sample.read(choice):
                self.publish(step)
            if choice["finish_reason"] is not None:
                self.finish(sample.completion(choice["finish_reason"], choice["baco"]))

    def finish(self, completion: Completion) -> None:
        """Publish a sample."""
        del self.samples[completion.sample]
        self.publish(completion)

    def cancel(self) -> None:
        """Stop waiting for the answer."""
        if self.task is not None:
            self.task.cancel()

    def cancelled(self) -> None:
        """Publish what there is of the samples that have not finished."""
        spec = self.params.spec
        info = {
            "prompt_tokens": 0,  # a server tells with the last token
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

    To streams it is what an engine of this process is.

    Args:
        client: Asks the server.
        pair: The pair that decodes.
    """

    def __init__(self, client: Client, pair: ServedPair) -> None:
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
            if not self._client.loop.call(self.begin, request):
                raise DecoderClosedError("the interpreter ends: nothing can be asked.")

    def cancel(self, requests: Sequence[RemoteRequest]) -> None:
        """Ask requests to stop; the connections of those that run are closed."""
        for request in dict.fromkeys(requests):
            self._client.loop.call(request.cancel)

    def close(self) -> None:
        """Stop; requests that have not finished fail with `DecoderClosedError`."""
        self._closed = True
        self._client.loop.call(self.fail)

    # -- on the network's event loop ---------------------------------------------------------

    def begin(self, request: RemoteRequest) -> None:
        """Send a request."""
        self._running.add(request)
        request.task = asyncio.create_task(request.answer(self._client, self._pair))
        request.task.add_done_callback(partial(self.end, request))
        if self._closed:
            self.fail()

    def fail(self) -> None:
        """Let all requests fail that have not finished."""
        for request in list(self._running):
            request.publish(DecoderClosedError("the decoder was closed before the answer came."))
            request.cancel()

    def end(self, request: RemoteRequest, task: asyncio.Task[None]) -> None:
        """Publish why a request has ended, if it is not whole."""
        self._running.discard(request)
        if task.cancelled():
            request.cancelled()
        elif (error := task.exception()) is not None:
            if isinstance(error, ParameterError) and error.parameter == "pair":
                self._pair.forget()
            request.publish(error)
        elif request.samples:
            request.publish(self._client.broken_off("samples are missing"))
