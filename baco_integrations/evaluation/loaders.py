"""Prompts from local files, whatever benchmark they belong to.

Invariant: a file is read whole and checked before anything is asked; errors name file and line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import ParameterError, nearest
from .prompts import Prompt

Row = Mapping[str, Any]

STORY = "Write a short story from this premise: {premise}"
"""How a story prompt is asked."""


def load_prompts(path: str | Path, form: str = "auto") -> list[Prompt]:
    """Read prompts from a local file.

    Args:
        path: A file of JSON lines, a JSON list, or plain text with one prompt a line.
        form: One of `FORMS`, or ``auto``, which goes by the file's keys: ``text`` (a prompt each
            line), ``prompts`` (``prompt``, perhaps ``id`` and ``kind``), ``noveltybench`` (``id``,
            ``prompt``, ``prompt_paraphrases``), ``wildchat`` (``conversation``, of which the first
            user turn is asked) and ``stories`` (``premise`` or plain lines, a ``[ WP ]`` in front
            is dropped).

    Raises:
        ParameterError: The file cannot be read, or a line of it is not what the form says; the
            message names file and line.
    """
    if form != "auto" and form not in FORMS:
        allowed = f"one of auto, {', '.join(FORMS)}"
        raise ParameterError("form", allowed, form, f"{nearest(form, FORMS)}'auto' finds out.")
    path = Path(path)
    rows = read_rows(path, plain=form == "text")
    if not rows:
        raise ParameterError("prompts", "a file with at least one prompt", path.name, "Fill it.")
    prompts: dict[str, Prompt] = {}
    for number, row in rows:
        where = f"{path}, line {number},"
        prompt = to_prompt(where, row, form)
        own = prompt.id or f"{path.stem}-{number}"
        if own in prompts:
            raise ParameterError(where, "with an id of its own", own, "Number them.")
        prompts[own] = replace(prompt, id=own)
    return list(prompts.values())


def read_rows(path: Path, plain: bool) -> list[tuple[int, Any]]:
    """Return the rows of a file with their numbers; a line of plain text is ``{"text": line}``.

    Raises:
        ParameterError: The file cannot be read, or a line of it is not JSON.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        remedy = f"{path} could not be read: {getattr(error, 'strerror', None) or error}."
        raise ParameterError("prompts", "a readable text file", str(path), remedy) from error
    start = content.lstrip()[:1]
    if start == "[" and not plain:
        with suppress(ValueError):  # plain text may begin with a bracket too
            return list(enumerate(json.loads(content), 1))
    rows: list[tuple[int, Any]] = []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        if plain or start != "{":
            rows.append((number, {"text": line.strip()}))
            continue
        try:
            rows.append((number, json.loads(line)))
        except ValueError as error:
            where = f"{path}, line {number},"
            raise ParameterError(where, "a JSON object", line, f"{error}.") from error
    return rows


def to_prompt(where: str, row: Any, form: str) -> Prompt:
    """Return the prompt of a row; ``auto`` goes by its keys.

    Raises:
        ParameterError: The row is not what the form says; the message begins with `where`.
    """
    if form == "auto":
        keys = row if isinstance(row, Mapping) else ()
        found = next((form for key, form in FORM_OF_KEY.items() if key in keys), None)
        if found is None:
            remedy = f"Other keys are known too: {', '.join(FORM_OF_KEY)}."
            raise ParameterError(where, "an object with a 'prompt'", row, remedy)
        form = found
    try:
        prompt = FORMS[form](row)
    except (KeyError, TypeError, ValueError, IndexError, StopIteration, AttributeError) as error:
        remedy = f"See load_prompts for the keys of each form ({type(error).__name__}: {error})."
        raise ParameterError(where, f"a row of the form {form!r}", row, remedy) from error
    if not prompt.text.strip():
        raise ParameterError(where, "a prompt with some text", row, "Drop it.")
    return prompt


def string(value: object) -> str:
    """Return a value that is a string; raises TypeError if it is none."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


def id_of(row: Row, *keys: str) -> str:
    """Return the first of these keys that a row has, as text; "" if it has none."""
    return next((str(row[key]) for key in keys if key in row), "")


def from_plain(row: Row) -> Prompt:
    """Read ``prompt``, and ``id``, ``kind`` and ``prompt_paraphrases`` if they are there."""
    paraphrases = tuple(map(string, row.get("prompt_paraphrases") or ()))
    return Prompt(id_of(row, "id"), string(row["prompt"]), row.get("kind"), paraphrases=paraphrases)


def from_noveltybench(row: Row) -> Prompt:
    """Read a row of NoveltyBench, which has ``id`` and ``prompt_paraphrases``."""
    prompt = from_plain(row)
    if not (prompt.id and prompt.paraphrases):
        raise ValueError("'id' or 'prompt_paraphrases' is missing")
    return prompt


def from_wildchat(row: Row) -> Prompt:
    """Read the first user turn of a ``conversation``."""
    first = next(turn["content"] for turn in row["conversation"] if turn["role"] == "user")
    return Prompt(id_of(row, "conversation_hash", "conversation_id", "id"), string(first))


def from_story(row: Row) -> Prompt:
    """Read a ``premise``, without a ``[ WP ]`` in front."""
    premise = string(next(row[key] for key in ("premise", "prompt", "text") if key in row))
    premise = re.sub(r"^ *\[ *w *p *\]", "", premise, flags=re.IGNORECASE)
    return Prompt(id_of(row, "id"), STORY.format(premise=premise.strip()), "creative")


FORMS: dict[str, Callable[[Row], Prompt]] = {
    "text": lambda row: Prompt("", string(row["text"])),
    "prompts": from_plain,
    "noveltybench": from_noveltybench,
    "wildchat": from_wildchat,
    "stories": from_story,
}
"""Forms of files by their names."""
FORM_OF_KEY = {
    "text": "text",
    "conversation": "wildchat",
    "premise": "stories",
    "prompt_paraphrases": "noveltybench",
    "prompt": "prompts",
}
"""The form that a key tells, the most telling key first."""
