"""Grammars: what a request's text must be, compiled with llguidance, and one matcher per row.

Invariant: a matcher's mask allows the tokens whose bytes keep the text on the way to a complete
one, and the end of the turn where it is complete. Where only one text can follow, such as a key, of
the tokens that begin it just the tokenizer's own is allowed.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, regex_to_lark
from numpy.typing import NDArray

from ..core.errors import ParameterError
from ..core.params import SamplingParams
from ..core.tool_calls import CallFormat
from .json_rules import LONGEST, json_rules, quoted
from .json_schema import fault_of, reason
from .trial import LIMITS, PATIENCE, OutOfTimeError, ask, remaining, until

_STUCK = ("NoExtension", "NoExtensionBias")
"""The engine's reasons to stop where the vocabulary cannot spell what must come."""
_LESS = "Leave out what the answer does not need."
_LOG = logging.getLogger(__name__)


class Grammars:
    """Compiles grammars over one vocabulary; safe to use from many threads at once.

    Args:
        token_bytes: What each token adds to the text; empty for tokens that no grammar may use.
        encode: The tokenizer.
        form: How the aligned model writes tool calls.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        encode: Callable[[str], list[int]],
        form: CallFormat,
    ) -> None:
        self._bytes, self._form = tuple(token_bytes), form
        self._tokenizer = LLTokenizer(
            TokenizerWrapper(_Tokens(self._bytes, encode)), eos_token=len(self._bytes)
        )
        # Its own: a cache of the class would keep the pair alive.
        self._matcher = lru_cache(maxsize=64)(self._compile)

    def matcher(
        self, params: SamplingParams, end: Collection[int], deadline: float = math.inf
    ) -> GrammarMatcher | None:
        """Return a matcher for a row with these settings, None if its text is free.

        Args:
            params: The request's settings.
            end: Ids that end the turn.
            deadline: Until when compiling may take, by `time.monotonic`.

        Raises:
            OutOfTimeError: The deadline has passed.
            ParameterError: A schema or a pattern cannot be compiled, or not in time.
        """
        try:
            with until(deadline):
                return self._guide(params, end)
        except OutOfTimeError:
            if time.monotonic() >= deadline:
                raise
            raise _too_slow(params) from None

    def _guide(self, params: SamplingParams, end: Collection[int]) -> GrammarMatcher | None:
        grammar = grammar_of(params, self._form)
        if grammar is None:
            return None
        if len(grammar) > LONGEST:
            form, kind = _form_of(params)
            said = f"{len(grammar)} characters"
            raise ParameterError(form, f"{kind} of at most {LONGEST} characters", said, _LESS)
        try:
            matcher = self._matcher(LLMatcher.grammar_from_lark(grammar))
        except _RefusedError as error:
            raise _refusal(params, str(error)) from None
        return GrammarMatcher(
            matcher.deep_copy(), self._bytes, end, JsonPosition.of(params, self._form)
        )

    def _compile(self, grammar: str) -> LLMatcher:
        answer = ask(grammar)
        if answer.said:
            raise _RefusedError(answer.said)
        if answer.seconds > remaining():  # it cannot be stopped, and takes as long as on trial
            raise OutOfTimeError
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=LLParserLimits(**LIMITS))
        if matcher.is_error():
            raise _RefusedError(matcher.get_error())
        for warning in matcher.get_grammar_warnings():
            _LOG.info("A part of a schema is not enforced while decoding: %s", warning)
        return matcher


class _RefusedError(Exception):
    """The engine refuses a grammar, and says why."""


class _Tokens:
    """A vocabulary as llguidance reads it; one token more than there are stands for the end."""

    bos_token_id = None

    def __init__(self, token_bytes: tuple[bytes, ...], encode: Callable[[str], list[int]]) -> None:
        self.eos_token_id = len(token_bytes)
        self.tokens = [*token_bytes, b"\xff<end>"]
        self.special_token_ids = [self.eos_token_id]
        self._encode = encode
        self._ids = {data: token for token, data in enumerate(token_bytes) if data}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: bytes) -> list[int]:
        """Spell a forced text; where the tokenizer would write it differently, by longest match."""
        ids = self._encode(text.decode())
        known = max(ids, default=0) < self.eos_token_id
        if known and b"".join(self.tokens[token] for token in ids) == text:
            return ids
        return list(self._greedy(text))

    def _greedy(self, text: bytes) -> Iterator[int]:
        start = 0
        while start < len(text):
            lengths = range(min(self._longest, len(text) - start), 0, -1)
            pieces = (text[start : start + length] for length in lengths)
            piece = next((piece for piece in pieces if piece in self._ids), None)
            if piece is None:
                return
            yield self._ids[piece]
            start += len(piece)


class GrammarMatcher:
    """Steers one row through a grammar; see `decoding.matcher.GrammarMatcher`."""

    def __init__(
        self,
        matcher: LLMatcher,
        token_bytes: tuple[bytes, ...],
        end: Collection[int],
        place: JsonPosition,
    ) -> None:
        self._matcher, self._bytes, self._place = matcher, token_bytes, place
        self._end = end
        self._settled: tuple[LLMatcher, JsonPosition] | None = None

    def fresh(self) -> GrammarMatcher:
        """Return another matcher for the same text; this one must not have begun."""
        return GrammarMatcher(self._matcher.deep_copy(), self._bytes, self._end, self._place.copy())

    @property
    def structure(self) -> bool:
        """Whether the next token is structure."""
        return self._place.structure

    @property
    def begins(self) -> bool:
        """Whether the value of a string begins here."""
        return self._place.begins

    @property
    def reserved(self) -> str:
        """A character that only aligned may write here."""
        return self._place.reserved

    @property
    def error(self) -> str:
        """Why the engine has given up on the text, empty if it has not."""
        said = reason(self._matcher.get_error())
        return "" if said in _STUCK else said

    def allow(self, bits: NDArray[np.int32]) -> None:
        """Set the bits of the tokens that may come next."""
        self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        may_end = self._matcher.is_accepting()
        for token in self._end:
            bit = np.int32(1) << np.int32(token % 32)
            bits[token // 32] = bits[token // 32] | bit if may_end else bits[token // 32] & ~bit

    def accept(self, token: int) -> bool:
        """Take the token that came; return whether the grammar allows it."""
        if token in self._end:
            return bool(self._matcher.is_accepting())
        self._place.push(self._bytes[token])
        return bool(self._matcher.consume_token(token))

    def guess(self, token: int) -> None:
        """Go on as if a token had come, that the grammar allows and that does not end the text."""
        if self._settled is None:
            # A copy is put aside: after a rollback, llguidance's masks may be those of the guess.
            self._settled = self._matcher.deep_copy(), self._place.copy()
        self.accept(token)

    def roll_back(self) -> None:
        """Go back to the last token that came."""
        if self._settled is not None:
            (self._matcher, self._place), self._settled = self._settled, None


# -- whose place it is -----------------------------------------------------------------------------


class JsonPosition:
    """Follows a text byte by byte: is what comes next structure, or the value of a string?

    Args:
        depth: How many brackets are open where string values begin to be free; None where all of
            the text is free.
        opener: What turns said text into a call: until it comes, the text is free. Empty where a
            call may only begin the text, None where the whole text is JSON.
    """

    def __init__(self, depth: int | None, opener: str | None = None) -> None:
        self._depth, self._opener = depth, opener
        self._said = "" if opener is not None else None
        self._open: list[str] = []
        self._in_string = self._escaped = self._begins = False
        self._is_value = True

    @classmethod
    def of(cls, params: SamplingParams, form: CallFormat) -> JsonPosition:
        """Return the place at the beginning of a request's text."""
        if params.offered and params.json_schema is None:
            # A call's arguments lie in its object, which may lie in a list of calls.
            depth = 1 + len(form.tail) + form.begin.endswith("[")
            return cls(depth, None if params.forced_calls else form.opener)
        if params.json_schema is not None:
            return cls(0)
        return cls(None)

    def copy(self) -> JsonPosition:
        """Return a place that goes on by itself."""
        other = copy.copy(self)
        other._open = self._open.copy()
        return other

    @property
    def structure(self) -> bool:
        """Whether aligned gives what comes next."""
        if self._depth is None:
            return False
        if self._said is not None:
            return self._beginning() > 0
        return not (self._in_string and self._is_value and len(self._open) >= self._depth)

    @property
    def begins(self) -> bool:
        """Whether a free value's opening quote was the last to come."""
        return self._depth is not None and self._begins and not self.structure

    @property
    def reserved(self) -> str:
        """The character that leaves this place, which only aligned may write."""
        if self._depth is None or self.structure:
            return ""
        if self._said is None:
            return '"'
        return self._opener[0] if self._opener else "" if self._said else "{"

    def push(self, data: bytes) -> None:
        """Go on by a token's bytes."""
        for char in data.decode("latin-1"):  # structure is ASCII, and no other byte looks like it
            if self._said is None:
                self._json(char)
            else:
                self._text(char)

    def _text(self, char: str) -> None:
        assert self._said is not None
        if self._opener:
            self._said = (self._said + char)[-len(self._opener) :]
            self._said = None if self._said == self._opener else self._said
        elif not self._said:
            self._said = char.strip()
            if char == "{":
                self._said = None
                self._json(char)

    def _beginning(self) -> int:
        """Return the length of the longest ending of the said text that begins the opener."""
        said, opener = self._said or "", self._opener or ""
        return max((n for n in range(1, len(opener)) if said.endswith(opener[:n])), default=0)

    def _json(self, char: str) -> None:
        self._begins = char == '"' and not self._in_string
        if self._in_string:
            self._in_string = self._escaped or char != '"'
            self._escaped = not self._escaped and char == "\\"
        elif char == '"':
            self._in_string = True
        elif char in "{[":
            self._open.append(char)
            self._is_value = char == "["
        elif char in "}]" and self._open:
            self._open.pop()
        elif char == ":":
            self._is_value = True
        elif char == ",":
            self._is_value = self._open[-1:] == ["["]


# -- grammars --------------------------------------------------------------------------------------


def grammar_of(params: SamplingParams, form: CallFormat) -> str | None:
    """Write the grammar of a request's text in Lark's syntax, None if its text is free.

    White space in front is dropped from every text, so one space may come before values.
    """
    rules: dict[str, str] = {}
    if params.json_schema is not None:
        rules = json_rules("value", params.json_schema)
    elif params.regex is not None:
        rules["value"] = "PATTERN"
        rules["PATTERN"] = rf"/{regex_to_lark(params.regex)}/ & /(\S(.|\n)*)?/"
    elif params.choices:
        # One terminal: alternatives of a rule count one by one.
        rules = {"value": "CHOICE", "CHOICE": " | ".join(map(quoted, params.choices))}
    if not params.offered:
        return _lark({"start": "/ ?/ value", **rules}) if rules else None
    return _lark({**_calls(params, form, "value" in rules), **rules})


def _calls(params: SamplingParams, form: CallFormat, or_value: bool) -> dict[str, str]:
    """Write the rules of an answer that calls tools, or may."""
    chosen = [
        tool["function"]
        for tool in params.offered
        if params.tool_choice in ("auto", "any", tool["function"]["name"])
    ]
    rules: dict[str, str] = {}
    arguments: dict[str, str] = {}
    for number, function in enumerate(chosen):
        head, tail = quoted(form.head(function["name"])), quoted(form.tail)
        rules[f"call_{number}"] = f"{head} arguments_{number} {tail}"
        arguments |= json_rules(f"arguments_{number}", function["parameters"], "tools")
    call = f"{quoted(form.before)} body {quoted(form.after)}"
    several = params.parallel_tool_calls and form.separator is not None
    more = f" ({quoted(form.separator or '')} {call})*" if several else ""
    rules = {"body": " | ".join(rules), **rules, **arguments}
    end = quoted(form.end)
    # Nothing stands before a tag: what can begin in one way only begins with the tag's own token.
    space = "" if form.opener else "/ ?/"
    forced = f"{space} {quoted(form.begin)} {call}{more} {end}"
    if params.forced_calls:
        return {"start": forced, **rules}
    if or_value:
        return {"start": f"({forced}) | (/ ?/ value)", **rules}
    if not form.opener:
        # An answer that begins like a call is one.
        return {"start": f"({forced}) | TEXT", "TEXT": r"/(\s*[^{\[\s](.|\n)*)?/", **rules}
    rest = (form.begin + form.before).removeprefix(form.opener)
    first = f"head {quoted(rest)} body {quoted(form.after)}{more} {end}"
    head = f"/(.|\\n)*/ {json.dumps(form.opener)}"
    return {"start": f"TEXT | {first}", "TEXT": r"/(.|\n)*/", "head[lazy]": head, **rules}


def _lark(rules: Mapping[str, str]) -> str:
    return "\n".join(["%llguidance {}", *(f"{name}: {rule}" for name, rule in rules.items())])


def _refusal(params: SamplingParams, message: str) -> ParameterError:
    schemas = [("json_schema", "the schema", params.json_schema)] if params.json_schema else []
    for tool in params.offered:
        function = tool["function"]
        schemas.append(("tools", f"tool {function['name']!r}", function["parameters"]))
    for name, whose, schema in schemas:
        if fault := fault_of(schema):
            place = f"{fault.place!r} in {whose}" if fault.place else whose
            return _undecodable(name, "a JSON schema", fault.part, f" of {place}", fault.said)
    form, kind = _form_of(params)
    return _undecodable(form, kind, getattr(params, form), "", reason(message))


def _too_slow(params: SamplingParams) -> ParameterError:
    form, kind = _form_of(params)
    return ParameterError(
        form,
        f"{kind} that the grammar engine compiles within {PATIENCE:g} s",
        getattr(params, form),
        "Leave out large numbers of 'multipleOf', and what has to be met together.",
    )


def _form_of(params: SamplingParams) -> tuple[str, str]:
    """Return which setting says what the text is like, and what that is called."""
    form = next((n for n in ("json_schema", "regex", "choices") if getattr(params, n)), "tools")
    return form, {"regex": "a pattern", "choices": "choices"}.get(form, "a JSON schema")


def _undecodable(name: str, kind: str, part: object, place: str, said: str) -> ParameterError:
    return ParameterError(
        name,
        f"{kind} that can be decoded",
        part,
        f"The grammar engine says{place}: {said.rstrip('.')}. Leave that part out, or write it in "
        "another way.",
    )
