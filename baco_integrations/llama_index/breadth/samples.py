"""Samples of a `BACoLLM`, as LlamaIndex's prompts ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llama_index.core import Settings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import LLM, ChatMessage
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate

from ...adapters.distinct import (
    BreadthParams,
    Draw,
    Idea,
    Similarity,
    cosine_similarity,
    distinct,
    idea_fields,
)
from ...core.errors import ParameterError
from ..llm import BACoLLM


def embedding_similarity(embed_model: BaseEmbedding) -> Similarity:
    """Return the cosine similarity of two texts' embeddings; opposites count as unrelated.

    Args:
        embed_model: Embeds the texts; each text once, as long as it is among the last 65536.
    """
    return cosine_similarity(embed_model.get_text_embedding)


def require_baco(llm: LLM | None) -> BACoLLM:
    """Return the LLM, or that of `Settings` if none is given.

    Raises:
        ParameterError: It is no `BACoLLM`.
    """
    # Where none is set, `Settings.llm` would look for somebody's API key.
    found = (Settings._llm and Settings.llm) if llm is None else llm
    if isinstance(found, BACoLLM):
        return found
    raise ParameterError(
        "llm",
        "a BACoLLM",
        None if found is None else type(found).__name__,
        "Only it has a gamma: give llm=BACoLLM(pair=...), here or to the engine that is wrapped, "
        "or set Settings.llm to one.",
    )


def require_prompt(
    name: str, prompt: str | BasePromptTemplate, variable: str
) -> BasePromptTemplate:
    """Return a prompt as a template.

    Raises:
        ParameterError: It has no place for the variable that it has to be filled in with.
    """
    template = PromptTemplate(prompt) if isinstance(prompt, str) else prompt
    if isinstance(template, BasePromptTemplate):
        mapped = {*template.kwargs, *(template.function_mappings or ())}
        names = template.template_var_mappings or {}
        if names.get(variable, variable) in {*template.template_vars, *mapped}:
            return template
    raise ParameterError(
        name,
        f"a prompt, or the text of one, with {{{variable}}} in it",
        prompt if isinstance(prompt, str) else getattr(prompt, "template", prompt),
        "What is asked about is filled in there.",
    )


def first_line(text: str) -> str:
    """Return the first line that is not blank, code fences aside."""
    lines = (line.strip() for line in text.strip("`").splitlines())
    return next(filter(None, lines), "")


def drawing(
    llm: BACoLLM,
    messages: Sequence[ChatMessage],
    read: Callable[[str], str],
    build: Callable[..., Idea] = Idea,
) -> Draw:
    """Return a function that draws a sample, for `distinct`.

    Args:
        llm: Answers.
        messages: The prompt.
        read: Returns the part of an answer that is the idea.
        build: Makes an `Idea`.
    """

    async def sample(number: int, settings: Mapping[str, Any]) -> Idea:
        response = await llm.achat(messages, **settings)
        text = read(response.message.content or "")
        return build(value=text, text=text, sample=number, **idea_fields(settings, response.raw))

    return sample


async def ideas(draw: Draw, params: BreadthParams, known: Iterable[str] = ()) -> list[Idea]:
    """Return up to ``params.n`` distinct ideas, in the order of their samples' numbers.

    Args:
        draw: Draws a sample.
        params: How many are looked for, and which count as the same.
        known: Texts that the ideas have to differ from.
    """
    return [idea async for idea in distinct(draw, params, in_order=True, known=known)]
