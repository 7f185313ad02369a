"""Grammars: what a request's text must be, compiled with llguidance.

Invariant: a text that a grammar allows follows the request's schema, pattern or choices, or calls
tools as the aligned model writes calls. Where only one text can follow, such as a key, of the
tokens that begin it just the tokenizer's own is allowed.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, lru_cache

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, regex_to_lark

from ..core.errors import ParameterError
from ..core.params import SamplingParams
from ..core.tool_calls import CallFormat
from .json_rules import LONGEST, json_rules, quoted
from .json_schema import fault_of
from .matcher import JsonPosition, TextMatcher
from .trial import LIMITS, PATIENCE, OutOfTimeError, ask, reason, remaining, until

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
            TokenizerWrapper(SpellingTokenizer(self._bytes, encode)), eos_token=len(self._bytes)
        )
        # Its own: a cache of the class would keep the pair alive.
        self._compiled = lru_cache(maxsize=64)(self.compile)

    def matcher(
        self, params: SamplingParams, end: Collection[int], deadline: float = math.inf
    ) -> TextMatcher | None:
        """Return a matcher for a sequence with these settings, None if its text is free.

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
                grammar = grammar_of(params, self._form)
                compiled = None if grammar is None else self.compile_for(params, grammar)
        except OutOfTimeError:
            if time.monotonic() >= deadline:
                raise
            name, kind, value = form_of(params)
            allowed = f"{kind} that the grammar engine compiles within {PATIENCE:g} s"
            remedy = "Leave out large numbers of 'multipleOf', and what has to be met together."
            raise ParameterError(name, allowed, value, remedy) from None
        if compiled is None:
            return None
        position = JsonPosition.of(params, self._form)
        return TextMatcher(compiled.deep_copy(), self._bytes, end, position)

    def compile_for(self, params: SamplingParams, grammar: str) -> LLMatcher:
        """Compile a request's grammar in Lark's syntax, or raise what `matcher` raises."""
        if len(grammar) > LONGEST:
            name, kind, _ = form_of(params)
            allowed, came = f"{kind} of at most {LONGEST} characters", f"{len(grammar)} characters"
            raise ParameterError(name, allowed, came, "Leave out what the answer does not need.")
        try:
            return self._compiled(LLMatcher.grammar_from_lark(grammar))
        except RefusedError as error:
            raise refusal(params, reason(str(error))) from None

    def compile(self, grammar: str) -> LLMatcher:
        """Try a grammar in a child process, then compile it here.

        Raises:
            OutOfTimeError: There is not enough time left.
            RefusedError: The engine refuses it.
        """
        answer = ask(grammar)
        if answer.said:
            raise RefusedError(answer.said)
        if answer.seconds > remaining():  # it cannot be stopped, and takes as long as on trial
            raise OutOfTimeError
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=LLParserLimits(**LIMITS))
        if matcher.is_error():
            raise RefusedError(matcher.get_error())
        for warning in matcher.get_grammar_warnings():
            _LOG.info("A part of a schema is not enforced while decoding: %s", warning)
        return matcher


class RefusedError(Exception):
    """The engine refuses a grammar, and says why."""


class SpellingTokenizer:
    """A vocabulary as llguidance reads it; one additional token stands for the end."""

    bos_token_id = None

    def __init__(self, token_bytes: tuple[bytes, ...], encode: Callable[[str], list[int]]) -> None:
        self.eos_token_id = len(token_bytes)
        self.tokens = [*token_bytes, b"\xff<end>"]
        self.special_token_ids = [self.eos_token_id]
        self._encode = encode

    def __call__(self, text: bytes) -> list[int]:
        """Spell a forced text; where the tokenizer would write it differently, by longest match."""
        ids = self._encode(text.decode())
        known = max(ids, default=0) < self.eos_token_id
        if known and b"".join(self.tokens[token] for token in ids) == text:
            return ids
        ids, start = [], 0
        while start < len(text):
            lengths = range(min(self._longest, len(text) - start), 0, -1)
            pieces = (text[start : start + length] for length in lengths)
            piece = next((piece for piece in pieces if piece in self._ids), None)
            if piece is None:
                break
            ids.append(self._ids[piece])
            start += len(piece)
        return ids

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {data: token for token, data in enumerate(self.tokens[:-1]) if data}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids), default=0)


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
        return lark({"start": "/ ?/ value", **rules}) if rules else None
    return lark({**call_rules(params, form, "value" in rules), **rules})


def call_rules(params: SamplingParams, form: CallFormat, or_value: bool) -> dict[str, str]:
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


def lark(rules: Mapping[str, str]) -> str:
    """Write a grammar of rules by their names."""
    return "\n".join(["%llguidance {}", *(f"{name}: {rule}" for name, rule in rules.items())])


def refusal(params: SamplingParams, said: str) -> ParameterError:
    """Return the error of a request whose grammar the engine refuses, and what it says of it."""
    name, kind, part = form_of(params)
    schemas = [("json_schema", "the schema", params.json_schema)] if params.json_schema else []
    for tool in params.offered:
        function = tool["function"]
        schemas.append(("tools", f"tool {function['name']!r}", function["parameters"]))
    place = ""
    for parameter, whose, schema in schemas:
        if fault := fault_of(schema):
            name, kind, (inner, part, said) = parameter, "a JSON schema", fault
            place = f" of {inner!r} in {whose}" if inner else f" of {whose}"
            break
    return ParameterError(
        name,
        f"{kind} that can be decoded",
        part,
        f"The grammar engine says{place}: {said.rstrip('.')}. Leave that part out, or write it in "
        "another way.",
    )


def form_of(params: SamplingParams) -> tuple[str, str, object]:
    """Return the setting that constrains the text, what its value is called, and the value."""
    if params.json_schema:
        return "json_schema", "a JSON schema", params.json_schema
    if params.regex:
        return "regex", "a pattern", params.regex
    if params.choices:
        return "choices", "choices", params.choices
    return "tools", "a JSON schema", params.tools
