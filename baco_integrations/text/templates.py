"""Chat templates, which come with models and may do anything: rendered within bounds.

Invariants: what a template writes itself comes out in an alphabet of its own, so that the text of
callers, wherever a template puts it and however it changes it, is never taken for the template's;
and a rendering is bounded in time and in memory.

The alphabet is lone surrogates, which no caller's text holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from ..core.messages import ROLES, Message
from . import template_bounds as bounds

OWN = re.compile("[\ud800-\udfff]+")
"""What is written in the alphabet."""
_SPELLING = {"capitalize", "e", "escape", "lower", "replace", "title", "upper"}
"""Filters to which the letters of a text matter."""
_CUTTING = {"partition", "removeprefix", "removesuffix", "replace", "rpartition", "rsplit", "split"}
"""Methods to which only the letters of what they look for matter."""
_SPACING = {"join", "lstrip", "rsplit", "rstrip", "split", "splitlines", "strip"}
"""Methods to which no letters matter where they look for white space, or for nothing."""
_FIXED = (nodes.Const, nodes.EnvironmentAttribute)
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


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
        self._roles = {role: OwnText.of(role, alphabet) for role in ROLES}
        self._special = {name: OwnText.of(text, alphabet) for name, text in special_tokens.items()}
        environment = BoundedEnvironment(alphabet)
        tree = Marking(alphabet, environment.own).visit(environment.parse(source))
        with bounds.in_time():  # what is constant is calculated here
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
        given = {"tools": None, "documents": None, **self._special, **variables, "messages": []}
        for message in messages:
            shown = {**message, "role": self._roles[message["role"]]}
            if "tool_calls" in message:
                calls = [(call, call["function"]) for call in message["tool_calls"]]
                shown["tool_calls"] = [
                    {**call, "function": {**f, "arguments": Arguments(f["arguments"])}}
                    for call, f in calls
                ]
            thoughts = next((message[name] for name in _THOUGHTS if name in message), None)
            if thoughts is not None:
                shown = {"thinking": thoughts, **shown, "reasoning_content": thoughts}
            given["messages"].append(shown)
        context = self._template.new_context(given)
        with bounds.in_time():
            return bounds.join(self._template.root_render_func(context))


class Arguments(dict[str, Any]):
    """Arguments of a call: a dict for templates that write JSON, JSON text for those that add."""

    def __str__(self) -> str:
        return json.dumps(self, ensure_ascii=False)


class OwnText(str):
    """A template's own text: plain where it is read or compared, in its alphabet where printed."""

    __slots__ = ("written",)
    written: str

    def __new__(cls, text: str) -> str:  # type: ignore[misc]
        """Return a plain str: what the sandbox builds from an `OwnText` may hold callers' text."""
        return str(text)

    @classmethod
    def of(cls, text: str, alphabet: Mapping[int, int]) -> OwnText:
        """Declare a text to be the template's own."""
        own = str.__new__(cls, text)
        own.written = text.translate(alphabet)
        return own

    def __str__(self) -> str:
        return self.written


# -- what is compiled -----------------------------------------------------------------------------


class Marking(NodeTransformer):
    """Rewrites a template: its own text is marked, and growing results and loops are checked.

    Args:
        alphabet: As for `ChatTemplate`.
        own: Where to keep the strings that are marked.
    """

    def __init__(self, alphabet: Mapping[int, int], own: dict[str, OwnText]) -> None:
        self._alphabet, self._own = alphabet, own

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        """Write the text between tags in the alphabet."""
        return nodes.TemplateData(node.data.translate(self._alphabet), lineno=node.lineno)

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        """Mark a literal string."""
        if not isinstance(node.value, str):
            return node
        self._own[node.value] = OwnText.of(node.value, self._alphabet)
        return nodes.EnvironmentAttribute(f"own[{node.value!r}]", lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """Leave literal keys unmarked: they are looked up as they stand, and never printed."""
        node.node = self.visit(node.node)
        node.arg = node.arg if isinstance(node.arg, nodes.Const) else self.visit(node.arg)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        """Leave the names of attributes in ``attr`` unmarked."""
        return node if node.name == "attr" else self.generic_visit(node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Compare composed texts as plain text, not in the alphabet."""
        self.generic_visit(node)
        sides: list[Any] = [node, *node.ops]
        for side in sides:
            if not isinstance(side.expr, _FIXED):
                side.expr = filtered(side.expr, "_read")
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Look at the time in each turn of a loop."""
        self.generic_visit(node)
        look = filtered(nodes.Const(None), "_require_time")
        node.body.insert(0, nodes.ExprStmt(look, lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Count what is joined by ``~``."""
        self.generic_visit(node)
        return filtered(nodes.Tuple(node.nodes, "load"), "_concat")

    def visit_List(self, node: Any) -> Any:
        """Count what stands in a list, a dict or a tuple."""
        self.generic_visit(node)
        fixed = all(isinstance(part, _FIXED) for part in node.iter_child_nodes())
        stored = getattr(node, "ctx", "load") != "load"
        return node if fixed or stored else filtered(node, "_sized")

    visit_Dict = visit_Tuple = visit_List


def filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    """Return an expression with a filter behind it."""
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class Generation(Extension):
    """The tag with which templates enclose answers, for training; here it only opens a scope."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Scope:
        """Read the tag, what it encloses, and its end."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


# -- what templates find --------------------------------------------------------------------------


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """What chat templates find, as in transformers; what can grow without end is weighed.

    Args:
        alphabet: As for `ChatTemplate`.

    Attributes:
        own: The strings that the template's code refers to.
    """

    intercepted_binops = frozenset({"*", "**", "%", "+"})
    concat = staticmethod(bounds.join)

    def __init__(self, alphabet: Mapping[int, int]) -> None:
        self.own: dict[str, OwnText] = {}
        self._letters = {own: letter for letter, own in alphabet.items()}
        super().__init__(
            optimized=False,  # which would calculate constants once for each that they stand in
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, loopcontrols],
        )
        self.filters["tojson"] = to_json
        self.filters |= {name: self.bounded(name) for name in self.filters.keys() - bounds.SMALL}
        self.filters |= {
            "_read": self.read,
            "_require_time": bounds.require_time,
            "_sized": bounds.sized,
            "_concat": lambda parts: bounds.join(map(str, parts)),
        }
        self.globals |= {
            "raise_exception": raise_exception,
            "strftime_now": lambda form: datetime.now().strftime(form),
            "namespace": PublicNamespace,
        }
        del self.globals["lipsum"]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate, unless the result would be too large."""
        bounds.require_time()
        if operator == "+":  # what is added is written
            left, right = (
                str(each) if isinstance(each, OwnText | Arguments) else each
                for each in (left, right)
            )
        else:
            bounds.weigh(operator, left, (right,))
        return bounds.sized(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method, unless the result would be too large."""
        bounds.require_time()
        method = getattr(__obj, "__wrapped__", __obj)
        text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if name in bounds.GROWING and isinstance(text, str | bytes | int):
            args = bounds.listed(args)
            bounds.weigh(name, text, (*args, *kwargs.values()))
        if isinstance(text, str) and (readable := __self.readable(text, name, args)) != text:
            __obj = __self.getattr(readable, name)
        return bounds.sized(super().call(__context, __obj, *args, **kwargs))

    def call_test(self, *args: Any, **kwargs: Any) -> Any:
        """Test one of many items, as `select` does."""
        bounds.require_time()
        return super().call_test(*args, **kwargs)

    def bounded(self, name: str) -> Callable[..., Any]:
        """Return a filter that checks time and sizes, and reads texts as plain text if needed."""
        function = self.filters[name]
        place = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            bounds.require_time()
            before, subject, others = args[:place], args[place], args[place + 1 :]
            if name in _SPELLING and isinstance(subject, str):
                subject = self.readable(subject, name, others)
                # What is looked for is not written.
                others = (*map(str.__str__, others[:1]), *others[1:])
            if name in bounds.GROWING and (others or kwargs or name in ("format", "join")):
                (subject,), others = bounds.listed([subject]), bounds.listed(others)
                around = [*others, *kwargs.values()]
                # What is joined stands on the right of what is put between.
                bounds.weigh(name, *((around, [subject]) if name == "join" else (subject, around)))
            result = function(*before, subject, *others, **kwargs)
            if isinstance(result, str | list):
                bounds.require_room(len(result) * (1 if isinstance(result, str) else bounds.ITEM))
            return result

        return bounded

    def read(self, value: Any) -> Any:
        """Return a text with the template's own characters as ordinary ones."""
        if not isinstance(value, str) or value.isascii():
            return value
        return OWN.sub(lambda own: own[0].translate(self._letters), value)

    def readable(self, text: str, name: str, args: Sequence[Any]) -> str:
        """Return a text in which the method or filter `name` finds what it looks for.

        Where possible, the template's own characters stay in the alphabet.
        """
        read: str = self.read(text)
        sought = args[0] if args and isinstance(args[0], str) else ""
        if read == text or (name in _SPACING and not sought.strip()):
            return text
        if name not in _CUTTING or not sought:
            return read
        kept, start = [], 0
        for part in read.split(sought):
            kept.append(text[start : start + len(part)])
            start += len(part) + len(sought)
        return sought.join(kept)


class PublicNamespace(Namespace):
    """A namespace without private names, which lead to Python's insides."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        Namespace.__init__(args[0])
        for name, value in dict(*args[1:], **kwargs).items():
            args[0][name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise TemplateError(f"a namespace has no name like {name!r}")
        super().__setitem__(name, value)


def raise_exception(message: str) -> None:
    """Raise what a template says."""
    raise TemplateError(str.__str__(message))


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers does."""
    options: dict[str, Any] = {"ensure_ascii": ensure_ascii, "sort_keys": sort_keys}
    return json.dumps(value, indent=indent, separators=separators, **options)
