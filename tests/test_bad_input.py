"""Bad calls: each is told what is wrong before anything runs, and harms nobody else."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baco_integrations import BacoError, Decoder, ModelPair, SamplingParams, ScriptedPair
from baco_integrations.core.errors import (
    ModelNotFoundError,
    NotEnoughMemoryError,
    PairError,
    ParameterError,
    PromptError,
    QueueFullError,
    UnsafeWeightsError,
    VocabularyMismatchError,
    WorkerError,
)
from tests.families import make_pair_folder, make_tokenizer

NAN, INF = float("nan"), float("inf")
HALF = "\ud835"

# What is set, and the parameter that the message must name.
SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"gamma": 1.2}, "gamma"),
    ({"gamma": -0.1}, "gamma"),
    ({"gamma": NAN}, "gamma"),
    ({"gamma": INF}, "gamma"),
    ({"gamma": "0.5"}, "gamma"),
    ({"gamma": True}, "gamma"),
    ({"gamma": [0.5]}, "gamma"),
    ({"gama": 0.5}, "gama"),
    ({"max_new_tokens": 5}, "max_new_tokens"),
    ({"threshold": 1.5}, "threshold"),
    ({"threshold": -0.5, "router": "h"}, "threshold"),
    ({"threshold": NAN}, "threshold"),
    ({"threshold": 0.5, "router": "punc"}, "threshold"),
    ({"threshold": 0.5, "gamma": 0.5}, "threshold"),
    ({"router": "p-punk"}, "router"),
    ({"router": ""}, "router"),
    ({"router": 3}, "router"),
    ({"router": None}, "router"),
    ({"router": ...}, "router"),
    ({"router": "judge"}, "router"),
    ({"router": type("Mine", (), {"route": print})}, "router"),
    ({"signal_model": "both"}, "signal_model"),
    ({"first": "base"}, "first"),
    ({"boundary": "yes"}, "boundary"),
    ({"boundary": None}, "boundary"),
    ({"line_breaks": "base"}, "line_breaks"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": NAN}, "temperature"),
    ({"temperature": INF}, "temperature"),
    ({"temperature": 1e39}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": None}, "temperature"),
    ({"top_k": -1}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"top_k": 2**63}, "top_k"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.01}, "top_p"),
    ({"min_p": -0.01}, "min_p"),
    ({"min_p": 2}, "min_p"),
    ({"base": {"temperature": -1}}, "temperature"),
    ({"base": {"temprature": 1}}, "temprature"),
    ({"base": 0.7}, "base"),
    ({"aligned": {"top_p": 7}}, "top_p"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 1.0}, "seed"),
    ({"seed": "1"}, "seed"),
    ({"seed": True}, "seed"),
    ({"n": 0}, "n"),
    ({"n": -3}, "n"),
    ({"n": 1.0}, "n"),
    ({"n": 10**6}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": INF}, "max_tokens"),
    ({"max_tokens": None}, "max_tokens"),
    ({"stop": ""}, "stop"),
    ({"stop": ["ok", ""]}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"stop": 7}, "stop"),
    ({"alternatives": -1}, "alternatives"),
    ({"alternatives": 1000}, "alternatives"),
    ({"alternatives": 0.5}, "alternatives"),
    ({"raw": 1}, "raw"),
    ({"continue_final_message": "yes"}, "continue_final_message"),
]

F = {"function": {"name": "f"}}
# What is set, and the whole message.
TOLD: list[tuple[dict[str, Any], str]] = [
    (
        {"tool_choice": "any"},
        "tool_choice must be 'auto' or 'none' where no tool is given, got 'any'. Tools are given "
        "as tools=[...].",
    ),
    (
        {"tools": [F], "tool_choice": "ani"},
        "tool_choice must be one of auto, any, none, f, got 'ani'. Did you mean 'any'? Tools are "
        "given as tools=[...].",
    ),
    ({"tools": F}, "tools must be a list of tools, got {'function': {'name': 'f'}}. Each is a"),
    ({"tools": [F, "g"]}, "tools[1] must be a dict like {'type': 'function', 'function': {'name'"),
    ({"tools": [{"type": "function"}]}, "tools[0] must be a dict like {'type': 'function', 'func"),
    ({"tools": [{"type": "web", **F}]}, "tools[0] must be a dict like {'type': 'function', 'func"),
    ({"tools": [{"function": {}}]}, "tools[0].function.name must be a name of 1 to 128 letters, "),
    ({"tools": [{"function": {"name": "a b"}}]}, "tools[0].function.name must be a name of 1 to "),
    (
        {"tools": [F, {"function": {"name": "g"}}, {"function": F["function"] | {"strict": True}}]},
        "tools[2].function.name must be a name that no other tool has, got 'f'. Calls name their "
        "tool by it: give one of them another name, or leave it out.",
    ),
    (
        {"tools": [F, {"function": {"name": "g", "parameters": {"type": "string"}}}]},
        "tools[1].function.parameters must be a JSON schema of type 'object', got {'type': 'string'"
        "}. The arguments of 'g' are its properties; leave it out where there are none.",
    ),
    ({"tools": [{"function": {"name": "g", "parameters": [1]}}]}, "tools[0].function.parameters "),
    (
        {"tools": [{"function": {"name": "g", "parameters": {"enum": {1}}}}]},
        "tools[0].function.parameters ",
    ),
    ({"json_schema": {"enum": {1}}}, "json_schema"),
    (
        {"tools": [{"function": {"name": "g", "description": object()}}]},
        "tools[0].function must be JSON data",
    ),
    (
        {"stop": ["a", HALF]},
        "stop must be whole characters (no lone surrogates, which are halves of one), got "
        "'\\ud835'. At 0 it holds one: cut texts between characters, or replace it: "
        "text.encode('utf-8', 'replace').decode().",
    ),
    (
        {"raw": True, "continue_final_message": True},
        "continue_final_message must be left out where raw is given, got True. A raw prompt is "
        "shown to the models as it stands.",
    ),
    ({"raw": True, "tools": [F]}, "tools must be left out where raw is given"),
    (
        {"raw": True, "json_schema": {"type": "object"}, "show_schema": True},
        "show_schema must be left out where raw is given",
    ),
    (
        {"continue_final_message": True, "tools": [F], "tool_choice": "f"},
        "tool_choice must be left out where continue_final_message is given, got 'f'. What goes on "
        "with a text begins with no call.",
    ),
    ({"choices": ["a", HALF]}, "choices must be whole characters"),
    ({"regex": HALF}, "regex must be whole characters"),
    ({"json_schema": {"description": HALF}}, "json_schema must be whole characters"),
    ({"json_schema": {"properties": {HALF: {}}}}, "json_schema must be whole characters"),
    (
        {"tools": [{"function": {"name": "g", "description": HALF}}]},
        "tools[0].function must be whole characters",
    ),
    (
        {"tools": [{"function": {"name": "g", "parameters": {"properties": {HALF: {}}}}}]},
        "tools[0].function must be whole characters",
    ),
]

MESSAGES: list[tuple[Any, str]] = [
    ("", "messages"),
    ("   \n", "messages"),
    ([], "messages"),
    (None, "messages"),
    (7, "messages"),
    (b"hello", "messages"),
    ({"role": "user", "content": "x"}, "messages"),
    (["x"], "messages[0]"),
    ([{"content": "x"}], "role"),
    ([{"role": "usr", "content": "x"}], "role"),
    ([{"role": "user"}], "content"),
    ([{"role": "user", "content": None}], "content"),
    ([{"role": "user", "content": [{"type": "text"}]}], "content"),
    ([{"role": "user", "content": "x"}, {"role": "user", "content": 5}], "messages[1]"),
    (HALF, "messages[0]['content']"),
    ([{"role": "user", "content": "x", "tool_calls": [1]}], "messages[0]['tool_calls'][0]"),
    ("too long " * 600, "messages"),
]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    words = {"": {" yes": 1.0}}
    with Decoder(ScriptedPair(words, words)) as decoder:
        yield decoder


def check_parameter_error(error: ParameterError, parameter: str) -> None:
    assert parameter in error.parameter
    message = str(error)
    assert f"{error.parameter} must be {error.allowed}, got " in message
    assert message.endswith(error.remedy) and error.remedy.endswith((".", "?"))


@pytest.mark.parametrize(("settings", "parameter"), SETTINGS, ids=str)
def test_settings(decoder: Decoder, settings: dict, parameter: str) -> None:
    before = vars(decoder.metrics).copy()
    for call in (
        lambda: SamplingParams(**settings),
        lambda: decoder.generate("x", **settings),
        lambda: decoder.generate("x", SamplingParams(), **settings),
        lambda: decoder.generate_batch(["x", "y"], **settings),
        lambda: decoder.stream("x", **settings),
    ):
        with pytest.raises(ParameterError) as caught:
            call()
        check_parameter_error(caught.value, parameter)
    assert vars(decoder.metrics) == before  # nothing has run


@pytest.mark.parametrize(("settings", "told"), TOLD, ids=lambda value: str(value)[:40])
def test_tools(settings: dict, told: str) -> None:
    with pytest.raises(ParameterError) as caught:
        SamplingParams(**settings)
    check_parameter_error(caught.value, told.partition(" ")[0])
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("parameters", [{}, None, {"type": "object"}, {"properties": {}}])
def test_a_tool_without_arguments_takes_an_empty_object(parameters: object) -> None:
    (tool,) = SamplingParams(tools=[{"function": {"name": "f", "parameters": parameters}}]).tools
    assert tool["function"]["parameters"] == {"type": "object", "properties": {}}


def test_a_tool_that_is_given_twice_is_one() -> None:
    schema = {"properties": {"title": {"enum": ["x"]}}}
    again = {"properties": {"title": {"enum": ["x"], "title": "Title"}}, "title": "F"}
    tools = [{"function": {"name": "f", "parameters": each}} for each in (schema, again)]
    params = SamplingParams(tools=[tools[0], {"function": {"name": "g"}}, tools[1]])
    assert [tool["function"]["name"] for tool in params.tools] == ["f", "g"]
    again["properties"]["title"] = {"enum": ["y"]}
    with pytest.raises(ParameterError, match="no other tool has"):
        params.replace(tools=tools)


@pytest.mark.parametrize(("messages", "parameter"), MESSAGES, ids=lambda value: str(value)[:40])
def test_messages(decoder: Decoder, messages: object, parameter: str) -> None:
    before = vars(decoder.metrics).copy()
    with pytest.raises(PromptError) as caught:
        decoder.generate(messages)
    check_parameter_error(caught.value, parameter)
    assert vars(decoder.metrics) == before

    results = decoder.generate_batch(["x", messages, "y"], seed=1, return_exceptions=True)
    assert isinstance(results[1], PromptError)
    assert [results[place][0].text for place in (0, 2)] == ["yes", "yes"]


@pytest.mark.parametrize(
    ("call", "parameter"),
    [
        (lambda d: d.generate("x", {"gamma": 0.5}), "params"),
        (lambda d: d.generate_batch("x"), "conversations"),
        (lambda d: d.generate_batch(["x", "y"], [SamplingParams()]), "params"),
        (lambda d: d.generate_batch(["x"], 5), "params"),
        (lambda d: d.generate_batch(["x"], {"gamma": 0.5}), "params"),
        (lambda d: Decoder("tiny"), "pair"),
        (lambda d: Decoder(ModelPair), "pair"),
        (lambda d: Decoder(d.pair, max_rows=-1), "max_rows"),
        (lambda d: Decoder(d.pair, max_rows=np.float64(4)), "max_rows"),
        (lambda d: Decoder(d.pair, max_row=4), "max_row"),
        (lambda d: Decoder(d.pair, lookahead=[2]), "lookahead"),
        (lambda d: Decoder(d.pair, graphs=["on"]), "graphs"),
        (lambda d: Decoder(d.pair, prefix_bytes=-1), "prefix_bytes"),
        (lambda d: Decoder.shared("tiny"), "pair"),
        (lambda d: Decoder.shared(d.pair, max_row=4), "max_row"),
        (lambda d: Decoder.shared(d.pair, "me"), "user"),
        (lambda d: Decoder.shared(d.pair, [1]), "user"),
        (lambda d: d.close("me"), "user"),
        (lambda d: d.generate(["x", "y"]), "messages"),
        (lambda d: d.stream("x", SamplingParams), "params"),
        (lambda d: d.astream("x", [SamplingParams()]), "params"),
        (
            lambda d: d.astream([{"role": "user", "content": "x", "by": threading.Lock()}]),
            "messages",
        ),
        (lambda d: d.generate_batch(b"xy"), "messages"),
        (lambda d: d.generate_batch({"x": "y"}), "conversations"),
        (lambda d: d.generate_batch(iter(["x"])), "conversations"),
        (lambda d: d.generate_batch(["x"], return_exceptions="yes"), "return_exceptions"),
        (lambda d: d.generate_batch(["x"], ["y"]), "params"),
        (lambda d: ScriptedPair({}, {}), "vocabulary"),
        (lambda d: ScriptedPair({"": {" a": -1.0}}, {}), "script"),
        (lambda d: ScriptedPair({"": {" a": "b"}}, {}), "script"),
        (lambda d: SamplingParams().replace(gamma=2), "gamma"),
        (lambda d: SamplingParams(seed=np.float64(1)), "seed"),
    ],
)
def test_calls(decoder: Decoder, call: Callable[[Decoder], object], parameter: str) -> None:
    with pytest.raises(ParameterError) as caught:
        call(decoder)
    check_parameter_error(caught.value, parameter)


def test_numbers_of_numpy_are_numbers() -> None:
    words = {"": {" yes": 1.0}}
    settings = {"max_rows": np.int64(3), "prefix_bytes": np.int32(0), "lookahead": np.int8(2)}
    with Decoder(ScriptedPair(words, words), **settings) as decoder:
        assert decoder.max_rows == 3
        assert decoder.generate("x", max_tokens=np.int64(5))[0].text == "yes"


class Odd(ScriptedPair):
    """A pair that cannot render everything."""

    def render_base(self, messages: Any, *, tokenize: bool = False) -> Any:
        if "odd" in str(messages):
            raise ZeroDivisionError("division by zero")
        return super().render_base(messages, tokenize=tokenize)


class OddRouter:
    """A router that fails."""

    def route(self, inputs: Any) -> Any:
        raise ZeroDivisionError("division by zero")


async def test_a_batch_keeps_all_that_are_not_bad_whatever_is_bad_about_one() -> None:
    words = {"": {" yes": 1.0}}
    asked = ["x", "odd", "router", "many", "y"]
    with Decoder(Odd(words, words), max_waiting=8) as decoder:
        params = [
            SamplingParams(router=OddRouter())
            if a == "router"
            else SamplingParams(n=9 if a == "many" else 1)
            for a in asked
        ]
        batch: Any = decoder.generate_batch(asked, params, return_exceptions=True)
        assert [type(each) for each in batch[1:4]] == [PromptError, WorkerError, QueueFullError]
        assert "ZeroDivisionError: division by zero" in str(batch[1])
        assert isinstance(batch[2].__cause__, ZeroDivisionError)
        assert [batch[place][0].text for place in (0, 4)] == ["yes", "yes"]
        with pytest.raises(QueueFullError):
            decoder.generate_batch(asked[3:], params[3:])
        for ask in (decoder.agenerate, decoder.generate):
            with pytest.raises(PromptError, match="ZeroDivisionError"):
                answer: Any = ask("odd")
                await answer


@pytest.mark.parametrize("text", ["x" * 10**6, "word " * 3 * 10**5, "é\n" * 10**6])
async def test_a_prompt_of_megabytes_is_refused_by_its_tokens_at_once(text: str) -> None:
    encoded: list[int] = []

    class Counting(ScriptedPair):
        def encode(self, text: str) -> list[int]:
            encoded.append(len(text))
            return super().encode(text)

    words = {"": {" yes": 1.0}}
    with Decoder(Counting(words, words)) as decoder:
        for tools in ([], [F]):
            with pytest.raises(
                PromptError, match="window of 4096 tokens, got 'more than [0-9]+ tok"
            ):
                decoder.generate(text, tools=tools)
            with pytest.raises(PromptError, match="more than"):
                await decoder.agenerate([{"role": "user", "content": text}])
        assert sum(encoded) <= 4 * 4 * 4096
        assert decoder.generate("x")[0].text == "yes"


def test_calls_and_tools_of_megabytes_are_refused_at_once() -> None:
    call = {"function": {"name": "f", "arguments": {"text": "x" * 10**6}}}
    said = [{"role": "user", "content": "Go."}, {"role": "assistant", "tool_calls": [call]}]
    large = {"type": "function", "function": {"name": "f", "description": "x" * 10**6}}
    for messages, tools in ((said, []), ("Go.", [large])):
        with (
            Decoder.shared(ModelPair.tiny()) as decoder,
            pytest.raises(PromptError, match="window of 1024 tokens, got 'more than"),
        ):
            decoder.generate(messages, tools=tools)


@pytest.mark.parametrize(
    ("window", "settings"),
    [
        (10**15, {"max_tokens": 10**13}),
        (10**30, {"max_tokens": 10**25}),
        (4096, {"max_tokens": 10**30, "n": 64}),
        (4096, {"alternatives": 64}),
        (4096, {"timeout": 1e300}),
    ],
    ids=str,
)
@pytest.mark.parametrize("lookahead", ["off", 64])
def test_numbers_that_no_memory_holds_cost_nothing(
    window: int, settings: dict[str, Any], lookahead: Any
) -> None:
    words = {"": {" yes": 1.0}}
    with Decoder(ScriptedPair(words, words, context=window), lookahead=lookahead) as decoder:
        completions = decoder.generate("x", **settings)
    assert {completion.text for completion in completions} == {"yes"}


# -- pairs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_pair_folder(tmp_path_factory.mktemp("pair"), "llama")


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickled(folder: Path) -> None:
    _without_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never read")


def _without_tokenizer(folder: Path) -> None:
    for file in folder.glob("token*"):
        file.unlink()


def _other_vocabulary(folder: Path) -> None:
    make_tokenizer("sentencepiece").save_pretrained(folder)


def _edit_config(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (_without_weights, ModelNotFoundError, "safetensors"),
        (_pickled, UnsafeWeightsError, "safetensors"),
        (_without_tokenizer, ModelNotFoundError, "tokenizer"),
        (_other_vocabulary, VocabularyMismatchError, "id"),
        (lambda folder: (folder / "config.json").unlink(), ModelNotFoundError, "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), PairError, "config.json"),
        (_edit_config(model_type="no-such-model"), PairError, "no-such-model"),
        (_edit_config(model_type="t5"), PairError, "decoder"),
        (_edit_config(model_type="mamba"), PairError, "decoder-only"),
        (
            _edit_config(
                rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
            ),
            PairError,
            "dynamic",
        ),
    ],
)
def test_damaged_folders(
    folders: tuple[Path, Path], tmp_path: Path, damage: Callable, error: type, words: str
) -> None:
    base = shutil.copytree(folders[0], tmp_path / "base")
    damage(base)
    with pytest.raises(error) as caught:
        ModelPair.from_pretrained(base, folders[1])
    assert isinstance(caught.value, BacoError)
    assert words.lower() in str(caught.value).lower()
    assert len(str(caught.value)) > 40  # a sentence with a remedy


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"dtype": "float33"}, "dtype"),
        ({"dtype": 16}, "dtype"),
        ({"dtypo": "float32"}, "dtypo"),
        ({"base_prompt": "q&a"}, "base_prompt"),
        ({"base_prompt": 3}, "base_prompt"),
        ({"attn_implementation": "flash_attention_2"}, "attn_implementation"),
        ({"device_map": "cuda:99"}, "device_map"),
        ({"device_map": 1.5}, "device_map"),
        ({"local_files_only": "yes"}, "local_files_only"),
        ({"template_kwargs": "thinking"}, "template_kwargs"),
    ],
)
def test_load_options(folders: tuple[Path, Path], options: dict, parameter: str) -> None:
    with pytest.raises(ParameterError) as caught:
        ModelPair.from_pretrained(*folders, **options)
    check_parameter_error(caught.value, parameter)


def test_unknown_preset() -> None:
    with pytest.raises(ParameterError, match="Did you mean 'qwen2.5-7b'"):
        ModelPair.from_preset("qwen2.5-7")


def test_missing_folder_and_unreachable_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        ModelPair.from_pretrained(tmp_path / "nowhere", tmp_path / "neither")
    with pytest.raises(ModelNotFoundError, match="local_files_only"):
        ModelPair.from_pretrained("no-one/no-model", "no-one/none", local_files_only=True)


def test_a_pair_that_does_not_fit(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from baco_integrations.models import memory

    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(NotEnoughMemoryError, match=r"needs about .* has .* free.*dtype='bfloat16'"):
        ModelPair.from_pretrained(*folders, dtype="float16")


def test_there_are_enough_bad_calls() -> None:
    assert len(SETTINGS) + len(MESSAGES) >= 60
