"""Options are what the settings say, and reach the decoder."""

import json
from inspect import signature
from pathlib import Path

import pytest

from baco_integrations import SamplingParams
from baco_integrations.cli.options import option_type
from baco_integrations.core.params import DEFAULT_GAMMA
from baco_integrations.core.settings import stated
from baco_integrations.evaluation.methods import Grid, Sweep
from baco_integrations.evaluation.result import Settings
from baco_integrations.evaluation.run import collect
from baco_integrations.evaluation.tuning import GRID, ROUTERS, tune
from baco_integrations.models.options import LoadOptions
from baco_integrations.tiny import WEIGHTS
from tests.commands import ASK, baco, options
from tests.families import make_pair_folder


def test_help_repeats_the_defaults_of_the_library() -> None:
    for command in ("generate", "chat", "compare", "demo"):
        shown = {name: option.show_default for name, option in options(command).items()}
        assert float(shown["gamma"]) == DEFAULT_GAMMA
        for name, field in SamplingParams.model_fields.items():
            if isinstance(shown.get(name), str) and name not in ("gamma", "seed"):
                assert shown[name] == str(field.default)


def test_the_evaluation_has_the_defaults_of_the_library() -> None:
    sweep, tuning = options("eval", "sweep"), options("tune")
    library, grid = signature(collect).parameters, signature(tune).parameters
    assert sweep["n"].default == library["n"].default
    assert sweep["seeds"].default == len(library["seeds"].default)
    assert sweep["points"].default == Sweep().points
    assert sweep["resamples"].default == Settings().resamples
    for name in ("n", "seed", "floor"):
        assert tuning[name].default == grid[name].default
    assert tuple(tuning["router"].default) == ROUTERS
    assert Grid(*(tuple(tuning[name].default) for name in ("gamma", "temperature"))) == GRID


def test_an_option_for_a_setting_says_what_its_field_says() -> None:
    found = options("generate")
    for name, field in {**SamplingParams.model_fields, **LoadOptions.model_fields}.items():
        if name in found and name not in ("base", "aligned"):
            assert stated(field, "help") in found[name].help
    kinds = [option_type(SamplingParams.model_fields[n].annotation) for n in ("gamma", "n", "stop")]
    assert kinds == [float, int, list[str]]
    assert option_type(LoadOptions.model_fields["token"].annotation) is str
    assert found["stop"].multiple and not found["gamma"].multiple
    assert options("compare")["gamma"].multiple
    assert found["device_map"].opts == ["--device"] and "-n" in found["n"].opts


def test_options_reach_the_decoder() -> None:
    answer = json.loads(
        baco(*ASK, "--json", "--router", "aligned", "--max-tokens", "2", "--system", "Hi.").stdout
    )
    assert (answer["router"], answer["finish_reason"], answer["base_share"]) == (
        ("aligned", "length", 0)
    )
    assert (
        answer["usage"]["prompt_tokens"]
        > json.loads(baco(*ASK, "--json").stdout)["usage"]["prompt_tokens"]
    )


def test_quantised() -> None:
    answer = json.loads(baco(*ASK, "--json", "--trace", "--quantization", "8bit").stdout)
    whole = json.loads(baco(*ASK, "--json", "--trace").stdout)
    first, of_whole = (each["steps"][0]["p_aligned"] for each in (answer, whole))
    assert first != of_whole
    assert first == pytest.approx(of_whole, abs=0.05)


@pytest.mark.parametrize("twice", [("--gamma", "0.3,0.9"), ("--gamma", "0.3", "--gamma", "0.9")])
def test_several_values_are_taken_or_refused(twice: tuple[str, ...]) -> None:
    columns = json.loads(baco("compare", ASK[1], "-n", "1", *twice, "--json").stdout)["columns"]
    assert [column["gamma"] for column in columns[2:]] == [0.3, 0.9]
    refused = " ".join(baco(*ASK, *twice, code=2).stderr.split())
    assert "--gamma takes one value" in refused and "`baco compare` takes several" in refused


def test_texts_keep_their_commas() -> None:
    answer = json.loads(baco(*ASK, "--stop", "x,y", "--system", "1,2", "--json").stdout)
    assert answer["text"]
    refused = baco(*ASK, "--system", "a", "--system", "b", code=2).stderr
    assert "--system takes one value" in refused


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--gamma", "0.3", "--router", "punc"), "Note: --gamma has no effect with --router punc"),
        (("--temperature", "0", "--top-k", "3"), "where nothing is drawn: --top-k"),
        (("--temperature", "0", "-n", "2"), "Answers at --temperature 0 are all the same"),
    ],
)
def test_options_without_effect_are_noted(args: tuple[str, ...], said: str) -> None:
    assert said in baco(*ASK, *args).stderr


def test_the_base_prompt_is_an_option() -> None:
    args = (*ASK, "--router", "base", "--json", "--trace", "--max-tokens", "1")
    first = [
        json.loads(baco(*args, "--base-prompt", way).stdout)["steps"][0]["p_base"]
        for way in ("qa", "urial")
    ]
    assert first[0] != first[1]
    for command in ("generate", "chat", "compare"):
        assert "base_prompt" in options(command)


def test_one_model(tmp_path: Path) -> None:
    args = (*ASK, "--model", str(WEIGHTS / "aligned"), "--json", "--gamma", "1", "--router", "rand")
    assert json.loads(baco(*args).stdout)["base_share"] > 0
    for other in (("--pair", "tiny"), ("--base", "a/b"), ("--base", "a/b", "--aligned", "a/c")):
        said = " ".join(baco(*args, *other, code=2).stderr.split())
        assert "--pair must be given alone, or --model alone, or --base and --aligned" in said
    for command in ("generate", "chat", "compare", "bench", "launch", "serve", "tune"):
        assert "one instruct model as both sides" in options(command)["model"].help.lower()
    for command in ("run", "sweep"):
        assert "one instruct model as both sides" in options("eval", command)["model"].help


def test_a_pair_of_folders(tmp_path: Path) -> None:
    base, aligned = make_pair_folder(tmp_path, "llama")
    args = ("--base", str(base), "--aligned", str(aligned), "--max-tokens", "4", "--json")
    assert json.loads(baco("generate", "Hi", *args).stdout)["usage"]["completion_tokens"] <= 4
