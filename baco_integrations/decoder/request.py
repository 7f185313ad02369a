"""From a conversation to requests: checked once, rendered once per side, with a grammar."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import Any

from ..core.errors import BacoError, PromptError, too_late
from ..core.messages import Conversation, Messages, conversation, require_text
from ..core.outputs import Usage
from ..core.params import SamplingParams
from ..core.tool_calls import CallReader
from ..engines.base import EngineRequest
from ..models.base import Pair
from ..policy.params import ALIGNED, BASE
from ..policy.routers import GuardedRouter
from ..text.grammar import Grammars
from ..text.matcher import TextMatcher
from ..text.prompts import with_schema
from ..text.template_bounds import rendering_until
from ..text.trial import OutOfTimeError
from .output import SOURCES, Event, SampleOutput

LARGE = 2**16
"""For vocabularies of so many tokens, what compiles grammars is made before the first request."""

ROOMY = 8
"""Texts with more characters for each token of the window hardly ever fit into it."""


class Renderer:
    """Makes engine requests of conversations; safe to use from many threads at once.

    Args:
        pair: The pair of models.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair, self._space = pair, pair.token_space
        self._grammars: dict[bool, Grammars] = {}
        self._compiling = threading.Lock()
        if len(pair.vocabulary.token_bytes) >= LARGE:
            threading.Thread(target=self._prepare, name="baco-grammars").start()

    def requests(
        self,
        messages: Messages,
        params: SamplingParams,
        deadline: float,
        publish: Callable[[Event], None],
    ) -> list[EngineRequest]:
        """Return what an engine is asked for, a request for each sample.

        Args:
            messages: The conversation.
            params: The settings.
            deadline: When the request fails, by `time.monotonic`.
            publish: Takes the samples' events: steps, completions and errors.

        Raises:
            DeadlineError: The time is over before everything is rendered and compiled.
            ParameterError: A schema or a pattern cannot be compiled.
            PromptError: The conversation is malformed, or does not fit the models' windows.
        """
        checked = conversation(messages)
        require_text(checked)
        prompts = self.prompts(checked, params, deadline)
        room = self.room(prompts)
        seed = secrets.randbits(53) if params.seed is None else params.seed
        only_base = params.spec.only == "base"
        end = self._pair.base_eos if only_base else self._pair.aligned_eos
        router = None if isinstance(params.router, str) else GuardedRouter(params.router)
        matcher = self.matcher(params, end, deadline)
        output = partial(
            SampleOutput,
            publish,
            params,
            seed,
            usage=Usage(len(prompts[ALIGNED]), len(prompts[BASE]), 0),
            space=self._space.with_markers(self._pair.call_markers if params.offered else {}),
            stop=(*params.stop, *(self._pair.base_stop if only_base else ())),
        )
        # Of what the ids of calls are made: prompts may be long, and samples many.
        origin = blake2b(repr((prompts, seed)).encode()).digest() if params.offered else b""
        return [
            EngineRequest(
                prompts=prompts,
                params=params,
                seed=seed,
                index=index,
                end=end,
                limit=min(params.max_tokens, room),
                room=room,
                sink=output(index=index, reader=self.reader(params, (origin, index))),
                router=router,
                matcher=matcher.fresh() if matcher and index else matcher,
                deadline=deadline,
            )
            for index in range(params.n)
        ]

    def prompts(
        self, messages: Conversation, params: SamplingParams, deadline: float
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Render a conversation for base and aligned; only aligned is shown schemas and tools.

        Raises:
            DeadlineError: The time is over.
            PromptError: The pair cannot render it, or it is far too long.
        """
        if time.monotonic() > deadline:
            raise too_late(params.timeout, 0, params.max_tokens)
        shown = messages
        if params.json_schema is not None and params.show_schema:
            shown = conversation(with_schema(messages, params.json_schema))
        tools = {"tools": list(params.offered)} if params.offered else {}
        try:
            with rendering_until(deadline):
                self.refuse_far_too_long(shown, tools)
                return (
                    tuple(self._pair.render_base(messages, tokenize=True)),
                    tuple(self._pair.render_aligned(shown, tokenize=True, **tools)),
                )
        except Exception as error:
            of_prompt = isinstance(error, PromptError) or not isinstance(error, BacoError)
            if time.monotonic() > deadline and of_prompt:
                raise too_late(params.timeout, 0, params.max_tokens) from error
            if isinstance(error, BacoError):
                raise
            raise PromptError(  # of a base prompt or a pair of the user's own
                "messages",
                "a conversation that the pair can render",
                messages,
                f"Rendering it fails with {type(error).__name__}: {error}.",
            ) from error

    def refuse_far_too_long(self, messages: Conversation, tools: Mapping[str, Any]) -> None:
        """Refuse what is far beyond the window before all of it is tokenised: that takes long.

        Tokenising keeps other requests of the pair waiting, so it is done piece by piece.
        """
        window = self._pair.context[ALIGNED]
        told = [*(value for message in messages for value in message.values()), tools]
        if sum(len(str(value)) for value in told) <= ROOMY * window:
            return
        text, count = str(self._pair.render_aligned(messages, **tools)), 0
        for start in range(0, len(text), window):
            count += len(self._pair.encode(text[start : start + window]))
            if count > 2 * window:  # where pieces are cut, some tokens are others
                raise too_long("aligned", window, f"more than {count} tokens")

    def reader(self, params: SamplingParams, origin: object) -> CallReader | None:
        """Return what reads a sample's tool calls, if tools are offered."""
        if not params.offered:
            return None
        names = [tool["function"]["name"] for tool in params.offered]
        # The same request gives the same ids, another turn of a conversation gives others; nine
        # letters and digits, because some chat templates take no other ids.
        digest = blake2b(repr(origin).encode()).hexdigest()
        return CallReader(
            self._pair.call_format, names, lambda index: f"{digest[:6]}{index % 1000:03d}"
        )

    def matcher(
        self, params: SamplingParams, end: Collection[int], deadline: float
    ) -> TextMatcher | None:
        """Return what holds a sample to its grammar, if it has one."""
        if not (params.offered or params.json_schema is not None or params.regex or params.choices):
            return None
        # Outside of the lock: a schema that takes long keeps no other request waiting.
        try:
            grammars = self.grammars(bool(params.offered and self._pair.call_markers), deadline)
            return grammars.matcher(params, end, deadline)
        except OutOfTimeError:
            raise too_late(params.timeout, 0, params.max_tokens) from None

    def grammars(self, calls: bool, deadline: float = math.inf) -> Grammars:
        """Return what compiles grammars, over a vocabulary with the tokens that frame calls."""
        left = min(max(deadline - time.monotonic(), 0), threading.TIMEOUT_MAX)
        if not self._compiling.acquire(timeout=left):
            raise OutOfTimeError
        try:
            if calls not in self._grammars:
                control = self._pair.vocabulary.control
                spelled = enumerate(self._pair.vocabulary.token_bytes)
                text = [b"" if control[i] else data for i, data in spelled]
                for marker, data in self._pair.call_markers.items() if calls else ():
                    text[marker] = data
                self._grammars[calls] = Grammars(text, self._pair.encode, self._pair.call_format)
            return self._grammars[calls]
        finally:
            self._compiling.release()

    def _prepare(self) -> None:
        with suppress(Exception):  # a request for a grammar raises it again
            self.grammars(False)

    def room(self, prompts: tuple[tuple[int, ...], tuple[int, ...]]) -> int:
        """Return how many tokens fit into both context windows after the prompts.

        Raises:
            PromptError: A prompt is empty, or fills its model's window.
        """
        for source, prompt, window in zip(SOURCES, prompts, self._pair.context, strict=True):
            if not prompt:
                raise PromptError(
                    "messages",
                    f"a conversation that renders to at least one token for the {source} model",
                    "an empty prompt",
                    "Add some text, or choose another base prompt.",
                )
            if len(prompt) >= window:
                raise too_long(source, window, f"{len(prompt)} tokens")
        return min(w - len(p) for w, p in zip(self._pair.context, prompts, strict=True))


def too_long(source: str, window: int, length: str) -> PromptError:
    """Return the error of a prompt that does not fit into a context window."""
    return PromptError(
        "messages",
        f"shorter than the {source} model's context window of {window} tokens",
        length,
        "Shorten the conversation, or use a pair with a longer window.",
    )
