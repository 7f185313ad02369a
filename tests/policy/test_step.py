"""Routing and words on a vocabulary of seven tokens, with the answers worked out by hand."""

from __future__ import annotations

import math

import pytest

from baco_integrations import Decoder, SamplingParams, ScriptedPair, TokenStep

END = "<end>"


def run(script: dict, aligned: dict, /, **settings: object) -> list[TokenStep]:
    """Decode greedily with the given scripts of base and aligned, unless said otherwise."""
    params = {"temperature": 0, "gamma": 0.6} | settings
    vocabulary = [" red", " fox", "es", ".", " the", "\n"]
    with Decoder(ScriptedPair(script, aligned, vocabulary=vocabulary)) as decoder:
        (completion,) = decoder.generate("x", SamplingParams(**params))
    return list(completion.steps)


def sources(steps: list[TokenStep]) -> str:
    return "".join(step.source[0] for step in steps)


@pytest.mark.parametrize(
    ("router", "settings", "expected"),
    [
        ("p", {"gamma": 0.61}, "b"),  # p_max = .6
        ("p", {"gamma": 0.6}, "a"),
        ("p", {"threshold": 0.61}, "b"),
        ("h", {"gamma": 0.52}, "b"),  # exp(-H) = .6^.6 * .4^.4 = .5102
        ("h", {"gamma": 0.51}, "a"),
        ("h", {"threshold": 0.67}, "b"),  # H = .6730
        ("h", {"threshold": 0.68}, "a"),
        ("nudge", {"gamma": 0.41}, "b"),  # tau = 1 - gamma
        ("nudge", {"gamma": 0.39}, "a"),
        ("punc", {"gamma": None}, "b"),
        ("fc", {"gamma": None}, "b"),
        ("base", {"gamma": None}, "b"),
        ("aligned", {"gamma": None}, "a"),
    ],
)
def test_logit_rules_at_their_thresholds(router: str, settings: dict, expected: str) -> None:
    first = {"": {" red": 0.6, " fox": 0.4}}
    steps = run(first, {"": {" fox": 1.0}}, router=router, **({"gamma": None} | settings))
    assert sources(steps[:1]) == expected
    assert steps[0].p_max == pytest.approx(0.6)
    assert steps[0].entropy == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4))


@pytest.mark.parametrize(
    ("top", "router", "expected"),
    [
        (".", "p-punc", "a"),
        (".", "p-fc", "b"),
        (" the", "p-punc", "b"),
        (" the", "p-fc", "a"),
        (" the", "fc", "a"),
        (".", "h-punc-fc", "a"),
        (" the", "h-punc-fc", "a"),
        (" red", "p-punc-fc", "b"),
        ("\n", "p", "a"),  # a banned top-1 goes to aligned, whatever the router
        (END, "rand", "a"),
    ],
)
def test_content_rules_and_bans(top: str, router: str, expected: str) -> None:
    gamma = None if router == "fc" else 0.9
    steps = run({"": {top: 0.6, " fox": 0.4}}, {"": {" fox": 1.0}}, router=router, gamma=gamma)
    assert sources(steps[:1]) == expected


def test_line_breaks_can_be_routed() -> None:
    base = {"": {"\n": 0.6, " fox": 0.4}}
    assert sources(run(base, {}, router="p", gamma=0.9, line_breaks="routed")[:1]) == "b"


def test_signals_are_read_before_bans() -> None:
    steps = run({"": {"\n": 0.9, " fox": 0.1}}, {"": {" red": 1.0}}, router="p", gamma=0.5)
    assert steps[0].p_max == pytest.approx(0.9)


def test_content_can_be_read_from_aligned() -> None:
    base, aligned = {"": {" fox": 1.0}}, {"": {".": 1.0}}
    assert sources(run(base, aligned, router="punc", gamma=None)[:1]) == "b"
    assert sources(run(base, aligned, router="punc", gamma=None, signal_model="aligned")[:1]) == "a"


def test_first_token_by_aligned() -> None:
    base, aligned = {"": {" fox": 1.0}}, {"": {" red": 1.0}}
    assert sources(run(base, aligned, router="punc", gamma=None, first="aligned")[:1]) == "a"


def test_a_word_is_finished_by_its_owner() -> None:
    # Base is unsure of " fox" and gives it; then it is certain, so aligned is asked, but "es"
    # continues base's word.
    base = {"": {" fox": 0.55, " red": 0.45}, " fox": {"es": 1.0}}
    aligned = {"": {" red": 1.0}, " fox": {".": 1.0}, " foxes": {".": 1.0}}
    steps = run(base, aligned, router="p")
    assert sources(steps) == "bbaa"
    assert [step.switched for step in steps] == [False, False, True, False]
    assert sources(run(base, aligned, router="p", boundary=False)) == "baa"


def test_a_new_side_starts_with_a_word() -> None:
    # Aligned would go on with "es", but only a token that starts a word may follow a switch.
    base = {"": {" fox": 0.55, " red": 0.45}, " fox": {" red": 1.0}}
    aligned = {"": {" red": 1.0}, " fox": {"es": 0.9, " the": 0.1}}
    steps = run(base, aligned, router="p")
    assert (steps[1].source, steps[1].text) == ("aligned", " the")
    assert steps[1].p_aligned == pytest.approx(0.1)


@pytest.mark.parametrize(("mass", "expected"), [(1.1e-3, "aligned"), (0.9e-3, "base")])
def test_the_owner_keeps_the_token_if_the_other_has_no_word_to_start(
    mass: float, expected: str
) -> None:
    base = {"": {" fox": 0.55, " red": 0.45}, " fox": {" red": 1.0}}
    aligned = {"": {" red": 1.0}, " fox": {"es": 1 - mass, " the": mass}}
    assert run(base, aligned, router="p")[1].source == expected


def test_owner_looks_at_what_it_may_emit() -> None:
    # Base's raw top-1 is the end of the turn; of what it may emit, "es" continues the word.
    base = {"": {" fox": 0.55, " red": 0.45}, " fox": {END: 0.9, "es": 0.1}}
    assert sources(run(base, {}, router="p")) == "bba"


@pytest.mark.parametrize(
    "first", ["es", " fox"]
)  # the token that a side without any would seem to want
@pytest.mark.parametrize("left", [{END: 1.0}, {"\n": 0.7, END: 0.3}])
def test_a_base_that_may_emit_nothing_owns_no_word(first: str, left: dict) -> None:
    base = {"": {" fox": 0.55, " red": 0.45}, " fox": left}
    aligned = {" fox": {"es": 0.9, " red": 0.1}, " foxes": {".": 1.0}}
    pair = ScriptedPair(base, aligned, vocabulary=[first, "es", ".", " fox", " red"])
    with Decoder(pair) as decoder:
        (completion,) = decoder.generate("x", router="p", gamma=0.6, temperature=0)
    assert (completion.text, sources(list(completion.steps))) == ("foxes.", "baaa")


def test_a_base_whose_favourite_is_banned_goes_on_with_its_word_as_it_may() -> None:
    base = {"": {" fox": 0.55, " red": 0.45}, " fox": {"\n": 0.7, " red": 0.2, "es": 0.1}}
    steps = run(base, {" fox": {".": 1.0}}, router="p")
    assert [(step.text, step.source) for step in steps[:2]] == [("fox", "base"), (".", "aligned")]


def test_sides_have_sampling_settings_of_their_own() -> None:
    base = {"": {" red": 0.5, " fox": 0.5}}
    params = {"router": "base", "gamma": None, "temperature": 1.0, "base": {"top_k": 1}}
    texts = {run(base, {}, seed=seed, **params)[0].text for seed in range(20)}
    assert texts <= {"red", "fox"} and len(texts) == 2  # equals of the k-th stay
    params["base"] = {"temperature": 0}
    assert {run(base, {}, seed=seed, **params)[0].text for seed in range(20)} == {"red"}


def test_rand_follows_its_own_uniform() -> None:
    base, aligned = {"": {" red": 1.0}}, {"": {" fox": 1.0}}
    firsts = [
        run(base, aligned, router="rand", gamma=0.3, seed=seed)[0].source for seed in range(300)
    ]
    assert 0.2 < firsts.count("base") / 300 < 0.4


def test_what_is_drawn_from_leaves_out_what_base_may_not_emit_and_what_begins_no_word() -> None:
    base = {"": {"\n": 0.2, " red": 0.5, " fox": 0.3}}
    (step, *_) = run(base, {}, router="p", gamma=0.9, temperature=1, alternatives=3, seed=1)
    chance = {" red": 0.625, " fox": 0.375}
    assert step.alternatives is not None and step.source == "base"
    found = {each.text: each.probability for each in step.alternatives["sampled"]}
    assert found == pytest.approx(chance)
    assert step.p_sampled == pytest.approx(chance[" " + step.text])

    aligned = {"": {" red": 1.0}, " red": {" fox": 0.5, "es": 0.5}}
    base = {"": {" red": 1.0}, " red": {" fox": 0.45, ".": 0.3, "es": 0.25}}
    _, step, *_ = run(base, aligned, router="p", temperature=1, alternatives=3, seed=1)
    assert step.switched
    assert step.alternatives is not None
    found = {each.text: each.probability for each in step.alternatives["sampled"]}
    assert found == pytest.approx({" fox": 0.6, ".": 0.4})


def test_alternatives_of_both_sides() -> None:
    (step, *_) = run({"": {" red": 0.7, " fox": 0.3}}, {"": {" fox": 1.0}}, alternatives=2)
    assert step.alternatives is not None
    assert [(a.text, round(a.probability, 6)) for a in step.alternatives["base"]] == [
        (" red", 0.7),
        (" fox", 0.3),
    ]
    assert [each[1:] for each in step.alternatives["aligned"]] == [(" fox", 1.0)]
    assert [each[1:] for each in step.alternatives["sampled"]] == [(" fox", 1.0)]
    assert step.p_sampled == 1


JSON = [*'{}":,[]', " ", "a", "b", " c", "es", 's"']
A_STRING = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
HEAD = '{"a": "'


def values(after: dict, aligned: dict, /, **settings: object) -> list[TokenStep]:
    """Decode the value of a string: scripts by what follows its head, which aligned gives."""
    head = {"": {"{": 1}, "{": {'"': 1}, '{"': {"a": 1}, '{"a': {'"': 1}, '{"a"': {":": 1}}
    head |= {'{"a":': {" ": 1}, '{"a": ': {'"': 1}}
    close = {HEAD + " c": {'"': 1}, HEAD + ' c"': {"}": 1}}
    close |= {HEAD + " ces": {'"': 1}, HEAD + ' ces"': {"}": 1}}
    scripts = [{HEAD + text: given for text, given in each.items()} for each in (after, aligned)]
    unsure = {text: {"a": 0.5, "b": 0.5} for text in head}  # base would speak, and something else
    pair = ScriptedPair(unsure | scripts[0], head | close | scripts[1], vocabulary=JSON)
    params = {"temperature": 0, "gamma": 0.6, "router": "p", "json_schema": A_STRING} | settings
    with Decoder(pair) as decoder:
        (completion,) = decoder.generate("x", SamplingParams(**params))
    steps = list(completion.steps)
    assert "".join(step.text for step in steps[:7]) == HEAD
    assert sources(steps[:7]) == "a" * 7
    return steps[7:]


UNSURE = {" c": 0.55, "b": 0.45}


def test_a_value_is_routed_and_its_end_is_structure() -> None:
    steps = values({"": UNSURE, " c": {'"': 0.55, "b": 0.45}}, {"": {" c": 1}})
    assert [(s.text, s.source) for s in steps[:3]] == [
        (" c", "base"),
        ('"', "aligned"),  # base's favourite closes: that ends its word, and is not its to give
        ("}", "aligned"),
    ]


def test_a_quote_within_a_token_ends_no_word() -> None:
    # Base's favourite goes on with the word and closes the string; it may give only the first.
    goes_on = {"": {" c": 1}, " ces": {'"': 1}, ' ces"': {"}": 1}}
    steps = values({"": UNSURE, " c": {'s"': 0.55, "es": 0.45}}, goes_on)
    assert (steps[1].text, steps[1].source) == ("es", "base")


def test_a_string_that_is_full_is_closed_by_aligned() -> None:
    # Base would go on with its word, but the grammar allows nothing but the quote.
    schema = {**A_STRING, "properties": {"a": {"type": "string", "maxLength": 2}}}
    steps = values({"": UNSURE, " c": {"es": 0.55, "b": 0.45}}, {"": {" c": 1}}, json_schema=schema)
    assert [(s.text, s.source) for s in steps[:2]] == [(" c", "base"), ('"', "aligned")]


def test_router_base_writes_structure_too() -> None:
    text = '{"a": "a"}'
    base = {text[:end]: {char: 0.1, "b": 0.9} for end, char in enumerate(text)}
    base[HEAD] = {"a": 1.0}
    base[HEAD + "a"] = {'"': 0.9, "b": 0.1}
    with Decoder(ScriptedPair(base, {}, vocabulary=JSON)) as decoder:
        (completion,) = decoder.generate("x", router="base", temperature=0, json_schema=A_STRING)
    assert completion.text == '{"a": "a"}'
    assert completion.base_share == 1


def pattern(base: dict, aligned: dict, regex: str) -> list[TokenStep]:
    return run(base, aligned, router="p", regex=regex)


def test_a_refused_favourite_hands_the_token_over() -> None:
    base, aligned = {"": {" red": 0.55, " fox": 0.45}}, {"": {".": 0.9, " fox": 0.1}}
    assert sources(pattern(base, aligned, "red|fox")[:1]) == "b"
    (step, *_) = pattern(base, aligned, "fox")
    assert (step.text, step.source) == ("fox", "aligned")
    assert (step.p_max, step.p_aligned) == pytest.approx((0.55, 0.1))  # raw, before the grammar


def test_the_owner_keeps_the_token_if_the_other_has_nothing_that_is_allowed() -> None:
    base = {"": {" fox": 0.55, " red": 0.45}, " fox": {" red": 1.0}}
    aligned = {"": {" fox": 1.0}, " fox": {"es": 1.0}, " fox red": {END: 1.0}}
    steps = pattern(base, aligned, "fox red")
    assert sources(steps[:2]) == "bb"


def test_base_does_not_begin_a_call() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    base = {"": {" fox": 0.55, " red": 0.45}, " fox": {"<": 0.5, " red": 0.5}}
    aligned = {" fox": {" red": 1.0}, " fox<": {".": 1.0}}
    settings = {"router": "punc", "gamma": None, "boundary": False}
    vocabulary = [" red", " fox", ".", "<"]
    for tools, expected in ((), "<"), ((tool,), " red"):
        pair = ScriptedPair(base, aligned, vocabulary=["<", *vocabulary])
        params = SamplingParams(
            **settings | {"router": "p", "gamma": 0.6}, temperature=0, tools=tools
        )
        with Decoder(pair) as decoder:
            (completion,) = decoder.generate("x", params)
        assert completion.steps[1].text == expected


@pytest.mark.parametrize(("top", "expected"), [("<", "a"), (" red", "b")])
def test_aligned_opens_calls_whatever_the_router_says(top: str, expected: str) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    base = {"": {" fox": 0.5, " red": 0.5}}
    pair = ScriptedPair(base, {"": {top: 0.9, " fox": 0.1}}, vocabulary=["<", " fox", " red"])
    params = SamplingParams(router="p", gamma=0.6, temperature=0, tools=(tool,), max_tokens=1)
    with Decoder(pair) as decoder:
        (completion,) = decoder.generate("x", params)
    assert sources(list(completion.steps)) == expected


def test_a_call_does_not_interrupt_a_word() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    base = {"": {" fox": 0.6, " red": 0.4}, " fox": {"es": 0.6, "s": 0.4}}
    aligned = {" fox": {"<": 1.0}}
    pair = ScriptedPair(base, aligned, vocabulary=["<", " fox", " red", "es", "s"])
    params = SamplingParams(router="p", gamma=0.7, temperature=0, tools=(tool,), max_tokens=2)
    with Decoder(pair) as decoder:
        (completion,) = decoder.generate("x", params)
    assert [(s.text, s.source) for s in completion.steps] == [("fox", "base"), ("es", "base")]
