"""One completion endpoint: where it is, and what it says comes after some tokens."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field
from typing_extensions import Self

from ...core.errors import (
    BacoError,
    ParameterError,
    ServerError,
    Shown,
    VocabularyMismatchError,
    nearest,
    shorten,
)
from ...core.routing import Source
from ...core.settings import Checked, Integer, param
from ..client import FORMLESS, TRY_LATER, Client
from ..settings import KEY_RULE, Key, server_url
from .replies import BY_ID, Position, Spelling, read_positions

_URL = "a URL such as 'http://host:8000/v1', without user, password and query"
OURS = 64
"""Most alternatives that this package's server tells of a token."""


class Endpoint(Checked):
    """Where one model of a pair is served, and how it is asked.

    Raises:
        ParameterError: A value is not allowed; raised when the object is made.
    """

    url: Annotated[str, AfterValidator(server_url)] = param(
        ..., _URL, "It is where the server's API begins; a key is given as api_key."
    )
    """Where the server's API begins, as in http://host:8000/v1."""
    model: str | None = param(
        None, "what the server calls the model", "Its only one if left out.", unset="its only one"
    )
    """What the server calls the model."""
    files: str | None = param(
        None,
        "a folder or an id on the Hugging Face hub",
        "It is where the tokenizer and the configuration are; weights are not needed.",
        unset="what the server calls the model",
    )
    """The folder or the id on the hub that the tokenizer and the configuration are read from."""
    api_key: Key | None = param(None, *KEY_RULE, unset="none", secret=True, repr=False)
    """The server's key. It is never shown."""
    logprobs: Annotated[Integer, Field(ge=1)] = param(
        20, "a whole number of at least 1", "vLLM gives 20, or what --max-logprobs says."
    )
    """How many of the most probable tokens the server is asked for at each position."""
    timeout: Annotated[float, Field(gt=0)] = param(
        120.0, "a number of seconds above 0", "It is how long one answer of a few tokens may take."
    )
    """Seconds after which one answer of the server is no longer waited for."""
    max_retries: Annotated[Integer, Field(ge=0)] = param(
        2, "a whole number of at least 0", "0 never asks twice."
    )
    """How often a server is asked again that cannot be reached, is busy, or breaks off."""

    @classmethod
    def of(cls, given: object, side: Source) -> Self:
        """Return an endpoint that is given as one, as a dict of its settings or as its URL."""
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            return cls(url=given)
        if isinstance(given, dict) and all(isinstance(name, str) for name in given):
            return cls(**given)
        allowed = f"an instance of {cls.__name__}, a dict of its settings, or a URL"
        raise ParameterError(side, allowed, type(given), "For example 'http://host:8000/v1'.")


class Served(NamedTuple):
    """What an endpoint says of the model that it serves.

    Attributes:
        model: What it calls it.
        window: Its context window, in tokens; None if it does not say.
        ours: Whether it is this package's server.
    """

    model: str
    window: int | None
    ours: bool

    @classmethod
    def find(cls, data: Any, wanted: str | None, url: str) -> Served:
        """Return the model of that name among those of ``/v1/models``; None is the only one.

        Raises:
            ParameterError: It is not served, or there are several and none is named.
        """
        served = {str(each["id"]): each for each in data["data"]}
        name = wanted or (next(iter(served)) if len(served) == 1 else "")
        told = served.get(name) or served.get(name.partition("@")[0])
        if told is None:
            raise ParameterError(
                "model",
                f"one of {', '.join(served)}, which {url} serves",
                wanted,
                f"{nearest(name, served)}It may be left out where a server has only one.",
            )
        window = told.get("max_model_len") or (told.get("meta") or {}).get("n_ctx")
        return cls(name, window, told.get("owned_by") == "baco")


class BrokenOffError(ServerError):
    """An answer did not come, or not to its end."""


class EndpointClient(Client):
    """Asks one endpoint; its coroutines run on the network's event loop.

    Args:
        endpoint: Where it is.
        side: Which side of a pair it is.
        spelling: The texts of the model's tokens.
        rows: Ids below it are those for which the model has logits.
    """

    def __init__(self, endpoint: Endpoint, side: Source, spelling: Spelling, rows: int) -> None:
        super().__init__(endpoint.url, endpoint.api_key, endpoint.max_retries)
        self.endpoint, self.side, self.spelling, self.rows = endpoint, side, spelling, rows
        self._served: Served | None = None

    async def served(self) -> Served:
        """Return what the endpoint says of its model, once it has been asked.

        Raises:
            ParameterError: It does not serve the model, or does not take the key.
            ServerError: It is out of reach, or is no such endpoint.
        """
        if self._served is None:
            data = await self.within(self.json("/models"))
            with self.reading(data):
                self._served = Served.find(data, self.endpoint.model, self.url)
        return self._served

    async def run(self, prompt: Sequence[int], count: int) -> list[Position]:
        """Return what the endpoint says of the next tokens, as far as it goes on by itself.

        Args:
            prompt: Token ids.
            count: How many tokens it is to go on with, always the most probable one; fewer come
                where one of them ends the text.

        Raises:
            ServerError: It is out of reach, breaks off, takes too long or tells no log
                probabilities.
            VocabularyMismatchError: It has tokens that are not in the vocabulary.
        """
        data = await self.complete(prompt, count)
        with self.reading(data):
            positions = read_positions(data["choices"][0], self.spelling, self.side)
            if not positions:
                raise ServerError("it tells nothing of the next token, where that ends the text.")
            highest = max(int(each.ids.max()) for each in positions)
            if min(int(each.ids.min()) for each in positions) >= len(self.spelling):
                raise ServerError("it tells of embedding rows alone that are no tokens.")
            if highest >= self.rows:
                raise VocabularyMismatchError(
                    f"it has a token {highest}, but the model whose files are given has only "
                    f"{self.rows}. Name the model that is served there."
                )
        return positions

    async def complete(self, prompt: Sequence[int], count: int, *, by_id: bool = True) -> Any:
        """Return the server's answer to a prompt, with its tokens named by id if it can."""
        served, logprobs = await self.served(), self.endpoint.logprobs
        body = {"model": served.model, "prompt": [*prompt], "max_tokens": count, "temperature": 0}
        if served.ours:
            # Its `router` names the side that goes on alone; both sides' probabilities come along.
            more = {"alternatives": min(logprobs, OURS), "logprobs": 0, "router": self.side}
        else:
            more = {"logprobs": logprobs, "return_tokens_as_token_ids": by_id}
        return await self.repeated("/completions", {**body, **more})

    async def repeated(self, path: str, body: Any) -> Any:
        """Return an answer; one that breaks off is asked for again, as that changes nothing."""
        tried = 0
        while True:
            try:
                return await self.within(self.json(path, body))
            except BrokenOffError:
                if tried == self.endpoint.max_retries:
                    raise
                tried += 1

    async def check(self, prompt: Sequence[int]) -> Served:
        """Compare the server's vocabulary with the one here, as far as a prompt shows it.

        Raises:
            VocabularyMismatchError: The two differ.
        """
        await self.run(prompt, 1)
        by_id, by_text = [await self.complete(prompt, 1, by_id=each) for each in (True, False)]
        with self.reading(by_text):
            named, spelled = (data["choices"][0]["logprobs"] for data in (by_id, by_text))
            names, texts = (by_logprob(each) for each in (named, spelled))
            for logprob, text in texts.items():
                name = names.get(logprob, "")
                if name.startswith(BY_ID) and not text.startswith(BY_ID):
                    self.spelling.require_same(int(name[len(BY_ID) :]), text)
        return await self.served()

    @contextmanager
    def reading(self, content: object) -> Iterator[None]:
        """Raise a `ServerError` where what came has another form; other errors name the server."""
        try:
            with super().reading(content):
                yield
        except (ServerError, VocabularyMismatchError) as error:
            if self.url in str(error):
                raise
            where = f"The {self.side} model's server at {self.url}"
            raise type(error)(f"{where}: {error}") from None

    async def within(self, answer: Any) -> Any:
        """Wait for an answer, as long as one may take.

        Raises:
            ServerError: It takes longer.
        """
        try:
            return await asyncio.wait_for(answer, self.endpoint.timeout)
        except asyncio.TimeoutError:
            raise ServerError(
                f"The {self.side} model's server at {self.url} has not answered within "
                f"{self.endpoint.timeout:g} s. Ask again, or raise the endpoint's timeout."
            ) from None

    # -- what went wrong ---------------------------------------------------------------------

    def refusal(self, status: int, content: bytes) -> BacoError:
        """Return the error of an answer with another status than 200."""
        said = content.decode("utf-8", "replace")
        with suppress(*FORMLESS):
            said = str(json.loads(said)["error"]["message"])
        said, where = self.masked(said)[:200].rstrip(". \n"), f"the {self.side} model's server"
        if status in (401, 403):
            given = Shown("none" if self._key is None else "another one")
            remedy = f"Give it as the endpoint's api_key. The server says: {said}"
            return ParameterError(
                "api_key", f"a key that {where} at {self.url} takes", given, remedy
            )
        remedy = "Look at its log, and at the endpoint's settings."
        if status in TRY_LATER:
            remedy = "Ask later, or raise the endpoint's max_retries."
        elif status < 400 or status == 404:
            remedy = "Is the URL right? Behind it stand /models and /completions."
        return ServerError(
            f"T{where[1:]} at {self.url} answered with status {status}: {said}. {remedy}"
        )

    def no_answer(self, content: object, how: str = "") -> ServerError:
        """Return the error of an answer that no completion endpoint gives."""
        return ServerError(
            f"The {self.side} model's server at {self.url} answered {how}as no completion endpoint "
            f"does: {shorten(self.masked(content), 200)}. Is the URL right? Behind it stand "
            "/models and /completions."
        )

    def broken_off(self, reason: object) -> ServerError:
        """Return the error of an answer that did not come, or not to its end."""
        return BrokenOffError(str(super().broken_off(reason)))

    def out_of_reach(self, reason: Exception) -> ServerError:
        """Return the error of a server to which there is no connection."""
        why = str(reason) or type(reason).__name__
        return ServerError(
            f"The {self.side} model's server cannot be reached at {self.url} ({why}). Is it "
            "running there, and is the URL right?"
        )


def by_logprob(told: Any) -> dict[float, str]:
    """Return the names of the first position's tokens by their log probabilities, if no two agree.

    Names would not do: texts of which several tokens have the same are told once.
    """
    likely = (told.get("top_logprobs") or [{}])[0]
    counted = Counter(likely.values())
    return {logprob: name for name, logprob in likely.items() if counted[logprob] == 1}
