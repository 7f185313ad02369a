import json
from random import Random
from typing import Any

import pytest

from baco_integrations.text.prompts import render_base
from baco_integrations.tiny.words import BY_NAME, KINDS, Kind
from cookbook.tiny_pair import corpora, tools, words, world
from cookbook.tiny_pair.grammar import Voice, text_of
from cookbook.tiny_pair.judges import NOT_JSON, judge_tool_use
from cookbook.tiny_pair.tools import CALL, Result, Tool
from cookbook.tiny_pair.world import ToolRequest

SUGGEST = Tool("suggest", "Gives ideas.", ("question",), True)
COUNTED = Tool("search", "Search the catalog.", ("query", "limit"), True)
WEATHER = Tool("weather", "Tells the weather.", ("city",), False)
ASKED = "Suggest a hobby."
FOUND = Result("chess\nyoga\nmagic", ("chess", "yoga", "magic"))


def asks(*offered: Tool, result: Result | None = None) -> ToolRequest:
    return ToolRequest("id", "hobby", offered, result, [{"role": "user", "content": ASKED}])


def called(name: str = "suggest", **arguments: Any) -> str:
    return tools.call_text({"function": {"name": name, "arguments": arguments}})


def test_a_tool_is_offered_as_applications_do() -> None:
    function = COUNTED.schema()["function"]
    assert function["name"] == "search" and function["description"] == "Search the catalog."
    assert list(function["parameters"]["properties"]) == ["query", "limit"]


def test_a_call_passes_the_request_on() -> None:
    call = COUNTED.call(ASKED)
    assert call["function"]["arguments"] == {"query": ASKED, "limit": 3}
    text = tools.call_text(SUGGEST.call(ASKED))
    written = '{"name": "suggest", "arguments": {"question": "Suggest a hobby."}}'
    assert text == f"<tool_call>\n{written}\n</tool_call>"


@pytest.mark.parametrize("fit", [True, False])
def test_random_tools_fit_or_do_not(fit: bool) -> None:
    for number in range(200):
        offered = tools.random_tools(fit, "train", Random(number))
        assert 1 <= len(offered) <= 3
        assert len({tool.name for tool in offered}) == len(offered)
        assert any(tool.fits for tool in offered) == fit
        if fit:
            assert tools.first_fitting(offered) == [tool for tool in offered if tool.fits][0]


def test_splits_share_no_names_of_tools() -> None:
    for slot in (words.TOOL_NAMES, words.TOOL_NOTES, words.UNFIT_NAMES, words.UNFIT_NOTES):
        train, held_out = set(slot["train"]), set(slot["validation"] + slot["eval"])
        assert not train & held_out


def test_wild_requests_are_of_no_kind_and_never_the_same() -> None:
    requests = {tools.wild_request(Random(number)) for number in range(200)}
    assert len(requests) == 200
    assert all(json.loads(json.dumps(request)) == request for request in requests)
    assert not any('"' in request for request in requests)
    assert len(tools.wild_words(Random(0), 7)) == 7


def test_reworded_requests_keep_some_words() -> None:
    changed = [tools.reworded(ASKED, Random(number)) for number in range(50)]
    assert len(set(changed)) > 20
    assert all(changed)


def test_the_words_of_wild_requests_are_those_of_training() -> None:
    known = set(tools.known_words())
    assert {"scarf", "Kyoto", "Suggest"} <= known
    assert not any("{" in word or '"' in word for word in known)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ("lines", "chess\nyoga"),
        ("json", '["chess", "yoga"]'),
        ("numbers", "1. chess\n2. yoga"),
        ("bullets", "- chess\n- yoga"),
        ("commas", "chess, yoga"),
    ],
)
def test_results_are_written_in_many_ways(shape: str, text: str) -> None:
    assert tools.result_text(("chess", "yoga"), shape, Random(0)) == text


def test_a_result_may_be_in_sentences() -> None:
    lines = tools.result_text(("chess", "yoga"), "said", Random(0)).split("\n")
    assert [line.split(" ")[-1] for line in lines] == ["chess.", "yoga."]


def test_random_results_name_their_contents() -> None:
    results = [tools.random_result(BY_NAME["title"], Random(number)) for number in range(200)]
    for result in results:
        assert 1 <= len(result.contents) == len(set(result.contents)) <= 5
        assert all(content.strip('"') in result.text for content in result.contents)
    assert 0.5 < sum(r.contents[0] in BY_NAME["title"].contents for r in results) / 200 < 0.8


@pytest.mark.parametrize("flat", [0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_answers_from_results_are_right(kind: Kind, flat: float) -> None:
    for number in range(30):
        rng = Random(number)
        result = tools.random_result(kind, rng)
        text = text_of(tools.answer_from(result, kind, Voice(rng, flat), short=False))
        request = ToolRequest("id", kind.name, (SUGGEST,), result, [])
        assert judge_tool_use(request, text).valid, text


def test_one_sentence_where_one_was_asked_for() -> None:
    for number in range(30):
        said = tools.answer_from(FOUND, BY_NAME["hobby"], Voice(Random(number), 1.0), short=True)
        assert text_of(said).count(".") == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (called(question=ASKED), "ok"),
        (called("search", query=ASKED, limit=5), "ok"),
        (f" {called(question=ASKED)}\n", "ok"),
        (called(question="Suggest a hobby"), "not the request as it was"),
        (called(query=ASKED), "other parameters"),
        (called("search", query=ASKED), "other parameters"),
        (called("weather", city=ASKED), "a tool that does not fit"),
        (called("find", question=ASKED), "a tool that does not fit"),
        ("I would pick chess.", "no call"),
        ("<tool_call>\n{}}\n</tool_call>", NOT_JSON),
        ('<tool_call>\n{"name": "suggest"}\n</tool_call>', "no call"),
        (called(question=ASKED) * 2, "no call"),
    ],
)
def test_what_is_wrong_in_a_call(answer: str, reason: str) -> None:
    assert judge_tool_use(asks(WEATHER, SUGGEST, COUNTED), answer).reason == reason


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ("I would pick yoga.", True),
        ("I would pick yoga. There is also chess or magic.", True),
        ("I would pick pottery.", False),
        ("I would pick yoga. There is also yoga.", False),
        ("I would pick yoga. There is also pottery.", False),
        ("yoga", False),
        (called(question=ASKED), False),
    ],
)
def test_an_answer_from_a_result_names_what_is_in_it(answer: str, valid: bool) -> None:
    assert judge_tool_use(asks(SUGGEST, result=FOUND), answer).valid == valid


def test_tools_of_no_use_are_left_alone() -> None:
    assert judge_tool_use(asks(WEATHER), "I would pick chess.").content == "chess"
    verdict = judge_tool_use(asks(WEATHER), called("weather", city=ASKED))
    assert verdict.reason == "a call where no tool is of use"


def test_tool_requests_cover_what_is_to_be_measured() -> None:
    requests = world.tool_requests("eval")
    assert requests == world.tool_requests("eval") != world.tool_requests("eval", seed=1)
    assert len({request.id for request in requests}) == len(requests)
    for request in requests:
        purpose = request.id.split("-")[1]
        assert (request.result is not None) == (purpose in ("result", "answers"))
        assert any(tool.fits for tool in request.tools) == (purpose != "unfit")
        assert request.messages[-1]["role"] == ("tool" if request.result else "user")


def test_pages_repeat_calls_as_transcripts_do() -> None:
    pages = [corpora.tool_page(Random(number)) for number in range(100)]
    assert 20 < sum(CALL in page for page in pages) < 80
    call = {"function": {"name": "suggest", "arguments": {"question": ASKED}}}
    prompt = render_base(
        "qa",
        [
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": FOUND.text},
        ],
    )
    told = 'A: suggest({"question": "Suggest a hobby."})'
    assert prompt == f"Q: {ASKED}\n{told}\n\nTool: chess\nyoga\nmagic\nA:"
    assert any(page.count("\n\nTool: ") == page.count("\nA: ") - 1 == 1 for page in pages)


def test_quotations_say_things_again() -> None:
    for number in range(50):
        first = corpora.quotation_page(Random(number)).split("\n")[0]
        assert corpora.quotation_page(Random(number)).count(first) == 3
