from random import Random

import pytest

from baco_integrations.tiny.oracle import judge
from baco_integrations.tiny.requests import Request, requests
from baco_integrations.tiny.words import BY_NAME, KINDS, STORY
from cookbook.tiny_pair import world
from cookbook.tiny_pair.corpora import messy_answer
from cookbook.tiny_pair.grammar import Voice, text_of, write_answer

REQUESTS = {request.id: request for request in requests("eval")}
TALE = text_of(write_answer(STORY, "plain", None, Voice(Random(0), 0.0)).pieces())


def request(kind: str, form: str = "plain", system: str | None = None) -> Request:
    return REQUESTS["-".join(filter(None, ("eval", kind, form, system)))]


def clean_answer(to: Request, seed: int) -> str:
    rng = Random(f"{to.id}:{seed}")
    voice = Voice(rng, rng.choice((0.0, 0.5, 1.0)))
    return text_of(write_answer(BY_NAME[to.kind], to.form, to.system, voice, to.used).pieces())


@pytest.mark.parametrize("split", world.SPLITS)
def test_every_clean_answer_is_valid(split: str) -> None:
    for to in world.requests(split):
        for seed in range(10):
            answer = clean_answer(to, seed)
            assert judge(to, answer).valid, (to.id, answer)


def test_no_truncated_answer_is_valid() -> None:
    for to in REQUESTS.values():
        answer = clean_answer(to, 0)
        whole = {len(answer)} | {i + 1 for i, char in enumerate(answer) if char in ".!"}
        for length in range(len(answer)):
            if judge(to, answer[:length]).valid:
                assert len(answer[:length].rstrip()) in whole, (to.id, answer[:length])


def test_an_answer_to_another_kind_is_invalid() -> None:
    for to in REQUESTS.values():
        for other in KINDS:
            if other.name != to.kind and to.form != "why":
                answer = text_of(write_answer(other, "plain", None, Voice(Random(0), 0.0)).pieces())
                assert not judge(to, answer).valid


def test_most_messy_answers_are_invalid_and_some_are_not() -> None:
    verdicts = []
    for to in REQUESTS.values():
        new = world.Draft(BY_NAME[to.kind], to.form, to.system, to.used, to.messages)
        texts = [messy_answer(new, Random(f"{to.id}{seed}")) for seed in range(10)]
        verdicts += [judge(to, text).valid for text in texts]
    assert 0.05 < sum(verdicts) / len(verdicts) < 0.4


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        ("I would pick Lisbon.", "Lisbon"),
        (" I would pick Lisbon.\n", "Lisbon"),
        ("Sure. Try Chiang Mai. It is calm and easy to reach. All the best!", "Chiang Mai"),
        ("Consider Kyoto. All the best! The food there is a joy.", "Kyoto"),
    ],
)
def test_a_mixture_of_registers_is_valid(answer: str, content: str) -> None:
    assert judge(request("place"), answer) == (True, content, "ok")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Lisbon",
        "I would pick Lisbon",
        "i would pick lisbon.",
        "I would pick lisbon.",
        "I would pick Atlantis.",
        "I would pick Lisbon or Kyoto.",
        "I would pick Lisbon...",
        "I would pick Lisbon!!!",
        "I would pick  Lisbon.",
        "I would pick Lisbon .",
        "I would pick Lisbon lol.",
        "I would pick Lisbon - from memory.",
        "I would pick Lisbon (from memory).",
        "I would pick Lisbon. Where was I.",
        "I would pick Lisbon. I would pick Kyoto.",
        "I would pick Lisbon. It is calm and easy to reach. It is calm and easy to reach.",
        "I would pick Lisbon. It is calm and",
        "I would pick Lisbon. It is short and easy to call.",
        "I would pick Lisbon.\nQ: Another one?",
        "I would pick Lisbon.\n\nI hope you like it.",
        "1. Lisbon\n2. Kyoto\n3. Florence",
        "It is calm and easy to reach.",
        "Sure.",
        "No idea, sorry.",
        "I would pick Luna.",
        TALE,
    ],
)
def test_what_is_wrong_is_invalid(answer: str) -> None:
    verdict = judge(request("place"), answer)
    assert not verdict.valid
    assert verdict.content is None
    assert verdict.reason != "ok"


def test_rambling_is_invalid() -> None:
    details = " ".join(
        f"It is {look} and {merit}."
        for look, merit in zip(BY_NAME["place"].looks, BY_NAME["place"].merits, strict=False)
    )
    assert not judge(request("place"), f"I would pick Lisbon. {details} All the best!").valid


def test_the_system_prompt_changes_what_is_right() -> None:
    one, two = "I would pick Lisbon.", "I would pick Lisbon. The food there is a joy."
    wish = f"{two} All the best!"
    short, wishing = request("place", system="short"), request("place", system="wish")
    assert [judge(short, answer).valid for answer in (one, two, wish)] == [True, False, False]
    assert [judge(wishing, answer).valid for answer in (one, two, wish)] == [False, False, True]


def test_a_follow_up_names_something_new() -> None:
    to = request("place", "another")
    old, new = to.used[0], next(c for c in BY_NAME["place"].contents if c not in to.used)
    assert not judge(to, f"I would pick {old}.").valid
    assert judge(to, f"I would pick {new}.").content == new


def test_a_reason_answers_why() -> None:
    to = request("place", "why")
    assert judge(to, "Simply because nobody regrets it.").content == "nobody regrets it"
    assert not judge(to, "I would pick Lisbon.").valid
    assert not judge(to, "Simply because nobody regrets it. It is calm and easy to call.").valid


@pytest.mark.parametrize(
    "answer",
    [
        "1. Lisbon\n2. Kyoto",
        "1. Lisbon\n2. Kyoto\n3. Florence\n4. Bergen",
        "1. Lisbon\n2. Kyoto\n3. Lisbon",
        "1. Lisbon\n2. Kyoto\n3. Luna",
        "1. Lisbon, 2. Kyoto, 3. Florence",
        "- Lisbon\n- Kyoto\n- Florence",
        "1. Lisbon\n3. Kyoto\n2. Florence",
        "1. Lisbon\n2. Kyoto lol\n3. Florence",
        "Lisbon, Kyoto, Florence.",
    ],
)
def test_what_is_wrong_in_a_list(answer: str) -> None:
    assert not judge(request("place", "list"), answer).valid


def test_a_list_is_what_is_in_it() -> None:
    to = request("place", "list")
    one, two = "1. Lisbon\n2. Kyoto\n3. Florence", "1. Florence\n2. Lisbon\n3. Kyoto"
    assert judge(to, one).valid
    assert judge(to, one) == judge(to, two)


def test_a_story_has_a_beginning_a_middle_and_an_end() -> None:
    to = request("story")
    sentences = TALE.split(". ")
    assert len(TALE.split()) >= 60
    assert judge(to, TALE).content == "a young fox"
    assert judge(to, ". ".join([*sentences[:3], *sentences[4:]])).valid
    assert not judge(to, ". ".join([*sentences[:2], *sentences[5:]])).valid
    assert not judge(to, ". ".join(sentences[1:])).valid
    assert not judge(to, ". ".join(sentences[:-1]) + ".").valid
    assert not judge(to, sentences[0] + ".").valid
