"""From a conversation to requests: checked once, rendered once per side, with a grammar."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from itertools import dropwhile
from typing import Any

from ..core.errors import BacoError, PromptError, too_late
from ..core.messages import (
    Conversation,
    Messages,
    RawPrompt,
    begun_answer,
    conversation,
)
from ..core.outputs import Usage
from ..core.params import SamplingParams
from ..core.text_stream import unsettled
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
from .settings import Prompt, checked_prompt

Prompts = tuple[tuple[int, ...], tuple[int, ...]]
"""The ids of base's prompt and of aligned's."""

LARGE = 2**16
"""For vocabularies of so many tokens, what compiles grammars is made before the first request."""

ROOMY = 8
"""Texts with more characters for each token of the window hardly ever fit into it."""


class Renderer:
    """Makes engine requests of conversations; safe to use from many threads at once.

    Args:
        pair: The pair of models.
        longest: Most tokens of aligned's prompt; None leaves it to the window.
    """

    def __init__(self, pair: Pair, longest: int | None = None) -> None:
        self._pair, self._space = pair, pair.token_space
        self._longest = pair.context[ALIGNED] if longest is None else longest
        self._grammars: dict[bool, Grammars] = {}
        self._compiling = threading.Lock()
        if len(pair.vocabulary.token_bytes) >= LARGE:
            threading.Thread(target=self._prepare, name="baco-grammars").start()

    def requests(
        self,
        messages: Messages | RawPrompt,
        params: SamplingParams,
        deadline: float,
        publish: Callable[[Event], None],
    ) -> list[EngineRequest]:
        """Return what an engine is asked for, a request for each sample.

        Args:
            messages: The conversation, or the raw prompt.
            params: The settings.
            deadline: When the request fails, by `time.monotonic`.
            publish: Takes the samples' events: steps, completions and errors.

        Raises:
            DeadlineError: The time is over before everything is rendered and compiled.
            ParameterError: A schema or a pattern cannot be compiled.
            PromptError: The conversation is malformed, or does not fit the models' windows.
        """
        prompts, begun = self.prompts(checked_prompt(messages, params), params, deadline)
        room = self.room(prompts)
        seed = secrets.randbits(53) if params.seed is None else params.seed
        only_base = params.spec.only == "base"
        end = self._pair.base_eos if only_base else self._pair.aligned_eos
        router = None if isinstance(params.router, str) else GuardedRouter(params.router)
        matcher = self.matcher(params, end, deadline)
        if matcher and begun:
            self.require_allowed(matcher, begun)
        output = partial(
            SampleOutput,
            publish,
            params,
            seed,
            usage=Usage(len(prompts[ALIGNED]), len(prompts[BASE]), 0),
            space=self._space.with_markers(self._pair.call_markers if params.offered else {}),
            approximate=getattr(self._pair, "approximate", False),
            stop=(*params.stop, *(self._pair.base_stop if only_base and not params.raw else ())),
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
        self, prompt: Prompt, params: SamplingParams, deadline: float
    ) -> tuple[Prompts, Sequence[int]]:
        """Render a conversation for base and aligned, in time.

        Returns:
            Both prompts, and the ids in aligned's with which the answer begins.

        Raises:
            DeadlineError: The time is over.
            PromptError: The pair cannot render it, or it is far too long.
        """
        if time.monotonic() > deadline:
            raise too_late(params.timeout, 0, params.max_tokens)
        try:
            with rendering_until(deadline):
                if isinstance(prompt, RawPrompt):
                    return self.render_raw(prompt), ()
                return self.render(prompt, params)
        except Exception as error:
            of_prompt = isinstance(error, PromptError) or not isinstance(error, BacoError)
            if time.monotonic() > deadline and of_prompt:
                raise too_late(params.timeout, 0, params.max_tokens) from error
            if isinstance(error, BacoError):
                raise
            raise PromptError(  # of a base prompt or a pair of the user's own
                "messages",
                "a conversation that the pair can render",
                prompt.content if isinstance(prompt, RawPrompt) else prompt,
                f"Rendering it fails with {type(error).__name__}: {error}.",
            ) from error

    def render_raw(self, prompt: RawPrompt) -> Prompts:
        """Return a raw prompt for base and aligned."""
        text = prompt.content
        if isinstance(text, str):
            self.refuse_far_too_long(len(text), lambda: text)
        base, aligned = self._pair.raw_ids(text)
        return tuple(base), tuple(aligned)

    def render(
        self, messages: Conversation, params: SamplingParams
    ) -> tuple[Prompts, Sequence[int]]:
        """Render a conversation; only aligned is shown schemas and tools. Returns as `prompts`."""
        pair, begun = self._pair, ""
        if params.continue_final_message:
            messages, begun = begun_answer(messages)
            self.require_no_call(begun, params)
        shown = messages
        if params.json_schema is not None and params.show_schema:
            shown = conversation(with_schema(messages, params.json_schema))
        tools: dict[str, Any] = {"tools": list(params.offered)} if params.offered else {}
        told = [begun, tools, *(value for message in shown for value in message.values())]
        self.refuse_far_too_long(
            sum(len(str(value)) for value in told),
            lambda: str(pair.render_aligned(shown, **tools)) + begun,
        )
        more: tuple[Sequence[int], Sequence[int]] = pair.answer_ids(begun) if begun else ((), ())
        base = (*pair.render_base(messages, tokenize=True), *more[BASE])
        aligned = (*pair.render_aligned(shown, tokenize=True, **tools), *more[ALIGNED])
        return (base, aligned), more[ALIGNED]

    def require_no_call(self, begun: str, params: SamplingParams) -> None:
        """Refuse an answer that begins with a call of a tool: only whole calls can be read.

        Raises:
            PromptError: It does.
        """
        opener = self._pair.call_format.opener
        opened = begun.lstrip().startswith(("{", "["))
        if opener:
            opened = opener in begun or unsettled(begun, (opener,)) > 0
        if params.offered and opened:
            raise PromptError(
                "messages",
                "an answer that begins with text, where continue_final_message and tools are set",
                begun,
                "Leave out the call, or the tools.",
            )

    def require_allowed(self, matcher: TextMatcher, begun: Sequence[int]) -> None:
        """Let a grammar read the beginning of an answer.

        Raises:
            PromptError: It does not allow it.
        """
        spelled = self._pair.vocabulary.token_bytes
        known = all(token < len(spelled) for token in begun)
        # White space in front is the template's.
        said = dropwhile(lambda token: spelled[token].isspace(), begun if known else ())
        if not (known and all(matcher.accept(token) for token in said)):
            raise PromptError(
                "messages",
                "a last message that its form allows, where continue_final_message is set",
                "another beginning",
                "Begin the answer as the schema, the pattern, the choices or the tools want it.",
            )

    def refuse_far_too_long(self, length: int, render: Callable[[], str]) -> None:
        """Refuse what is far beyond the window before all of it is tokenised: that takes long.

        Tokenising keeps other requests of the pair waiting, so it is done piece by piece.

        Args:
            length: About how many characters there are.
            render: Gives the text.
        """
        window = min(self._pair.context[ALIGNED], self._longest)
        if length <= ROOMY * window:
            return
        text, count = render(), 0
        for start in range(0, len(text), window):
            count += len(self._pair.encode(text[start : start + window]))
            if count > 2 * window:  # where pieces are cut, some tokens are others
                raise too_long("aligned", window, f"more than {count} tokens")

    def reader(self, params: SamplingParams, origin: object) -> CallReader | None:
        """Return what reads a sample's tool calls, if tools are offered."""
        without = params.continue_final_message and not self._pair.call_format.opener
        if not params.offered or without:  # then only what begins an answer is a call
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
                vocabulary = self._pair.vocabulary
                spelled = zip(vocabulary.control.tolist(), vocabulary.token_bytes, strict=True)
                text = [b"" if control else data for control, data in spelled]
                for marker, data in self._pair.call_markers.items() if calls else ():
                    text[marker] = data
                self._grammars[calls] = Grammars(text, self._pair.encode, self._pair.call_format)
            return self._grammars[calls]
        finally:
            self._compiling.release()

    def _prepare(self) -> None:
        with suppress(Exception):  # a request for a grammar raises it again
            self.grammars(False)

    def room(self, prompts: Prompts) -> int:
        """Return how many tokens fit into both context windows after the prompts.

        Raises:
            PromptError: A prompt is empty, longer than allowed, or fills its model's window.
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
        if len(prompts[ALIGNED]) > self._longest:
            raise PromptError(
                "messages",
                f"at most {self._longest} tokens long here, less than the context window holds",
                f"{len(prompts[ALIGNED])} tokens",
                "Shorten the conversation.",
            )
        return min(w - len(p) for w, p in zip(self._pair.context, prompts, strict=True))


def too_long(source: str, window: int, length: str) -> PromptError:
    """Return the error of a prompt that does not fit into a context window."""
    return PromptError(
        "messages",
        f"shorter than the {source} model's context window of {window} tokens",
        length,
        "Shorten the conversation, or use a pair with a longer window.",
    )
