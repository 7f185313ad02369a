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


def test_alternatives_of_both_sides() -> None:
    (step, *_) = run({"": {" red": 0.7, " fox": 0.3}}, {"": {" fox": 1.0}}, alternatives=2)
    assert step.alternatives is not None
    assert [(a.text, round(a.probability, 6)) for a in step.alternatives["base"]] == [
        (" red", 0.7),
        (" fox", 0.3),
    ]
    assert step.alternatives["aligned"][0][1:] == (" fox", 1.0)
