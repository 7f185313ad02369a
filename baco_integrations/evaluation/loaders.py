"""Prompts from local files, whatever benchmark they belong to.

Invariant: a file is read whole and checked before anything is asked; errors name file and line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
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
            user turn is asked), ``stories`` (``premise`` or plain lines, a ``[ WP ]`` in front is
            dropped), ``ifeval`` (``key``, ``prompt``, ``instruction_id_list``, ``kwargs``) and
            ``gsm8k`` (``question``, ``answer``).

    Raises:
        ParameterError: The file cannot be read, or a line of it is not what the form says; the
            message names file and line.
    """
    if form != "auto" and form not in FORMS:
        allowed = f"one of auto, {', '.join(FORMS)}"
        raise ParameterError("form", allowed, form, f"{nearest(form, FORMS)}'auto' finds out.")
    path = Path(path)
    rows = list(_rows(path, plain=form == "text"))
    if not rows:
        raise ParameterError("prompts", "a file with at least one prompt", path.name, "Fill it.")
    prompts: dict[str, Prompt] = {}
    for number, row in rows:
        own = _guess(path, number, row) if form == "auto" else form
        prompt = _prompt(path, number, row, own)
        if prompt.id in prompts:
            raise _wrong(path, number, "with an id of its own", prompt.id, "Number them.")
        prompts[prompt.id] = prompt
    return list(prompts.values())


def _rows(path: Path, plain: bool) -> Iterator[tuple[int, Row]]:
    """Yield the numbered rows of a file; a line of plain text is a row with a ``text``."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        remedy = f"{path} could not be read: {getattr(error, 'strerror', None) or error}."
        raise ParameterError("prompts", "a readable text file", str(path), remedy) from error
    if not plain and content.lstrip().startswith("["):
        whole = _whole(content)
        if whole is not None:
            yield from enumerate(whole, 1)
            return
    plain = plain or not content.lstrip().startswith("{")
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield number, {"text": line.strip()} if plain else _parsed(path, number, line)


def _whole(content: str) -> list[Row] | None:
    """Return a file that is one JSON list; plain text may begin with a bracket too."""
    try:
        rows = json.loads(content)
    except ValueError:
        return None
    return rows if isinstance(rows, list) else None


def _parsed(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _wrong(path, number, "a JSON object", line, f"{error}.") from error
    return row  # type: ignore[no-any-return]


def _guess(path: Path, number: int, row: Row) -> str:
    keys = {
        "text": "text",
        "instruction_id_list": "ifeval",
        "question": "gsm8k",
        "conversation": "wildchat",
        "premise": "stories",
        "prompt_paraphrases": "noveltybench",
        "prompt": "prompts",
    }
    found = [form for key, form in keys.items() if isinstance(row, Mapping) and key in row]
    if not found:
        allowed = "an object with a 'prompt'"
        raise _wrong(path, number, allowed, row, f"Other keys are known too: {', '.join(keys)}.")
    return found[0]


def _prompt(path: Path, number: int, row: Row, form: str) -> Prompt:
    try:
        prompt = FORMS[form](row)
    except (KeyError, TypeError, ValueError, IndexError, StopIteration, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        remedy = f"See load_prompts for the keys of each form ({told})."
        raise _wrong(path, number, f"a row of the form {form!r}", row, remedy) from error
    if not prompt.text.strip():
        raise _wrong(path, number, "a prompt with some text", row, "Drop it.")
    return prompt if prompt.id else replace(prompt, id=f"{path.stem}-{number}")


def _wrong(path: Path, number: int, allowed: str, received: object, remedy: str) -> ParameterError:
    return ParameterError(f"{path}, line {number},", allowed, received, remedy)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


def _id(row: Row, *keys: str) -> str:
    return next((str(row[key]) for key in keys if key in row), "")


def _text(row: Row) -> Prompt:
    return Prompt("", _string(row["text"]))


def _plain(row: Row) -> Prompt:
    paraphrases = tuple(_string(text) for text in row.get("prompt_paraphrases") or ())
    return Prompt(_id(row, "id"), _string(row["prompt"]), row.get("kind"), paraphrases=paraphrases)


def _noveltybench(row: Row) -> Prompt:
    prompt = _plain(row)
    if not (prompt.id and prompt.paraphrases):
        raise ValueError("'id' or 'prompt_paraphrases' is missing")
    return prompt


def _wildchat(row: Row) -> Prompt:
    said = next(turn["content"] for turn in row["conversation"] if turn["role"] == "user")
    return Prompt(_id(row, "conversation_hash", "conversation_id", "id"), _string(said))


def _story(row: Row) -> Prompt:
    premise = _string(next(row[key] for key in ("premise", "prompt", "text") if key in row))
    head, mark, rest = premise.partition("]")
    if mark and head.replace(" ", "").lower() == "[wp":
        premise = rest
    return Prompt(_id(row, "id"), STORY.format(premise=premise.strip()), "creative")


def _ifeval(row: Row) -> Prompt:
    names, settings = list(row["instruction_id_list"]), list(row["kwargs"])
    if len(names) != len(settings):
        raise ValueError("there must be kwargs for each instruction")
    details = {"instruction_id_list": names, "kwargs": settings}
    return Prompt(_id(row, "key"), _string(row["prompt"]), details=details)


def _gsm8k(row: Row) -> Prompt:
    if "####" not in row["answer"]:
        raise ValueError("the answer has no '####'")
    details = {"answer": row["answer"]}
    return Prompt(_id(row, "id"), _string(row["question"]), details=details)


FORMS: dict[str, Callable[[Row], Prompt]] = {
    "text": _text,
    "prompts": _plain,
    "noveltybench": _noveltybench,
    "wildchat": _wildchat,
    "stories": _story,
    "ifeval": _ifeval,
    "gsm8k": _gsm8k,
}
"""Forms of files by their names."""
