"""Chat templates, which come with models and may do anything: rendered within bounds.

Invariants: what a template writes itself comes out in an alphabet of its own, so that nothing
callers say, wherever a template puts it and whatever it makes of it, passes for the template's
words; and a rendering ends, in time and in memory.

The alphabet is lone surrogates, which no caller's text holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from time import monotonic
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from ..core.messages import ROLES, Message

SECONDS = 5.0
"""Longest time of one rendering."""
CHARACTERS = 2**25
"""Most characters of a text that a template makes, each item of a list counted as some."""
_ITEM = 64
_OWN = re.compile("[\ud800-\udfff]+")

_until: ContextVar[float] = ContextVar("_until")


class TemplateLimitError(Exception):
    """A rendering that takes too long, or makes too much; the words follow "the template"."""


@contextmanager
def rendering_until(deadline: float) -> Iterator[None]:
    """Let templates that are rendered here give up at a time, by `time.monotonic`."""
    token = _until.set(deadline)
    try:
        yield
    finally:
        _until.reset(token)


def _limited() -> AbstractContextManager[None]:
    return rendering_until(min(monotonic() + SECONDS, _until.get(math.inf)))


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: The template.
        special_tokens: What it calls the tokenizer's special tokens.
        alphabet: How the characters of control tokens are written where they are the template's.

    Raises:
        TemplateError: It cannot be parsed.
    """

    def __init__(
        self, source: str, special_tokens: Mapping[str, str], alphabet: Mapping[int, int]
    ) -> None:
        self._roles = {role: _Own.of(role, alphabet) for role in ROLES}
        self._special = {name: _Own.of(text, alphabet) for name, text in special_tokens.items()}
        environment = _Environment(alphabet)
        tree = _Marking(alphabet, environment.own).visit(environment.parse(source))
        with _limited():  # what is constant is calculated here
            self._template = environment.from_string(tree)

    def render(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
        """Write a conversation; the template's own characters come out in its alphabet.

        Args:
            messages: A checked conversation.
            variables: Further variables, as plain data.

        Raises:
            TemplateLimitError: It takes too long, or makes too much.
            Exception: Whatever the template raises.
        """
        told = [self._told(message) for message in messages]
        given = {"tools": None, "documents": None, **self._special, **variables, "messages": told}
        context = self._template.new_context(given)
        with _limited():
            return _join(self._template.root_render_func(context))

    def _told(self, message: Message) -> Message:
        """Return a message as templates expect it."""
        told = {**message, "role": self._roles[message["role"]]}
        if "tool_calls" in message:
            told["tool_calls"] = [_with_arguments(call) for call in message["tool_calls"]]
        names = ("reasoning_content", "thinking", "reasoning")
        thoughts = [message[name] for name in names if name in message]
        return {"thinking": thoughts[0], **told, names[0]: thoughts[0]} if thoughts else told


def _with_arguments(call: Message) -> Message:
    function = call["function"]
    return {**call, "function": {**function, "arguments": _Arguments(function["arguments"])}}


class _Arguments(dict[str, Any]):
    """Arguments of a call: a dict for templates that write JSON, JSON text for those that add."""

    def __str__(self) -> str:
        return json.dumps(self, ensure_ascii=False)

    def __add__(self, other: object) -> str:
        return str(self) + other if isinstance(other, str) else NotImplemented

    def __radd__(self, other: object) -> str:
        return other + str(self) if isinstance(other, str) else NotImplemented


class _Own(str):
    """A template's own text: itself where it is looked at, in its alphabet where it is written."""

    __slots__ = ("written",)
    written: str

    def __new__(cls, text: str) -> str:  # type: ignore[misc]
        """Return a plain text: what the sandbox makes of one of these holds callers' text."""
        return str(text)

    @classmethod
    def of(cls, text: str, alphabet: Mapping[int, int]) -> _Own:
        """Declare a text to be the template's own."""
        own = str.__new__(cls, text)
        own.written = text.translate(alphabet)
        return own

    def __str__(self) -> str:
        return self.written

    def __add__(self, other: object) -> str:
        return self.written + str(other) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: object) -> str:
        return other + self.written if isinstance(other, str) else NotImplemented


# -- what is compiled -----------------------------------------------------------------------------


class _Marking(NodeTransformer):
    """Marks a template's own text, and sees to it that what can grow or go on is counted.

    Args:
        alphabet: As for `ChatTemplate`.
        own: Where to keep the strings that are marked.
    """

    def __init__(self, alphabet: Mapping[int, int], own: dict[str, _Own]) -> None:
        self._alphabet, self._own = alphabet, own

    def visit_TemplateData(self, node: nodes.TemplateData) -> Node:
        return nodes.TemplateData(node.data.translate(self._alphabet), lineno=node.lineno)

    def visit_Const(self, node: nodes.Const) -> Node:
        if not isinstance(node.value, str):
            return node
        own = self._own[node.value] = _Own.of(node.value, self._alphabet)
        return nodes.Const(own, lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> Node:
        node.node = self.visit(node.node)
        # What is looked up is never written, and the sandbox would look for it as it is written.
        node.arg = node.arg if type(node.arg) is nodes.Const else self.visit(node.arg)
        return node

    def visit_Compare(self, node: nodes.Compare) -> Node:
        self.generic_visit(node)
        sides: list[Any] = [node, *node.ops]
        for side in sides:
            if type(side.expr) is not nodes.Const:
                side.expr = _filter(side.expr, "_read")
        return node

    def visit_Filter(self, node: nodes.Filter) -> Node:
        return node if node.name == "attr" else self.generic_visit(node)

    def visit_For(self, node: nodes.For) -> Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter(nodes.Const(None), "_tick"), lineno=node.lineno))
        return node

    def visit_Add(self, node: nodes.Add) -> Node:
        self.generic_visit(node)
        left: Any = node.left
        parts = left.node.items if getattr(left, "name", "") == "_add" else [left]
        return _filter(nodes.Tuple([*parts, node.right], "load"), "_add")

    def visit_Concat(self, node: nodes.Concat) -> Node:
        self.generic_visit(node)
        return _filter(nodes.Tuple(node.nodes, "load"), "_concat")

    def _collection(self, node: Any) -> Node:
        self.generic_visit(node)
        fixed = all(type(part) is nodes.Const for part in node.iter_child_nodes())
        if fixed or getattr(node, "ctx", "load") != "load":
            return node  # type: ignore[no-any-return]
        return _filter(node, "_sized")

    visit_List = visit_Dict = visit_Tuple = _collection


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Compiler(CodeGenerator):
    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        if isinstance(node.value, _Own):
            self.write(f"environment.own[{str.__repr__(node.value)}]")
        else:
            super().visit_Const(node, frame)


class _Generation(Extension):
    """The tag with which templates enclose answers, for training; here it only opens a scope."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Scope:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


# -- what is counted ------------------------------------------------------------------------------

_PADDING = {"batch", "center", "ljust", "rjust", "round", "slice", "to_bytes", "zfill"}
_FORMATTING = {"%", "format", "format_map"}
_SCALING = {"expandtabs", "indent", "tojson", "translate", "wordwrap"}
_SMALL = {"count", "d", "default", "first", "last", "length", "string"}
_GROWING = _PADDING | _FORMATTING | _SCALING | {"join", "replace", "sum"}
_SPELLING = {"capitalize", "e", "escape", "lower", "replace", "title", "upper"}
"""Filters to which the letters of a text matter."""
_CUTTING = {"partition", "removeprefix", "removesuffix", "replace", "rpartition", "rsplit", "split"}
"""Methods to which only the letters of what they look for matter."""
_SPACING = {"join", "lstrip", "rsplit", "rstrip", "split", "splitlines", "strip"}
"""Methods to which no letters matter where they look for white space, or for nothing."""
_WIDTH = re.compile(r"\d{5}|\*|\{[^{}]*\{")
"""What in a format takes long: wide fields, and widths that come with what is formatted."""


def _require_time() -> None:
    if monotonic() > _until.get():
        raise TemplateLimitError("takes too long")


@pass_context
def _tick(context: Any, nothing: None) -> None:
    _require_time()


def _join(pieces: Any) -> str:
    size, kept = 0, []
    for piece in pieces:
        size += len(piece)
        _require_room(size)
        kept.append(piece)
    return "".join(kept)


def _join_all(parts: tuple[Any, ...]) -> str:
    return _join(map(str, parts))


def _add_all(parts: tuple[Any, ...]) -> Any:
    """Add up what a template adds in one expression."""
    total = parts[0]
    for part in parts[1:]:
        total = _sized(total + part)
    return total


def _require_room(size: int) -> None:
    if size > CHARACTERS:
        raise TemplateLimitError(f"makes a text of more than {CHARACTERS} characters")


def _sized(value: Any) -> Any:
    """Return a value that is not too large; what stands in it twice counts twice."""
    if isinstance(value, str | bytes):
        _require_room(len(value))
    elif isinstance(value, list | tuple | dict):
        _size(value)
    elif isinstance(value, int):
        _require_room(value.bit_length() * 2**9)
    return value


def _size(value: Any) -> int:
    total, left = 0, [value]
    while left:
        part = left.pop()
        if isinstance(part, str | bytes):
            total += len(part)
        elif isinstance(part, list | tuple | dict):
            total += _ITEM * len(part)
            left.extend(part)
            left.extend(part.values() if isinstance(part, dict) else ())
        _require_room(total)
    return total


def _kept(value: Any) -> Any:
    """Return a list of what can be read once only, and could not be weighed."""
    return list(value) if isinstance(value, Iterator) else value


def _weigh(name: str, subject: Any, args: Sequence[Any]) -> None:
    """Estimate how large a result will be, before there is one.

    Args:
        name: The operator, or the name of the filter or method.
        subject: What stands on its left.
        args: What stands on its right.
    """
    numbers = [abs(each) for each in args if isinstance(each, int)]
    if name == "**":
        size = 2**9 * sum(numbers) * (subject.bit_length() if isinstance(subject, int) else 0)
    elif name == "*":
        count = subject if isinstance(subject, int) else sum(numbers)
        size = count * max(_size(subject), _size(args[0]))
    elif name in _FORMATTING:
        text = repr(subject) if isinstance(subject, str | bytes) else ""
        fields = CHARACTERS if _WIDTH.search(text) else text.count("%") + text.count("{")
        widest = max(map(int, re.findall(r"\d{1,4}", text)), default=0)
        size = fields * (1 + widest + _size(args))
    elif name == "replace":
        old, new = (*map(str, args), "", "")[:2]
        size = (len(str(subject)) // max(len(old), 1) + 1) * len(new)
    elif name == "join":
        size = _size(args[0]) + _size(subject) * len(args[0])
    elif name == "sum":  # of lists, each of which is copied for each that follows
        size = len(subject) ** 2 if any(isinstance(each, list | tuple) for each in args) else 0
    elif name in _PADDING:
        size = _ITEM * sum(numbers)
    else:
        factor = sum(numbers) + sum(map(_size, args))
        size = factor * _size(subject)
    _require_room(size)


def _weighed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that is weighed before and after."""
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0
    weighty = name in _GROWING

    @wraps(function)
    def weighed(*args: Any, **kwargs: Any) -> Any:
        _require_time()
        if weighty and (len(args) + len(kwargs) > skipped + 1 or name in ("format", "join")):
            args = tuple(map(_kept, args))
            subject, *others = args[skipped:]
            others += kwargs.values()
            if name == "join":  # the method's divider stands on the left
                _weigh(name, others, [subject])
            else:
                _weigh(name, subject, others)
        result = function(*args, **kwargs)
        if isinstance(result, str | list):
            _require_room(len(result) * (1 if isinstance(result, str) else _ITEM))
        return result

    return weighed


class _Environment(ImmutableSandboxedEnvironment):
    """What chat templates find, as in transformers; what can grow without end is weighed."""

    code_generator_class = _Compiler
    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, alphabet: Mapping[int, int]) -> None:
        self.own: dict[str, _Own] = {}
        self._letters = {own: letter for letter, own in alphabet.items()}
        super().__init__(
            optimized=False,  # which would calculate constants once for each that they stand in
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
        )
        self.filters["tojson"] = _tojson
        for name in self.filters.keys() - _SMALL:
            self.filters[name] = _weighed(name, self.filters[name])
        self.filters |= {name: self._reading(name) for name in _SPELLING}
        self.filters["_read"] = self._read
        self.filters |= {"_tick": _tick, "_add": _add_all, "_concat": _join_all, "_sized": _sized}
        self.globals |= {
            "raise_exception": _raise,
            "strftime_now": lambda form: datetime.now().strftime(form),
            "namespace": _Namespace,
        }
        del self.globals["lipsum"]

    concat = staticmethod(_join)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate, unless the result would be too large."""
        _require_time()
        _weigh(operator, left, (right,))
        return _sized(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method, unless the result would be too large."""
        _require_time()
        method = getattr(__obj, "__wrapped__", __obj)
        text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if name in _GROWING and isinstance(text, str | bytes | int):
            args = tuple(map(_kept, args))
            _weigh(name, text, (*args, *kwargs.values()))
        if isinstance(text, str) and (readable := __self._readable(text, name, args)) != text:
            __obj = __self.getattr(readable, name)
        return _sized(super().call(__context, __obj, *args, **kwargs))

    def call_test(self, *args: Any, **kwargs: Any) -> Any:
        """Test one of many items, as `select` does."""
        _require_time()
        return super().call_test(*args, **kwargs)

    def _read(self, value: Any) -> Any:
        """Return a text as it reads: the template's own words in it are in their alphabet."""
        if not isinstance(value, str) or value.isascii():
            return value
        return _OWN.sub(lambda own: own[0].translate(self._letters), value)

    def _readable(self, text: str, name: str, args: Sequence[Any]) -> str:
        """Return a text in letters in which a method or filter finds what it looks for."""
        read = self._read(text)
        sought = args[0] if args and isinstance(args[0], str) else ""
        if read == text or (name in _SPACING and not sought.strip()):
            return text
        if name not in _CUTTING or not sought:
            return read  # type: ignore[no-any-return]
        kept, start = [], 0
        for part in read.split(sought):
            kept.append(text[start : start + len(part)])
            start += len(part) + len(sought)
        return sought.join(kept)

    def _reading(self, name: str) -> Callable[..., Any]:
        """Return a filter that knows its letters in the template's alphabet."""
        function = self.filters[name]
        place = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def reading(*args: Any, **kwargs: Any) -> Any:
            before, text, others = args[:place], args[place], args[place + 1 :]
            if isinstance(text, str):
                text = self._readable(text, name, others)
                # What is looked for is not written.
                others = (*map(str.__str__, others[:1]), *others[1:])
            return function(*before, text, *others, **kwargs)

        return reading


class _Namespace(Namespace):
    """A namespace without private names, which lead to Python's insides."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _require_public(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)


def _require_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise TemplateError(f"a namespace has no name like {name!r}")


def _raise(message: str) -> None:
    raise TemplateError(str.__str__(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
