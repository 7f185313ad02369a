import json
from random import Random
from typing import Literal

import pydantic
import pytest
from pydantic import BaseModel

from baco_integrations.tiny.words import ALL_KINDS, BY_NAME
from cookbook.tiny_pair import corpora, words, world
from cookbook.tiny_pair.grammar import Voice, text_of
from cookbook.tiny_pair.judges import NOT_JSON, NOT_THE_SCHEMA, judge_json
from cookbook.tiny_pair.schemas import (
    ROLES,
    Field,
    in_string,
    made_up_word,
    random_fields,
    schema_of,
    write_json,
)
from cookbook.tiny_pair.world import SCHEMA_INSTRUCTION, JsonRequest

GIFT = BY_NAME["gift"]
IDEA, REASON = Field("idea", "content"), Field("reason", "reason")
NESTED = (
    Field("ideas", "objects", fields=(IDEA, Field("note", "detail")), under="Idea"),
    Field("info", "object", fields=(Field("why", "reason"),)),
    Field("names", "contents", note="A few words."),
    Field("sure", "flag"),
    Field("score", "count"),
    Field("mood", "enum", options=("low", "high")),
)


def asks(*fields: Field, kind: str = "gift", used: tuple[str, ...] = ()) -> JsonRequest:
    return JsonRequest("id", kind, fields, used, [])


def roles(fields: tuple[Field, ...]) -> set[str]:
    return {field.role for field in fields} | {r for f in fields for r in roles(f.fields)}


def test_a_schema_is_as_people_write_it() -> None:
    text = {"type": "string"}
    assert schema_of((IDEA, REASON)) == {
        "type": "object",
        "properties": {"idea": text, "reason": text},
        "required": ["idea", "reason"],
    }
    assert list(schema_of((IDEA,), type_first=False)) == ["properties", "required", "type"]


def test_a_schema_says_all_that_pydantic_says() -> None:
    class Idea(BaseModel):
        idea: str
        note: str

    class Info(BaseModel):
        why: str

    class Answer(BaseModel):
        ideas: list[Idea]
        info: Info
        names: list[str] = pydantic.Field(description="A few words.")
        sure: bool
        score: int
        mood: Literal["low", "high"]

    def untitled(value: object) -> object:
        if isinstance(value, list):
            return [untitled(each) for each in value]
        if not isinstance(value, dict):
            return value
        return {k: untitled(each) for k, each in value.items() if k != "title"}

    fields = (NESTED[0], NESTED[1]._replace(under="Info"), *NESTED[2:])
    assert schema_of(fields) == untitled(Answer.model_json_schema())


def test_an_object_without_a_name_stands_in_its_place() -> None:
    schema = schema_of(NESTED)
    assert schema["properties"]["info"]["properties"] == {"why": {"type": "string"}}
    assert list(schema["$defs"]) == ["Idea"]


@pytest.mark.parametrize("flat", [0.0, 0.5, 1.0])
def test_answers_are_what_json_dumps_gives_and_valid(flat: float) -> None:
    for number in range(200):
        rng = Random(number)
        kind = rng.choice(ALL_KINDS)
        fields = random_fields(rng.choice(("plain", "another", "list")), "train", rng)
        answer = write_json(kind, fields, Voice(rng, flat))
        text = text_of(answer.pieces)
        assert json.dumps(json.loads(text), ensure_ascii=False) == text
        verdict = judge_json(asks(*fields, kind=kind.name), text)
        assert verdict == (True, answer.contents[0], "ok"), text


def test_every_role_is_thought_of() -> None:
    seen = [roles(random_fields("plain", "train", Random(n))) for n in range(300)]
    assert set().union(*seen) == {*ROLES, "objects"}
    assert all(each & {"content", "contents"} for each in seen)
    for number in range(100):
        assert "reason" in roles(random_fields("why", "train", Random(number)))
        assert roles(random_fields("list", "train", Random(number))) & {"contents", "objects"}


def test_keys_differ_and_some_are_made_up() -> None:
    keys = [f.key for n in range(300) for f in random_fields("plain", "train", Random(n))]
    fixed = {k for slot in (words.CONTENT_KEYS, words.LIST_KEYS) for k in slot["train"]}
    for slot in (words.REASON_KEYS, words.DETAIL_KEYS, words.FLAG_KEYS, words.COUNT_KEYS):
        fixed |= set(slot)
    fixed |= {*words.ENUM_KEYS, *words.OBJECT_KEYS, *words.OBJECT_LIST_KEYS}
    assert 0.02 < sum(key not in fixed for key in keys) / len(keys) < 0.2
    for number in range(300):
        fields = random_fields("plain", "train", Random(number))
        assert len({field.key for field in fields}) == len(fields)


def test_made_up_words_are_words() -> None:
    assert len({made_up_word(Random(n)) for n in range(100)}) > 80
    assert all(made_up_word(Random(n)).isalpha() for n in range(100))


def test_contents_are_not_named_again() -> None:
    fields = (IDEA, Field("other", "content"))
    for seed in range(50):
        answer = write_json(GIFT, fields, Voice(Random(seed), 0.5), used=GIFT.contents[:3])
        assert len({*answer.contents, *GIFT.contents[:3]}) == 5
    move = BY_NAME["move"]
    many = write_json(move, fields, Voice(Random(0), 1.0), used=move.contents)
    assert set(many.contents) <= set(move.contents)


def test_titles_leave_their_quotation_marks() -> None:
    assert in_string('"Quiet Harbor"') == "Quiet Harbor"
    text = text_of(write_json(BY_NAME["title"], (IDEA,), Voice(Random(0), 0.0)).pieces)
    assert text == '{"idea": "Quiet Harbor"}'


def test_only_choices_in_values_are_free() -> None:
    pieces = write_json(GIFT, (IDEA, REASON), Voice(Random(0), 1.0)).pieces
    assert any(piece.free for piece in pieces)
    assert not any(piece.free and set(piece.text) & set('{}":') for piece in pieces)
    assert not any(p.free for p in write_json(GIFT, (IDEA,), Voice(Random(0), 0.0)).pieces)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I would pick a kite.", NOT_JSON),
        ('{"idea": "a kite", "reason": "nobody regrets it"', NOT_JSON),
        ('["a kite"]', NOT_THE_SCHEMA),
        ('{"idea": "a kite"}', NOT_THE_SCHEMA),
        ('{"reason": "nobody regrets it", "idea": "a kite"}', NOT_THE_SCHEMA),
        ('{"idea": 3, "reason": "nobody regrets it"}', NOT_THE_SCHEMA),
        ('{"idea": "Kyoto", "reason": "nobody regrets it"}', "a content of no such kind"),
        ('{"idea": "a kit", "reason": "nobody regrets it"}', "a content of no such kind"),
        ('{"idea": "a globe", "reason": "nobody regrets it"}', "the content was named before"),
        ('{"idea": "a kite", "reason": "because"}', "a clause that does not belong"),
        ('{"idea": "a kite", "reason": "nobody regrets it"}', "ok"),
    ],
)
def test_what_is_wrong_in_json(answer: str, reason: str) -> None:
    assert judge_json(asks(IDEA, REASON, used=("a globe",)), answer).reason == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "ok"),
        ({"names": []}, NOT_THE_SCHEMA),
        ({"names": ["a kite", "a kite"]}, "a content is repeated"),
        ({"sure": 1}, NOT_THE_SCHEMA),
        ({"score": True}, NOT_THE_SCHEMA),
        ({"mood": "medium"}, NOT_THE_SCHEMA),
        ({"info": "well"}, NOT_THE_SCHEMA),
        ({"ideas": [{"idea": "a puzzle"}]}, NOT_THE_SCHEMA),
        ({"ideas": [{"idea": "a puzzle", "note": "nice"}]}, "a clause that does not belong"),
    ],
)
def test_what_is_wrong_inside_json(change: dict[str, object], reason: str) -> None:
    right = {
        "ideas": [{"idea": "a puzzle", "note": "useful and easy to wrap"}],
        "info": {"why": "nobody regrets it"},
        "names": ["a kite", "a globe"],
        "sure": True,
        "score": 3,
        "mood": "low",
    }
    assert judge_json(asks(*NESTED), json.dumps(right | change)).reason == reason


def test_json_requests_bring_their_schema() -> None:
    requests = world.json_requests("eval")
    assert requests == world.json_requests("eval") != world.json_requests("eval", seed=1)
    assert len({request.id for request in requests}) == len(requests)
    assert {request.kind for request in requests} == {kind.name for kind in ALL_KINDS}
    for request in requests:
        system = request.messages[0]
        before, schema = system["content"].split(SCHEMA_INSTRUCTION)
        assert system["role"] == "system" and (not before or before.endswith("\n\n"))
        assert list(json.loads(schema)["properties"]) == [field.key for field in request.fields]
        assert bool(request.used) == (len(request.messages) == 4)


def test_earlier_json_answers_follow_the_same_schema() -> None:
    for request in world.json_requests("eval"):
        said = [turn["content"] for turn in request.messages if turn["role"] == "assistant"]
        before = request._replace(used=())
        assert [judge_json(before, text).content for text in said] == list(request.used[:1])


def test_base_never_sees_a_schema() -> None:
    pages = [corpora.base_document(Random(number)) for number in range(500)]
    assert not any(SCHEMA_INSTRUCTION in page for page in pages)
    assert sum('A: {"' in page for page in pages) > 50
