"""The two prompts of one conversation: plain text for base, a chat template for aligned.

Literal text such as ``<|im_end|>`` inside a message stays text on both sides: only the prompt's own
frame holds control tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import groupby
from typing import Any

from ..core.errors import ParameterError, PromptError, nearest
from ..core.messages import Message
from ..core.plain import require_whole
from ..core.tool_calls import FORMATS, CallFormat
from .encoding import Encoder
from .templates import ChatTemplate, TemplateLimitError

BasePrompt = str | Callable[[list[Message]], str]
"""A kind of base prompt, or a function of messages, whose ``stop`` may list stop strings."""

_URIAL_PREAMBLE = """\
# Instruction

Below are queries that people sent to a thoughtful writer, each followed by the writer's answer. \
The answers are friendly, specific and to the point; they keep to the facts, and say so where \
something is not known or would do harm.

# Query:
What makes bread rise?

# Answer:
Yeast does. It feeds on the sugars in the flour and gives off carbon dioxide, and the stretchy \
gluten of the dough traps that gas in small bubbles. In the oven the bubbles swell once more \
before the crumb sets around them.

# Query:
Suggest three ways to spend a rainy afternoon.

# Answer:
1. Cook something slow, such as a stew, and let it fill the kitchen with its smell.
2. Write a letter by hand to someone you have not seen for a while.
3. Take the shortest book from your shelf and read it in one sitting.

"""

_KINDS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "qa": ("\nQ:",),
    "urial": ("# Query:",),
    "chat_template": (),
}


def check_base_prompt(kind: BasePrompt) -> BasePrompt:
    """Return a kind of base prompt if there is such a kind.

    Raises:
        ParameterError: It is neither a known name nor a function.
    """
    if callable(kind) or (isinstance(kind, str) and kind in _KINDS):
        return kind
    hint = nearest(kind, _KINDS) if isinstance(kind, str) else ""
    allowed = f"one of {', '.join(_KINDS)}, or a function from messages to text"
    raise ParameterError("base_prompt", allowed, kind, f"{hint}The default is 'qa'.")


def stop_strings(kind: BasePrompt) -> tuple[str, ...]:
    """Return the strings with which the base model would open the next turn of the transcript."""
    if callable(kind):
        return tuple(getattr(kind, "stop", ()))
    return _KINDS[kind]


def render_base(kind: BasePrompt, messages: Sequence[Message]) -> str:
    """Write a conversation as plain text that ends where an answer begins.

    Args:
        kind: ``plain``, ``qa``, ``urial`` or a function of the messages. (``chat_template`` is
            not text of ours: see `render_aligned`.)
        messages: A checked conversation, ending with any role.

    Raises:
        PromptError: A function of the caller's failed, or returned something else than text.
    """
    if callable(kind):
        try:
            text = kind([dict(message) for message in messages])
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            allowed = "a function that takes these messages"
            raise PromptError("base_prompt", allowed, told, "Mend the function.") from error
        if not isinstance(text, str):
            raise PromptError("base_prompt", "a function that returns text", text, "Return a str.")
        return require_whole(text, "base_prompt")
    turns = [(turn["role"], _text(turn).strip()) for turn in merge_turns(messages)]
    if kind == "plain":
        return "".join(f"{text}\n\n" for _, text in turns)
    if kind == "urial":
        heads = {"user": "# Query:\n", "assistant": "# Answer:\n", "tool": "# Tool result:\n"}
        body = "".join(f"{heads.get(role, '')}{text}\n\n" for role, text in turns)
        return f"{_URIAL_PREAMBLE}{body}# Answer:\n"
    return _render_qa(turns)


def _render_qa(turns: Sequence[tuple[str, str]]) -> str:
    heads = {"user": "Q: ", "assistant": "A: ", "tool": "Tool: "}
    text = ""
    for role, content in turns:
        gap = "" if not text else "\n" if role == "assistant" else "\n\n"
        text += f"{gap}{heads.get(role, '')}{content}"
    return f"{text}\nA:"


def merge_turns(messages: Sequence[Message]) -> list[Message]:
    """Join consecutive messages of one role; tool calls and tool results stay as they are."""
    merged: list[Message] = []
    for joins, group in groupby(enumerate(messages), key=lambda each: _joint(*each)):
        turns = [message for _, message in group]
        texts = "\n\n".join(filter(None, (turn["content"] for turn in turns)))
        merged += [{**turns[0], "content": texts}] if isinstance(joins, str) else map(dict, turns)
    return merged


def _joint(position: int, message: Message) -> str | int:
    """Return what the messages that are joined have in common."""
    alone = message["role"] == "tool" or message.get("tool_calls")
    return position if alone else str(message["role"])


def _two_roles(messages: Sequence[Message]) -> list[Message]:
    """Reduce a conversation to user and assistant in turns: what every template can render."""
    ordered = sorted(messages, key=lambda message: message["role"] != "system")
    turns = [
        {"role": "assistant" if m["role"] == "assistant" else "user", "content": _text(m)}
        for m in ordered
    ]
    if turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": ""})
    return merge_turns(turns)


def _text(message: Message) -> str:
    """Return what a message says; the calls of an assistant that says nothing are written out."""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    written = [
        f"{call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})" for call in calls
    ]
    return "\n".join([part for part in (message["content"], *written) if part])


# -- what the aligned model is told about schemas and tools -------------------------------------


SCHEMA_INSTRUCTION = "Answer only with JSON that follows this schema:\n"


def with_schema(messages: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    """Add to a conversation's system text which JSON schema the answer follows."""
    told = json.dumps(_untitled(schema), ensure_ascii=False)
    return _instructed(messages, f"{SCHEMA_INSTRUCTION}{told}")


def _untitled(schema: Any, names: bool = False) -> Any:
    """Leave out the titles that pydantic makes up; `names` says that keys are properties' names."""
    if isinstance(schema, list):
        return [_untitled(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: _untitled(value, names=not names and key in ("properties", "$defs"))
        for key, value in schema.items()
        if names or key != "title"
    }


def _instructed(messages: Sequence[Message], instruction: str) -> list[Message]:
    first, *others = messages
    if first["role"] != "system":
        return [{"role": "system", "content": instruction}, *messages]
    joined = "\n\n".join(filter(None, (first["content"], instruction)))
    return [{**first, "content": joined}, *others]


def call_format(template: str | None) -> CallFormat:
    """Tell from a chat template how its model writes tool calls.

    Hermes' format stands in where a template knows nothing of tools: `render_aligned` then tells
    the model of it.
    """
    template = template or ""
    if "[TOOL_CALLS]" in template:
        if "[ARGS]" in template:
            return FORMATS["mistral-args"]
        form = FORMATS["mistral"]
        # Tokens that begin with the space are others.
        return replace(form, begin="[TOOL_CALLS] [") if "[TOOL_CALLS] [" in template else form
    if "<tool_call>" in template or "tools" not in template:
        return FORMATS["hermes"]
    return FORMATS["llama3" if "parameters" in template and "ipython" in template else "json"]


_TOOLS = """\
You may call these tools:
{tools}

To call one, answer with its name and arguments as JSON between tags:
<tool_call>
{{"name": "the tool's name", "arguments": {{...}}}}
</tool_call>"""


def _tools_in_words(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None
) -> list[Message]:
    """Write tools, calls and results as text, for a template that knows nothing of them."""
    spoken = [_spoken(message) for message in messages]
    if not tools:
        return spoken
    listed = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
    return _instructed(spoken, _TOOLS.format(tools=listed))


def _spoken(message: Message) -> Message:
    if message["role"] == "tool":
        result = f"<tool_response>\n{message['content']}\n</tool_response>"
        return {"role": "user", "content": result}
    if not message.get("tool_calls"):
        return message
    calls = [call["function"] for call in message["tool_calls"]]
    written = FORMATS["hermes"].write([(each["name"], each["arguments"]) for each in calls])
    return {
        "role": message["role"],
        "content": "\n".join(filter(None, (message["content"], written))),
    }


def _short_ids(messages: Sequence[Message]) -> list[Message]:
    """Rewrite the ids of calls to nine letters and digits, all that Mistral's templates take."""

    def short(call_id: Any) -> str:
        text = str(call_id)
        fits = len(text) == 9 and text.isalnum()
        return text if fits else blake2b(text.encode()).hexdigest()[:9]

    rewritten = [dict(message) for message in messages]
    for message in rewritten:
        if message.get("tool_calls"):
            calls = message["tool_calls"]
            message["tool_calls"] = [{**call, "id": short(call.get("id"))} for call in calls]
        if "tool_call_id" in message:
            message["tool_call_id"] = short(message["tool_call_id"])
    return rewritten


def _is_heard(
    template: ChatTemplate, messages: Sequence[Message], options: Mapping[str, Any], marked: str
) -> bool:
    """Tell whether each system text made a difference, as switches do that are not written."""
    heard = False
    for place, message in enumerate(messages):
        if message["role"] == "system" and message["content"].strip():
            silent = [*messages[:place], {**message, "content": ""}, *messages[place + 1 :]]
            heard = template.render(silent, options) != marked
            if not heard:
                break
    return heard


def render_aligned(
    encoder: Encoder,
    messages: Sequence[Message],
    *,
    tokenize: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Write a conversation with a tokenizer's chat template, ready for the next answer.

    A template may refuse system messages, tool messages, or turns that do not alternate. Then turns
    of one role are joined, and failing that, system texts move into the first user turn and tool
    results into turns of the user. A system message that makes no difference counts as refused.
    A template that knows nothing of tools is given them, their calls and their results in words.

    Args:
        encoder: What encodes with a tokenizer that has a chat template.
        messages: A checked conversation.
        tokenize: Whether to return token ids instead of text.
        tools: Tools offered to the model, as JSON schemas.
        template_kwargs: Further variables for the template; ``chat_template`` is one in its place.

    Returns:
        The text, or its token ids, to which nothing (no second BOS) may be added.

    Raises:
        PromptError: The template refuses every form of the conversation, takes too long or writes
            too much.
    """
    options: dict[str, Any] = {**(template_kwargs or {}), "add_generation_prompt": True}
    source = options.pop("chat_template", None) or encoder.tokenizer.get_chat_template(
        tools=list(tools) if tools else None
    )
    if "tools" not in source:
        messages = _tools_in_words(messages, tools)
    elif tools:
        options["tools"] = list(tools)
    if "[TOOL_CALLS]" in source:
        messages = _short_ids(messages)
    system = [m["content"].strip() for m in messages if m["role"] == "system"]
    refusal: Exception | None = None
    for form in (list(messages), merge_turns(messages), _two_roles(messages)):
        try:
            template = encoder.template(source)
            marked = template.render(form, options)
            text = encoder.text(marked)
            written = all(part in text for part in system)
            if not written and not _is_heard(template, form, options, marked):
                continue
        except Exception as error:  # a template may raise anything
            refusal = error
            if isinstance(error, TemplateLimitError):
                break
            continue
        return encoder.ids(marked) if tokenize else text
    raise PromptError(
        "messages",
        "a conversation that the aligned model's chat template accepts",
        [message["role"] for message in messages],
        f"The template {_said(refusal, encoder)}.",
    ) from refusal


def _said(refusal: Exception | None, encoder: Encoder) -> str:
    from jinja2 import TemplateError

    if refusal is None:
        return "drops the system message"
    if isinstance(refusal, TemplateLimitError):
        return str(refusal)
    kind = "" if isinstance(refusal, TemplateError) else f"{type(refusal).__name__}: "
    return f"says: {kind}{encoder.text(str(refusal))}"
