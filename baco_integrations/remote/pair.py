"""What is known here of a pair that a server decodes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..api.reading import ServedModel, read_models
from ..core.errors import ParameterError, ServerError, nearest
from ..core.messages import Messages, conversation
from .body import written_message
from .client import Client


class ServedPair:
    """A pair of a server, by its name; what is asked of the server is remembered.

    Args:
        client: Asks the server.
        name: What the server calls it, as ``NAME`` or ``NAME@gamma=0.7``; None for its only one.
    """

    _name: str | None
    _context: tuple[int, int] | None

    def __init__(self, client: Client, name: str | None) -> None:
        self._client, self._given = client, name
        self.forget()

    def forget(self) -> None:
        """Ask the server anew the next time."""
        self._name, self._context = self._given, None

    @property
    def known_name(self) -> str | None:
        """Its name; None for a server's only one until it has been asked."""
        return self._name

    @property
    def known_context(self) -> tuple[int, int] | None:
        """The context windows of base and aligned; None until the server has been asked."""
        return self._context

    @property
    def name(self) -> str:
        """Its name.

        Raises:
            ParameterError: The server serves several.
            ServerError: It cannot be asked.
        """
        return self._name or self._client.loop.wait(self.model())

    @property
    def context(self) -> tuple[int, int]:
        """The context windows of base and aligned, in tokens.

        Raises:
            ParameterError: The server serves no such pair.
            ServerError: It cannot be asked, or does not tell.
        """
        if self._context is None:
            self._client.loop.wait(self.ask())
        if self._context is None:  # the server loads the pair when it is first used
            self.encode("")
            self._client.loop.wait(self.ask())
        if self._context is None:
            raise ServerError(f"{self._client.url} does not tell the pair's context window.")
        return self._context

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, as the server's aligned model reads it."""
        return self._client.loop.wait(self.tokens({"text": text}))

    def render_aligned(
        self,
        messages: Messages,
        *,
        tokenize: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Return the tokens of a conversation, as the server's aligned model is fed it.

        Raises:
            ParameterError: `tokenize` is False, but what comes over the network are tokens.
        """
        if not tokenize:
            raise ParameterError("tokenize", "True", tokenize, "The text stays on the server.")
        told = [written_message(message) for message in conversation(messages)]
        asked = {"messages": told, "tools": list(tools or ())}
        return self._client.loop.wait(self.tokens(asked))

    async def tokens(self, what: Mapping[str, Any]) -> list[int]:
        """Return the tokens of what ``/v1/baco/tokenize`` is sent."""
        data = await self._client.json("/baco/tokenize", {"model": await self.model(), **what})
        with self._client.reading(data):
            return [int(token) for token in data["tokens"]]

    async def model(self) -> str:
        """Return its name, on the network's event loop."""
        if self._name is None:
            await self.ask()
        assert self._name is not None
        return self._name

    async def ask(self) -> None:
        """Ask the server for the name, if there is none, and the context windows.

        Raises:
            ParameterError: The server serves no such pair, or several where none is named.
        """
        data = await self._client.json("/models")
        with self._client.reading(data):
            served = {model.name: model for model in read_models(data)}
        wanted = self._name or (next(iter(served)) if len(served) == 1 else None)
        self._context = self.required(wanted, served).context
        self._name = wanted

    def required(self, wanted: str | None, served: Mapping[str, ServedModel]) -> ServedModel:
        """Return the pair that is meant."""
        named = served.get(wanted or "") or served.get((wanted or "").partition("@")[0])
        if named is None:
            raise ParameterError(
                "pair",
                f"one of {', '.join(served)}, which {self._client.url} serves",
                wanted,
                f"{nearest(wanted or '', served)}It may be left out where a server has only one.",
            )
        return named
