"""`baco generate`, `baco compare`, `baco demo` and `baco bench`."""

import json

from tests.commands import ASK, baco


def test_json_is_one_object_and_nothing_else() -> None:
    answer = json.loads(baco(*ASK, "--json").stdout)
    assert answer["seed"] == 5
    assert answer["finish_reason"] in ("stop", "length")
    assert 0 <= answer["base_share"] <= 1
    assert answer["usage"]["total_tokens"] == (
        answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    )
    assert "steps" not in answer
    traced = json.loads(baco(*ASK, "--json", "--trace").stdout)
    assert "".join(step["text"] for step in traced.pop("steps")) == answer["text"]
    assert traced == answer


def test_what_is_not_known_is_left_out() -> None:
    said = baco(*ASK, "--router", "aligned", "--json", "--trace").stdout
    assert "NaN" not in said
    for step in json.loads(said)["steps"]:
        assert "p_aligned" in step and not step.keys() & {"p_base", "p_max", "entropy"}


def test_several_answers() -> None:
    answers = json.loads(baco(*ASK, "-n", "3", "--json").stdout)["completions"]
    assert [answer["sample"] for answer in answers] == [0, 1, 2]
    plain = baco(*ASK, "-n", "3").stdout
    assert all(f"--- {number} of 3\n" in plain for number in (1, 2, 3))
    assert all(answer["text"] in plain for answer in answers)


def test_a_prompt_from_standard_input() -> None:
    piped = baco("generate", "-", "--seed", "5", input="Name a place to visit.\n")
    assert piped.stdout == baco(*ASK).stdout


def test_a_seed_is_told_once() -> None:
    told = baco(*ASK, "-n", "3", "--trace").stderr
    assert told.count("seed") == 1 and "seed 5" in told and told.count("base gave") == 3


def test_compare_gives_a_column_to_each_gamma() -> None:
    args = ("compare", "Name a place to visit.", "-n", "3", "--seed", "1")
    gammas = ("--gamma", "0.2", "--gamma", "0.8")
    columns = json.loads(baco(*args, *gammas, "--json").stdout)["columns"]
    assert [(column["router"], column["gamma"]) for column in columns] == [
        ("base", None),
        ("aligned", None),
        ("p-punc", 0.2),
        ("p-punc", 0.8),
    ]
    for column in columns:
        texts = {answer["text"].strip() for answer in column["completions"]}
        assert column["distinct"] == len(texts)
    assert [columns[0]["base_share"], columns[1]["base_share"]] == [1, 0]
    wide, narrow = (baco(*args, *gammas, env={"COLUMNS": width}).stdout for width in ("120", "80"))
    assert any("base alone" in line and "gamma 0.8" in line for line in wide.splitlines())
    assert not any("base alone" in line and "gamma 0.8" in line for line in narrow.splitlines())
    assert max(map(len, narrow.splitlines())) <= 80


def test_compare_judges_what_the_tiny_pair_knows() -> None:
    args = ("compare", ASK[1], "-n", "4", "--seed", "1")
    for column in json.loads(baco(*args, "--json").stdout)["columns"]:
        verdicts = [answer["verdict"] for answer in column["completions"]]
        assert column["valid"] == verdicts.count("ok")
        assert min(column["valid"], 1) <= column["valid_distinct"] <= column["valid"]
    shown = baco(*args).stdout
    assert "✗" in shown and "✓" in shown and "4/4 valid, 1 distinct" in shown
    assert "valid" not in baco("compare", "What is 2 + 2?", "-n", "1").stdout


def test_bench_compares_a_pair_with_its_aligned_model() -> None:
    args = ("bench", "--tokens", "3", "--samples", "2", "--rounds", "2")
    found = json.loads(baco(*args, "--gamma", "0.3", "--json").stdout)
    assert (found["pair"], found["gamma"], found["tokens"]) == ("tiny", 0.3, 3)
    ways = ("aligned alone", "lockstep", "lookahead")
    assert [(row["answers"], row["decoding"]) for row in found["results"]] == [
        (answers, way) for answers in (1, 2) for way in ways
    ]
    for row in found["results"]:
        assert ("to_aligned" in row) == (row["decoding"] != "aligned alone")
        for figure in (row["tokens_per_second"], row.get("to_aligned", row["tokens_per_second"])):
            assert 0 < figure["low"] <= figure["median"] <= figure["high"]
    assert found["threads"] >= 1 and found["torch"]
    shown = baco(*args).stdout
    assert "against aligned alone" in shown and "tiny, gamma 0.6, float32." in shown
    said = " ".join(shown.split())
    assert "in turn in each of 2 rounds; figures are medians" in said
    assert said.count("times as long as aligned alone") == 4 and "With one answer at a time" in said
    assert "--gamma must be" in baco("bench", "--gamma", "3", code=2).stderr
