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

from jinja2 import TemplateError

from ..core.errors import ParameterError, PromptError, nearest
from ..core.messages import Message
from ..core.plain import require_whole
from ..core.request_schema import without_titles
from ..core.tool_calls import FORMATS, CallFormat
from .encoding import Encoder
from .template_bounds import TemplateLimitError
from .templates import ChatTemplate

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
        kind: ``plain``, ``qa``, ``urial`` or a function of the messages; not ``chat_template``,
            which `render_aligned` renders.
        messages: A checked conversation, ending with any role.

    Raises:
        PromptError: The caller's function failed, or did not return text.
    """
    if callable(kind):
        try:
            text = kind([dict(message) for message in messages])
        except Exception as error:
            came = f"{type(error).__name__}: {error}"
            allowed = "a function that takes these messages"
            raise PromptError("base_prompt", allowed, came, "Mend the function.") from error
        if not isinstance(text, str):
            raise PromptError("base_prompt", "a function that returns text", text, "Return a str.")
        return require_whole(text, "base_prompt")
    turns = [(turn["role"], said_in(turn).strip()) for turn in merge_turns(messages)]
    if kind == "plain":
        return "".join(f"{text}\n\n" for _, text in turns)
    if kind == "urial":
        heads = {"user": "# Query:\n", "assistant": "# Answer:\n", "tool": "# Tool result:\n"}
        body = "".join(f"{heads.get(role, '')}{text}\n\n" for role, text in turns)
        return f"{_URIAL_PREAMBLE}{body}# Answer:\n"
    heads, written = {"user": "Q: ", "assistant": "A: ", "tool": "Tool: "}, ""
    for role, text in turns:
        gap = "" if not written else "\n" if role == "assistant" else "\n\n"
        written += f"{gap}{heads.get(role, '')}{text}"
    return f"{written}\nA:"


def gap(kind: BasePrompt) -> str:
    """Return what stands between a base prompt, as `render_base` writes it, and an answer."""
    return " " if kind == "qa" else ""


def merge_turns(messages: Sequence[Message]) -> list[Message]:
    """Join consecutive messages of one role; tool calls and tool results stay as they are."""
    merged: list[Message] = []

    def joint(numbered: tuple[int, Message]) -> str | int:
        number, message = numbered
        alone = message["role"] == "tool" or message.get("tool_calls")
        return number if alone else str(message["role"])

    for _, group in groupby(enumerate(messages), key=joint):
        turns = [message for _, message in group]
        texts = [turn["content"] for turn in turns if turn["content"]]
        merged.append({**turns[0], "content": "\n\n".join(texts)})
    return merged


def two_roles(messages: Sequence[Message]) -> list[Message]:
    """Reduce a conversation to user and assistant in turns: what every template can render."""
    ordered = sorted(messages, key=lambda message: message["role"] != "system")
    turns = [
        {"role": "assistant" if m["role"] == "assistant" else "user", "content": said_in(m)}
        for m in ordered
    ]
    if turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": ""})
    return merge_turns(turns)


def said_in(message: Message) -> str:
    """Return what a message says, and behind it the calls of an assistant."""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    written = [
        f"{call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})" for call in calls
    ]
    return "\n".join(part for part in (message["content"], *written) if part)


# -- what the aligned model reads about schemas and tools ----------------------------------------


SCHEMA_INSTRUCTION = "Answer only with JSON that follows this schema:\n"


def with_schema(messages: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    """Add to a conversation's system text which JSON schema the answer follows."""
    written = json.dumps(without_titles(schema), ensure_ascii=False)
    return instructed(messages, f"{SCHEMA_INSTRUCTION}{written}")


def instructed(messages: Sequence[Message], instruction: str) -> list[Message]:
    """Add an instruction to the system text that a conversation begins with, or begin with one."""
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


def tools_in_words(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None
) -> list[Message]:
    """Write tools, calls and results as text, for a template that knows nothing of them."""
    spoken = []
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "tool":
            result = f"<tool_response>\n{content}\n</tool_response>"
            message = {"role": "user", "content": result}
        elif calls := message.get("tool_calls"):
            pairs = [(each["function"]["name"], each["function"]["arguments"]) for each in calls]
            written = FORMATS["hermes"].write(pairs)
            message = {"role": role, "content": "\n".join(filter(None, (content, written)))}
        spoken.append(message)
    if not tools:
        return spoken
    listed = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
    return instructed(spoken, _TOOLS.format(tools=listed))


def short_ids(messages: Sequence[Message]) -> list[Message]:
    """Rewrite the ids of calls to nine letters and digits, all that Mistral's templates take."""

    def short(call_id: Any) -> str:
        text = str(call_id)
        fits = len(text) == 9 and text.isalnum()
        return text if fits else blake2b(text.encode()).hexdigest()[:9]

    rewritten = [dict(message) for message in messages]
    for message in rewritten:
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [{**call, "id": short(call.get("id"))} for call in calls]
        if "tool_call_id" in message:
            message["tool_call_id"] = short(message["tool_call_id"])
    return rewritten


def is_heard(
    template: ChatTemplate, messages: Sequence[Message], options: Mapping[str, Any], marked: str
) -> bool:
    """Tell whether the rendering changes when any one of the system texts is left empty.

    A system text may be a switch, such as ``/no_think``, that a template obeys but does not write.

    Args:
        template: The chat template.
        messages: The conversation.
        options: Variables of the template.
        marked: The rendering of the whole conversation.

    Returns:
        False if a system text makes no difference, or if there is none.
    """
    places = [n for n, m in enumerate(messages) if m["role"] == "system" and m["content"].strip()]
    silenced = ([*messages[:n], {**messages[n], "content": ""}, *messages[n + 1 :]] for n in places)
    return bool(places) and all(template.render(each, options) != marked for each in silenced)


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
        messages = tools_in_words(messages, tools)
    elif tools:
        options["tools"] = list(tools)
    if "[TOOL_CALLS]" in source:
        messages = short_ids(messages)
    system = [m["content"].strip() for m in messages if m["role"] == "system"]
    refusal: Exception | None = None
    says = "drops the system message"
    for form in (list(messages), merge_turns(messages), two_roles(messages)):
        try:
            template = encoder.template(source)
            marked = template.render(form, options)
            text = encoder.text(marked)
            written = all(part in text for part in system)
            taken = written or is_heard(template, form, options, marked)
        except TemplateLimitError as error:
            refusal, says = error, str(error)
            break
        except Exception as error:  # a template may raise anything
            kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
            refusal, says = error, f"says: {kind}{encoder.text(str(error))}"
            continue
        if taken:
            return encoder.ids(marked) if tokenize else text
    raise PromptError(
        "messages",
        "a conversation that the aligned model's chat template accepts",
        [message["role"] for message in messages],
        f"The template {says}.",
    ) from refusal


def template_gap(encoder: Encoder, template_kwargs: Mapping[str, Any]) -> str:
    """Return the white space that a chat template writes between a prompt's end and an answer.

    There is none where a template takes no such conversation, or writes other text there.

    Args:
        encoder: What encodes with a tokenizer that has a chat template.
        template_kwargs: Further variables for the template.
    """
    asked: list[Message] = [{"role": "user", "content": "Hi."}]
    answered = [*asked, {"role": "assistant", "content": "Yes."}]
    try:
        prompt, whole = (
            str(render_aligned(encoder, each, template_kwargs=template_kwargs))
            for each in (asked, answered)
        )
    except PromptError:
        return ""
    between, said, _ = whole.removeprefix(prompt).partition("Yes.")
    return between if said and whole.startswith(prompt) and between.isspace() else ""
