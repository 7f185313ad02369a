"""JSON answers of the tiny world: schemas as applications send them, and values that fit.

Invariant: what a value says follows from its role, which its key tells, and the answer's voice
chooses it as it chooses in plain text. So two models taking turns inside strings stay valid, and
whoever forces the structure from outside forces nothing that the models would not write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from baco_integrations.tiny.oracle import LIST_LENGTH
from baco_integrations.tiny.words import SLOTS, Kind
from cookbook.tiny_pair import words
from cookbook.tiny_pair.grammar import Piece, Voice, text_of

MADE_UP_KEYS = 0.15
ROLES = {
    "reason": 5,
    "detail": 3,
    "content": 2,
    "contents": 1,
    "flag": 1,
    "count": 1,
    "enum": 1,
    "object": 1,
}
"""What stands beside the main value, and how often."""


class Field(NamedTuple):
    """One key of an object.

    Attributes:
        key: The key.
        role: What its value says: "content", "contents", "reason", "detail", "flag", "count",
            "enum", "object" or "objects".
        options: Words that an enum allows.
        fields: Keys of the object, or of each of the objects.
        note: Its description in the schema, if it has one.
        under: Name under which the schema defines the object; empty if it stands in its place.
    """

    key: str
    role: str
    options: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    note: str = ""
    under: str = ""


def made_up_word(rng: Random) -> str:
    """A word that nobody has used before."""
    return "".join(rng.choices(words.SYLLABLES, k=rng.randint(2, 3)))


def random_fields(form: str, split: str, rng: Random) -> tuple[Field, ...]:
    """Think of an object that answers a request: a main value, and up to three others.

    Args:
        form: Form of the request, as in `world.Request`.
        split: Where the keys of contents come from.
        rng: Source of all choices.
    """
    if form == "why":
        role = "reason"
    elif form == "list":
        role = rng.choices(("contents", "objects"), (4, 1))[0]
    else:
        role = rng.choices(("content", "contents", "objects"), (16, 2, 1))[0]
    beside = rng.choices(tuple(ROLES), tuple(ROLES.values()), k=rng.choice((0, 0, 1, 1, 1, 2, 3)))
    fields = first_of_each_key([random_field(each, split, rng) for each in (role, *beside)])
    if rng.random() < 0.12:
        rng.shuffle(fields)
    return tuple(fields)


def random_field(role: str, split: str, rng: Random) -> Field:
    note = rng.choice(words.FIELD_NOTES) if rng.random() < 0.12 else ""
    if role in ("object", "objects"):
        keys = words.OBJECT_KEYS if role == "object" else words.OBJECT_LIST_KEYS
        inner = [random_field("content", split, rng)]
        if rng.random() < 0.6:
            inner.append(random_field(rng.choice(("reason", "detail")), split, rng))
        under = rng.choice(words.CLASSES) if rng.random() < 0.6 else ""
        return Field(rng.choice(keys), role, fields=tuple(first_of_each_key(inner)), under=under)
    options = tuple(rng.sample(words.ENUMS, rng.randint(2, 4))) if role == "enum" else ()
    return Field(random_key(role, split, rng), role, options, note=note)


def random_key(role: str, split: str, rng: Random) -> str:
    if role in ("content", "contents"):
        if rng.random() < MADE_UP_KEYS:
            return made_up_word(rng)
        keys = words.CONTENT_KEYS if role == "content" else words.LIST_KEYS
        return rng.choice(keys[split])
    fixed = {
        "reason": words.REASON_KEYS,
        "detail": words.DETAIL_KEYS,
        "flag": words.FLAG_KEYS,
        "count": words.COUNT_KEYS,
        "enum": words.ENUM_KEYS,
    }
    return rng.choice(fixed[role])


def first_of_each_key(fields: Sequence[Field]) -> list[Field]:
    """The first field of each key."""
    return list({field.key: field for field in reversed(fields)}.values())[::-1]


def schema_of(fields: Sequence[Field], type_first: bool = True) -> dict[str, Any]:
    """Write the JSON schema of an object, without titles.

    Args:
        fields: The object's keys.
        type_first: Whether "type" comes first, as people write it, or last, as pydantic does.
    """
    definitions: dict[str, Any] = {}
    whole = object_schema(fields, type_first, definitions)
    return {"$defs": definitions, **whole} if definitions else whole


def object_schema(
    fields: Sequence[Field], type_first: bool, definitions: dict[str, Any]
) -> dict[str, Any]:
    properties = {field.key: property_schema(field, type_first, definitions) for field in fields}
    rest = {"properties": properties, "required": [field.key for field in fields]}
    return {"type": "object", **rest} if type_first else {**rest, "type": "object"}


def property_schema(field: Field, type_first: bool, definitions: dict[str, Any]) -> dict[str, Any]:
    described = {"description": field.note} if field.note else {}
    if field.role == "contents":
        return {**described, "items": {"type": "string"}, "type": "array"}
    if field.role in ("object", "objects"):
        inner = object_schema(field.fields, type_first, definitions)
        if field.under:
            definitions[field.under] = inner
            inner = {"$ref": f"#/$defs/{field.under}"}
        return inner if field.role == "object" else {"items": inner, "type": "array"}
    if field.role == "enum":
        return {**described, "enum": list(field.options), "type": "string"}
    kinds = {"flag": "boolean", "count": "integer"}
    return {**described, "type": kinds.get(field.role, "string")}


def in_string(content: str) -> str:
    """A content as the value of a JSON string: titles leave their quotation marks."""
    return content.strip('"')


class JsonAnswer(NamedTuple):
    """A JSON answer, and the contents that it names, the main one first."""

    pieces: list[Piece]
    contents: tuple[str, ...]


def write_json(
    kind: Kind,
    fields: Sequence[Field],
    voice: Voice,
    used: Sequence[str] = (),
    items: int = LIST_LENGTH,
) -> JsonAnswer:
    """Write a JSON answer as `json.dumps` would.

    Args:
        kind: Kind of the request.
        fields: Keys of the answer.
        voice: Chooses among options.
        used: Contents named before in the conversation, not to be named again.
        items: Length of lists.
    """
    writer = Writer(kind, voice, items, list(used))
    pieces = writer.object(fields)
    return JsonAnswer(pieces, tuple(writer.used[len(used) :]))


@dataclass
class Writer:
    kind: Kind
    voice: Voice
    items: int
    used: list[str]

    def object(self, fields: Sequence[Field]) -> list[Piece]:
        pieces = [Piece("{")]
        for number, field in enumerate(fields):
            pieces.append(Piece(f'{", " if number else ""}"{field.key}": '))
            pieces += self.value(field)
        return [*pieces, Piece("}")]

    def value(self, field: Field) -> list[Piece]:
        if field.role == "content":
            return self.content()
        if field.role == "contents":
            return self.array([self.content() for _ in range(self.length())])
        if field.role == "object":
            return self.object(field.fields)
        if field.role == "objects":
            return self.array([self.object(field.fields) for _ in range(self.length())])
        if field.role == "flag":
            return self.voice.pick(("true", "false"))
        if field.role == "count":
            return self.voice.pick(words.COUNTS)
        if field.role == "enum":
            return quoted(self.voice.pick(field.options))
        if field.role == "detail" and self.kind.looks:
            merit = self.voice.pick(self.kind.merits)
            return quoted([*self.voice.pick(self.kind.looks), Piece(" and "), *merit])
        return quoted(self.voice.pick(SLOTS["reasons"]))

    def content(self) -> list[Piece]:
        options = [in_string(content) for content in self.kind.contents]
        # A small kind may run out of contents; then it begins again.
        used = self.used if len(set(self.used)) < len(options) else ()
        chosen = self.voice.pick(options, used)
        self.used.append(text_of(chosen))
        return quoted(chosen)

    def array(self, values: Sequence[list[Piece]]) -> list[Piece]:
        joined = [Piece("[")]
        for number, value in enumerate(values):
            joined += [Piece(", "), *value] if number else value
        return [*joined, Piece("]")]

    def length(self) -> int:
        return min(self.items, len(self.kind.contents))


def quoted(pieces: Sequence[Piece]) -> list[Piece]:
    return [Piece('"'), *pieces, Piece('"')]
