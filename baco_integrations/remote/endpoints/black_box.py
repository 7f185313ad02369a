"""An aligned model that tells no probabilities, behind a chat API; base decides who speaks.

Approximate, and labelled so. Routers read base only, as they do anyway: where they choose base, the
chat is not even asked. Where they choose aligned, the chat is asked how it goes on with the answer
so far, and what it says is read by base's tokenizer and taken as certain, word by word, until base
takes over again. What is lost: aligned's probabilities (told as 1 where aligned gave the token),
its own tokens, and the seed.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from transformers import DynamicCache

from ...core.errors import ParameterError, ServerError
from ...core.messages import Messages, conversation
from ...core.settings import param
from ...engines.base import Capabilities, EngineRequest, EngineSettings, Mix
from ...engines.local.runner import cache_argument
from ...models.checkpoint import Checkpoint, load_tokenizer
from ...models.hub import locate
from ...models.options import LoadOptions
from ...policy.params import ALIGNED, BASE
from ...policy.step import StepOutput
from ..loop import NetworkLoop
from .endpoint import Endpoint, EndpointClient
from .engine import RemotePairEngine, RemoteSequence, warn_approximate
from .pair import RemotePair
from .replies import Position

AHEAD = 12
"""For so many tokens the chat goes on at least, whenever it is asked."""

INSTRUCTION = """

(Your answer has begun as follows. Go on exactly where it ends, and repeat none of it: {begun})"""


class ChatEndpoint(Endpoint):
    """Where an aligned model that tells no probabilities is served, and how it is asked.

    Raises:
        ParameterError: A value is not allowed; raised when the object is made.
    """

    continuation: Literal["flag", "prefill", "instruction"] = param(
        "flag",
        "'flag', 'prefill' or 'instruction'",
        "'flag' suits vLLM and `baco serve`, 'instruction' works everywhere.",
    )
    """How the chat is asked to go on with an answer: 'flag' says continue_final_message, 'prefill'
    ends with the assistant's words, 'instruction' says it in words to the user's last message."""


class LocalModel:
    """A model of this process, asked like an endpoint; it tells of all of its tokens.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._turn = model, asyncio.Lock()
        self._cache_argument = cache_argument(model)

    async def run(self, prompt: Sequence[int], count: int) -> list[Position]:
        """Return what it says of the next tokens; see `EndpointClient.run`."""
        async with self._turn:
            return await asyncio.to_thread(self.go_on, prompt, count)

    @torch.inference_mode()
    def go_on(self, prompt: Sequence[int], count: int) -> list[Position]:
        """Return what it says of the next tokens, going on with the most probable one each time."""
        positions: list[Position] = []
        ids, cache = torch.tensor([[*prompt]], device=self._model.device), DynamicCache()
        for _ in range(count):
            output = self._model(ids, use_cache=True, **{self._cache_argument: cache})
            logprobs = output.logits[0, -1].double().log_softmax(-1)
            ids = logprobs.argmax().view(1, 1)
            known = np.arange(len(logprobs)), logprobs.cpu().numpy()
            positions.append(Position(int(ids), *known))
        return positions


class ChatClient(EndpointClient):
    """Asks a chat how it goes on with an answer; each of its tokens is then certain.

    Args:
        endpoint: Where it is.
        pair: The pair, whose base's tokenizer reads what it says.
    """

    endpoint: ChatEndpoint

    def __init__(self, endpoint: ChatEndpoint, pair: BlackBoxPair) -> None:
        super().__init__(endpoint, "aligned", pair.spelling(ALIGNED), pair.size)
        self._pair = pair

    async def run(self, prompt: Sequence[int], count: int) -> list[Position]:
        """Return how the chat goes on; see `EndpointClient.run`."""
        pair, size = self._pair, self._pair.size
        messages = json.loads(bytes(token - size for token in prompt if token >= size))
        said = pair.decode(token for token in prompt if token < size).lstrip()
        served = await self.served()
        body = {
            "model": served.model,
            "max_tokens": max(count, AHEAD),
            **self.asked(messages, said),
        }
        data = await self.repeated("/chat/completions", body)
        with self.reading(data):
            choice = data["choices"][0]
            whole = choice["finish_reason"] == "stop"
            content = choice["message"]["content"] or ""
            if not isinstance(content, str):
                raise TypeError(content)
            text = continued(said, content, whole)
            if not text and choice["finish_reason"] == "length":
                raise ServerError(
                    f"it has said nothing within {body['max_tokens']} tokens. A model that thinks "
                    "first has to be served without that."
                )
        # An answer's first word stands behind the white space of base's prompt.
        ids = (
            pair.answer_ids(text)[BASE]
            if text and not said
            else pair.base_encoder.ids(text, behind=True)
        )
        if whole or not ids:
            ids = [*ids, min(pair.aligned_eos)]
        return [Position.of(token, [(token, 0.0)]) for token in ids]

    def asked(self, messages: list[Any], said: str) -> dict[str, Any]:
        """Return what asks for the continuation of an answer."""
        if not said:
            return {"messages": messages}
        if self.endpoint.continuation == "instruction":
            told = messages[-1]["content"] + INSTRUCTION.format(begun=said)
            return {"messages": [*messages[:-1], {**messages[-1], "content": told}]}
        begun = {"messages": [*messages, {"role": "assistant", "content": said}]}
        if self.endpoint.continuation == "prefill":
            return begun
        return {**begun, "continue_final_message": True}


def continued(said: str, text: str, whole: bool) -> str:
    """Return what a chat adds to an answer: whole words, with the space that it may have left out.

    Args:
        said: The answer so far.
        text: What it went on with.
        whole: Whether that is all, so that its last word is whole.
    """
    if not whole:
        text = text.rstrip("\ufffd")  # the end may split a character, too
        if len(words := re.split(r"(?<=\S)(?=\s)", text)) > 1:
            text = "".join(words[:-1])
    gap = said[-1:].strip() and text[:1].isalnum()
    return f" {text}" if gap else text


class BlackBoxPair(RemotePair):
    """A base model and an aligned one that is known by its answers only; see `connect`.

    Both sides have base's vocabulary. Prompts of aligned are its messages, a byte a token.
    """

    engine = "black-box"
    chat: ChatEndpoint
    model: Any = None

    @classmethod
    def connect(cls, base: Any, aligned: Any, **options: Any) -> BlackBoxPair:
        """Make a pair of a base model and a chat.

        Args:
            base: The base model: a folder or an id on the hub, loaded into this process, or its
                `Endpoint`, or a dict of its settings.
            aligned: The chat's `ChatEndpoint`, or a dict of its settings.
            options: Settings of `LoadOptions`, for base.

        Raises:
            ParameterError: A setting is not allowed, or a server does not serve the model.
            ServerError: A server is out of reach.
            PairError: Base cannot be loaded.
        """
        checked, chat = LoadOptions(**options), ChatEndpoint.of(aligned, "aligned")
        here = isinstance(base, str) and "://" not in base
        endpoint = None if here else Endpoint.of(base, "base")
        name = base if endpoint is None else endpoint.files or endpoint.model or ""
        files = locate(name, "base", checked)
        checkpoint, tokenizer = Checkpoint(files, checked), load_tokenizer(files, checked)
        checkpoint.require_decodable()
        outline: Any = checkpoint.outline()
        pair = cls(
            *(outline, outline, tokenizer, tokenizer),
            name=f"{files.name}|{chat.model or chat.url}",
            base_prompt=checked.base_prompt,
            identity={"base": files.label, "base_revision": files.revision, "chat": chat.url},
        )
        pair.chat, pair.context = chat, (pair.context[BASE], 2**24)
        pair.notes += ("The aligned model tells no probabilities: decoding is approximate.",)
        if endpoint is None:
            pair.model = checkpoint.load(checkpoint.quantizer())
        else:
            pair.endpoints = endpoint, endpoint
        NetworkLoop.current().wait(pair.ask())
        return pair

    @property
    def approximate(self) -> bool:
        """Always: see the module."""
        return True

    def clients(self) -> tuple[Any, Any]:
        """Return what asks the two sides."""
        base: Any = LocalModel(self.model) if self.model is not None else super().clients()[BASE]
        return base, ChatClient(self.chat, self)

    async def ask(self) -> None:
        """Ask the servers what they serve."""
        base, chat = self.clients()
        await chat.served()
        if self.model is None:
            await base.check(self.raw_ids("Once upon a time")[BASE])

    def render_aligned(
        self,
        messages: Messages,
        *,
        tokenize: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Any:
        """Return the messages as JSON, or its bytes as ids beyond the vocabulary.

        Raises:
            ParameterError: Tools are offered.
        """
        if tools:
            raise ParameterError("tools", "left out with this pair", tools, "It answers in text.")
        text = json.dumps(conversation(messages))
        return [self.size + byte for byte in text.encode()] if tokenize else text

    def answer_ids(self, text: str) -> tuple[list[int], list[int]]:
        """Return what both sides are fed for a begun answer."""
        ids, _ = super().answer_ids(text)
        return ids, list(ids)

    def __repr__(self) -> str:
        return f"BlackBoxPair({self.name!r}, base_prompt={self.base_prompt_name!r}, approximate)"


class BlackBoxSequence(RemoteSequence):
    """A sequence whose aligned side is asked only where it is to speak."""

    wanted = False

    def position(self, side: int) -> Position | None:
        """Return what a side has said; aligned is taken to end until it is known to be needed."""
        known = super().position(side)
        if known is not None or side == BASE or self.wanted:
            return known
        end = min(self.request.end)
        return Position.of(end, [(end, 0.0)])

    def has_said(self, side: int) -> bool:
        """Whether a side has really said what comes next."""
        return super().position(side) is not None


class BlackBoxEngine(RemotePairEngine):
    """Decodes a `BlackBoxPair`: base's probabilities, aligned's words."""

    def __init__(
        self,
        pair: BlackBoxPair,
        settings: EngineSettings,
        *,
        only: Any = None,
        mix: Mix | None = None,
    ) -> None:
        super().__init__(pair, settings, only=only, mix=mix)
        self.capabilities = Capabilities(
            exact_seed=False, grammar=False, custom_router=False, alternatives=False
        )

    def submit(self, requests: Sequence[EngineRequest]) -> None:
        """Queue requests; what needs aligned's probabilities is refused."""
        for request in requests:
            if request.params.signal_model == "aligned":
                allowed = "'base' where aligned tells no probabilities"
                raise ParameterError("signal_model", allowed, "aligned", "Leave it out.")
        super().submit(requests)
        warn_approximate("aligned's words are taken as certain")

    def make_sequence(self, request: EngineRequest) -> BlackBoxSequence:
        """Return the sequence of a request that has come now."""
        return BlackBoxSequence(request, self.space, time.monotonic())

    def step(self, ready: Sequence[RemoteSequence]) -> tuple[list[RemoteSequence], StepOutput]:
        """Decide what can be decided; whoever needs aligned's words waits for them."""
        sequences, output = super().step(ready)
        decided = []
        for row, (sequence, source) in enumerate(
            zip(sequences, output.source.tolist(), strict=True)
        ):
            assert isinstance(sequence, BlackBoxSequence)
            sequence.wanted = source == ALIGNED and not sequence.has_said(ALIGNED)
            decided += [] if sequence.wanted else [row]
        kept = torch.tensor(decided, dtype=torch.long)
        columns = {name: getattr(output, name)[kept] for name in output._fields[:-1]}
        return [sequences[row] for row in decided], output._replace(**columns, alternatives=None)
