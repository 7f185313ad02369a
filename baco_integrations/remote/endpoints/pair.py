"""A pair whose models are behind two completion endpoints: tokenizers here, weights there."""

from __future__ import annotations

import asyncio
from typing import Any

from ...core.errors import ParameterError
from ...core.routing import Source
from ...models.checkpoint import Checkpoint, load_tokenizer
from ...models.hub import locate
from ...models.options import SIDES, LoadOptions
from ...models.pair import ModelPair
from ...models.sides import pair_name
from ...text.compatibility import compare
from ..loop import NetworkLoop
from .endpoint import Endpoint, EndpointClient
from .replies import Spelling

OF_FILES = ("revision", "base_revision", "aligned_revision", "token", "local_files_only")
OPTIONS = (*OF_FILES, "trust_remote_code", "base_prompt", "template_kwargs", "progress")
"""The settings of `LoadOptions` that mean something where no weights are loaded."""


class RemotePair(ModelPair):
    """A base and an aligned model, each behind a completion endpoint; see `connect`.

    `base` and `aligned` are outlines of the models: their settings, and no modules.

    Attributes, besides those of `ModelPair`:
        endpoints: Where base and aligned are.
    """

    engine = "remote"
    endpoints: tuple[Endpoint, ...] = ()

    @classmethod
    def connect(cls, base: Any, aligned: Any, **options: Any) -> RemotePair:
        """Make a pair of two endpoints, once both have been asked what they serve.

        Only tokenizers and configurations are read here, from the endpoints' `files`.

        Args:
            base: The base model's `Endpoint`, a dict of its settings, or its URL.
            aligned: The aligned model's, likewise.
            options: Settings of `LoadOptions` that say how files are found and prompts are made.

        Raises:
            ParameterError: A setting is not allowed, or a server does not serve the model.
            ServerError: A server is out of reach, or tells no log probabilities.
            VocabularyMismatchError: The two text vocabularies differ, or a server's is another one
                than the files say.
            PairError: Anything else that keeps the two from being a pair.

        Example:
            ```python
            pair = RemotePair.connect(
                {"url": "http://one:8000/v1", "model": "Qwen/Qwen2.5-7B"},
                {"url": "http://two:8000/v1", "model": "Qwen/Qwen2.5-7B-Instruct"},
            )
            Decoder.shared(pair).generate("Name a city.", gamma=0.6, temperature=0)
            ```
        """
        for name in options:
            if name not in OPTIONS:
                allowed = f"one of {', '.join(OPTIONS)}, where servers load the models"
                raise ParameterError(name, allowed, type(options[name]), "Leave it out.")
        checked = LoadOptions(**options)
        endpoints = Endpoint.of(base, "base"), Endpoint.of(aligned, "aligned")
        files = [
            locate(files_of(each, side), side, checked)
            for each, side in zip(endpoints, SIDES, strict=True)
        ]
        checkpoints = [Checkpoint(each, checked) for each in files]
        for checkpoint in checkpoints:
            checkpoint.require_decodable()
        tokenizers = [load_tokenizer(each, checked) for each in files]
        compare(*tokenizers).require()
        outlines: Any = [each.outline() for each in checkpoints]
        pair = cls(
            *outlines,
            *tokenizers,
            name=pair_name(*files),
            base_prompt=checked.base_prompt,
            template_kwargs=checked.template_kwargs,
            identity={
                **{side: each.label for side, each in zip(SIDES, files, strict=True)},
                **{f"{s}_revision": each.revision for s, each in zip(SIDES, files, strict=True)},
                "endpoints": [each.url for each in endpoints],
            },
        )
        pair.endpoints = endpoints
        NetworkLoop.current().wait(pair.ask())
        return pair

    def clients(self) -> tuple[Any, Any]:
        """Return what asks the two endpoints, for one engine or one task."""
        base, aligned = (
            EndpointClient(endpoint, side, self.spelling(place), self.rows[place])
            for place, (endpoint, side) in enumerate(zip(self.endpoints, SIDES, strict=True))
        )
        return base, aligned

    @property
    def rows(self) -> list[int]:
        """For how many ids base and aligned have logits."""
        return [model.config.get_text_config().vocab_size for model in (self.base, self.aligned)]

    @property
    def partly(self) -> list[int]:
        """How many tokens are known at each position, of sides of which not all are."""
        asked = zip(self.endpoints, self.rows, strict=False)  # there may be models in this process
        return [endpoint.logprobs for endpoint, rows in asked if endpoint.logprobs < rows]

    def spelling(self, side: int) -> Spelling:
        """Return the texts of a side's tokens; those of control tokens are their names."""
        pieces, data = self._tables[side].pieces, self.vocabulary.token_bytes
        return Spelling([data[i] or (piece or "").encode() for i, piece in enumerate(pieces)])

    async def ask(self) -> None:
        """Ask both servers what they serve; their context windows may be shorter than here.

        Raises:
            BacoError: As for `connect`.
        """
        clients = self.clients()
        prompts = self.raw_ids("Once upon a time")
        asked = (each.check(prompt) for each, prompt in zip(clients, prompts, strict=True))
        served = await asyncio.gather(*asked)
        base, aligned = (
            min(window, each.window or window)
            for window, each in zip(self.context, served, strict=True)
        )
        self.context = (base, aligned)

    def __repr__(self) -> str:
        where = " and ".join(each.url for each in self.endpoints)
        return f"RemotePair({self.name!r}, base_prompt={self.base_prompt_name!r}, {where})"


def files_of(endpoint: Endpoint, side: Source) -> str:
    """Return where an endpoint's tokenizer and configuration are.

    Raises:
        ParameterError: It is not said.
    """
    found = endpoint.files or endpoint.model
    if found is None:
        raise ParameterError(
            "files",
            f"a folder or an id on the Hugging Face hub, for the {side} model's tokenizer",
            None,
            "Give it, or the model's name if the server calls it by its id.",
        )
    return found
