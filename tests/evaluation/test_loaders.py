"""Prompts from files: what each form reads, and how errors name file and line."""

import json
from pathlib import Path
from typing import Any

import pytest

from baco_integrations import BacoError
from baco_integrations.evaluation import Prompt, load_prompts


def written(folder: Path, *rows: Any, name: str = "file.jsonl") -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


NOVELTY = {"id": "c-1", "prompt": "A coin?", "prompt_paraphrases": ["Toss.", "Flip."]}
CHAT = [
    {"role": "system", "content": "x"},
    {"role": "user", "content": "First?"},
    {"role": "assistant", "content": "y"},
    {"role": "user", "content": "Second?"},
]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (["Name a city.", "", "  A [odd] one: {x}  "], [
            Prompt("file-1", "Name a city."), Prompt("file-3", "A [odd] one: {x}")]),
        (["[WP] no JSON"], [Prompt("file-1", "[WP] no JSON")]),
        ([{"prompt": "Hi"}, {"prompt": "Ho", "id": 7, "kind": "random"}], [
            Prompt("file-1", "Hi"), Prompt("7", "Ho", "random")]),
        (['[{"prompt": "Hi"}, {"prompt": "Ho"}]'], [
            Prompt("file-1", "Hi"), Prompt("file-2", "Ho")]),
        ([NOVELTY], [Prompt("c-1", "A coin?", paraphrases=("Toss.", "Flip."))]),
        ([{"conversation_hash": "h", "conversation": CHAT}], [Prompt("h", "First?")]),
        ([{"premise": "A lost key."}], [
            Prompt("file-1", "Write a short story from this premise: A lost key.", "creative")]),
    ],
)  # fmt: skip
def test_forms_are_recognised(tmp_path: Path, rows: list[Any], wanted: list[Prompt]) -> None:
    assert load_prompts(written(tmp_path, *rows)) == wanted


def test_story_prompts_lose_their_mark(tmp_path: Path) -> None:
    path = written(tmp_path, "[ WP ] A door opens .", "A [red] door.", name="s.txt")
    texts = [prompt.text for prompt in load_prompts(path, "stories")]
    assert [text.partition(": ")[2] for text in texts] == ["A door opens .", "A [red] door."]


@pytest.mark.parametrize(
    ("rows", "form", "message"),
    [
        ([{"prompt": "a"}, "{oops"], "auto", r"file.jsonl, line 2, must be a JSON object"),
        ([{"prompt": "a"}, {"promt": "b"}], "auto", r"line 2, must be an object with a 'prompt'"),
        ([{"prompt": "a"}, "3"], "auto", r"line 2, must be an object"),
        ([{"prompt": 3}], "auto", r"line 1, must be a row of the form 'prompts'"),
        ([{"prompt": " "}], "auto", r"line 1, must be a prompt with some text"),
        ([{"prompt": "a", "id": 1}, {"prompt": "b", "id": 1}], "auto", r"line 2, .*own, got '1'"),
        (
            [{**NOVELTY, "prompt_paraphrases": []}],
            "noveltybench",
            r"'prompt_paraphrases' is missing",
        ),
        ([{"conversation": CHAT[:1]}], "auto", r"line 1, must be a row of the form 'wildchat'"),
        ([], "auto", r"at least one prompt"),
        (["a"], "novelty", r"form must be one of auto, .*Did you mean 'noveltybench'"),
    ],
)
def test_errors_name_file_and_line(
    tmp_path: Path, rows: list[Any], form: str, message: str
) -> None:
    with pytest.raises(BacoError, match=message):
        load_prompts(written(tmp_path, *rows), form)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BacoError, match=r"nowhere.jsonl.*No such file"):
        load_prompts(tmp_path / "nowhere.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BacoError, match="a readable text file"):
        load_prompts(tmp_path / "binary")
