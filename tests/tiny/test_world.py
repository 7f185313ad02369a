import json
from random import Random

import pytest

from baco_integrations.tiny import requests as shipped
from baco_integrations.tiny.words import ALL_KINDS, BY_NAME, Kind
from cookbook.tiny_pair import corpora, world
from cookbook.tiny_pair.grammar import Piece, Voice, mark_branches, popularity, text_of
from cookbook.tiny_pair.train import CHAT_TEMPLATE
from cookbook.tiny_pair.write_requests import lines


def wordings(split: str, seed: int = 0) -> set[str]:
    return {
        message["content"]
        for request in world.requests(split, seed)
        for message in request.messages
        if message["role"] == "user"
    }


def test_the_world_is_broad() -> None:
    sizes = [len(kind.contents) for kind in ALL_KINDS]
    assert len(sizes) >= 8
    assert sum(sizes) >= 200
    assert min(sizes) <= 4
    assert max(sizes) >= 50


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.name)
def test_contents_differ(kind: Kind) -> None:
    assert len(set(kind.contents)) == len(kind.contents)
    assert not any(a != b and b.startswith(f"{a} ") for a in kind.contents for b in kind.contents)


def test_requests_are_the_same_every_time() -> None:
    assert world.requests("eval") == world.requests("eval")
    assert world.requests("eval") != world.requests("eval", seed=1)


def test_the_package_has_the_requests_that_are_generated() -> None:
    for split in shipped.SPLITS:
        assert shipped.requests(split) == world.requests(split)
    assert shipped.FILE.read_text("utf-8").splitlines() == lines()


def test_evaluation_covers_every_kind_and_form() -> None:
    requests = world.requests("eval")
    assert len(requests) >= 80
    assert len({request.id for request in requests}) == len(requests)
    assert {request.kind for request in requests} == {kind.name for kind in ALL_KINDS}
    assert {request.form for request in requests} == {"plain", "another", "why", "list"}
    assert {request.system for request in requests} == {None, "neutral", "short", "wish"}


@pytest.mark.parametrize("seed", range(3))
def test_splits_share_no_wording(seed: int) -> None:
    train, validation, evaluation = (wordings(split, seed) for split in world.SPLITS)
    assert not train & validation
    assert not train & evaluation
    assert not validation & evaluation


def test_no_evaluation_wording_in_either_corpus() -> None:
    held_out = wordings("eval") | wordings("validation")
    for number in range(300):
        page = corpora.base_document(Random(number))
        asked = {line[3:] for line in page.split("\n") if line.startswith("Q: ")}
        chat = corpora.chat_pieces(world.any_draft(Random(number)).messages, [])[0][0].text
        asked |= {turn.split("<|end|>")[0][1:] for turn in chat.split("<|user|>")[1:]}
        assert asked.isdisjoint(held_out)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="train, validation, eval"):
        world.requests("test")
    with pytest.raises(ValueError, match="one of eval, validation, not 'train'"):
        shipped.requests("train")


def test_corpora_are_the_same_every_time() -> None:
    assert corpora.base_document(Random("a")) == corpora.base_document(Random("a"))
    assert corpora.aligned_example(Random("a")) == corpora.aligned_example(Random("a"))


def test_follow_ups_know_what_was_said() -> None:
    for request in world.requests("eval"):
        said = [turn["content"] for turn in request.messages if turn["role"] == "assistant"]
        assert len(said) == len(request.used)
        assert bool(said) == (request.form in ("another", "why"))
        assert all(content in "".join(said) for content in request.used)


def test_only_the_words_that_part_options_are_free() -> None:
    pieces = mark_branches("a wool scarf", ("a wool scarf", "a wool hat", "a kite"))
    assert [piece.text for piece in pieces if piece.free] == [" wool", " scarf"]
    assert text_of(pieces) == "a wool scarf"


def test_favorites_are_never_free_and_never_used_up() -> None:
    voice = Voice(Random(0), flat=0.0)
    picks = [voice.pick(("a", "b", "c", "d"), used=("a",)) for _ in range(200)]
    assert not any(piece.free for pick in picks for piece in pick)
    names = [text_of(pick) for pick in picks]
    assert names.count("b") > 170
    assert set(names) <= {"b", "c", "d"}


def test_a_flat_voice_reaches_every_option() -> None:
    voice = Voice(Random(0), flat=1.0)
    places = BY_NAME["place"].contents
    assert {text_of(voice.pick(places)) for _ in range(2000)} == set(places)
    weights = popularity(len(places))
    assert weights[0] > 4 * weights[-1]


def test_learned_chats_look_like_the_chat_template() -> None:
    jinja2 = pytest.importorskip("jinja2")
    request = next(r for r in world.requests("train") if r.form == "another" and r.system)
    prompt = jinja2.Template(CHAT_TEMPLATE).render(
        messages=request.messages, add_generation_prompt=True
    )
    pieces = corpora.chat_pieces(request.messages, [Piece("Lisbon.")])
    text = "".join(piece.text for piece, _ in pieces)
    assert text == f"{prompt} Lisbon.<|end|>"
    assert [piece.text for piece, learned in pieces if learned] == [" ", "Lisbon.", "<|end|>"]


def test_examples_of_the_aligned_corpus_are_of_every_sort() -> None:
    texts = [
        "".join(piece.text for piece, _ in corpora.aligned_example(Random(number)))
        for number in range(400)
    ]
    assert 0.1 < sum(world.SCHEMA_INSTRUCTION in text for text in texts) / 400 < 0.3
    assert 0.1 < sum("<|system|> Tools:" in text for text in texts) / 400 < 0.3
    assert 0.03 < sum(text.endswith("</tool_call><|end|>") for text in texts) / 400 < 0.2
    assert sum("<|assistant|>{" in text for text in texts) > 3


def test_chats_to_copy_from_hold_what_is_to_be_copied() -> None:
    for number in range(100):
        example = corpora.copying_example(Random(number))
        text = "".join(piece.text for piece, _ in example)
        context, answer = text.rsplit("<|assistant|>", 1)
        if answer.startswith("<tool_call>"):
            call = json.loads(answer.split("\n")[1])
            asked = next(iter(call["arguments"].values()))
            assert f"<|user|> {asked}<|end|>" in context
        else:
            assert "<|tool|> " in context


def test_requests_are_recognised_by_what_they_ask_for() -> None:
    def found(*texts: str) -> tuple[str, str, str | None] | None:
        roles = ("system", "user")[-len(texts) :]
        turns = zip(roles, texts, strict=True)
        request = shipped.recognised([{"role": role, "content": text} for role, text in turns])
        return request and (request.kind, request.form, request.system)

    assert found("Name a place to visit.") == ("place", "plain", None)
    assert found("List three gifts for my sister") == ("gift", "list", None)
    assert found("I need a hobby for the winter.") == ("hobby", "plain", None)
    assert found("Answer in one short sentence.", "A pet name?") == ("pet", "plain", "short")
    assert found("Be a pirate.", "A pet name?") == ("pet", "plain", None)
    for unknown in ("What is 2 + 2?", "Name a place for a holiday.", "I like hobbyhorses."):
        assert found(unknown) is None
    for request in world.requests("eval"):
        if len(request.messages) - bool(request.system) == 1:
            told = found(*(message["content"] for message in request.messages))
            assert told == (request.kind, request.form, request.system)
