"""Models that are not ours, through their frameworks' own fakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from llama_index.core.llms import MockLLM

from baco_integrations import BacoError, SamplingParams
from baco_integrations.evaluation import Sweep, collect, read_records
from baco_integrations.evaluation.external import ExternalModel, is_external
from tests.evaluation.worlds import PROMPTS

SMALL: dict[str, Any] = {"sweep": Sweep(3), "seeds": (0,), "n": 2, "rows": 1}


def chat(temperature: float) -> FakeListChatModel:
    return FakeListChatModel(responses=[f"At {temperature}.", f"Also at {temperature}."])


def plain(out: Path, model: Any, **changes: Any) -> list[dict[str, Any]]:
    collect(model, PROMPTS[:2], out, **{**SMALL, "methods": ("plain",), **changes})
    return read_records(out)


def test_a_function_makes_a_model_for_each_temperature(tmp_path: Path) -> None:
    records = plain(tmp_path, chat, name="mine")
    assert [r["temperature"] for r in records] == [0.3, 0.3, 0.7, 0.7, 1.3, 1.3]
    for record in records:
        temperature = record["temperature"]
        said = {f"At {temperature}.", f"Also at {temperature}."}
        assert set(record["generations"]) == said
        assert (record["model"], record["tokens"]) == ("mine", 2 + 3)
        for unknown in ("knob", "base_share", "switches", "forwards"):
            assert record[unknown] is None


def test_a_chat_model_is_bound_to_each_temperature(tmp_path: Path) -> None:
    seen = []

    class Watched(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            seen.append(kwargs["temperature"])
            return super()._call(*args, **kwargs)

    records = plain(tmp_path, Watched(responses=["a"]))
    assert sorted(seen) == [0.3] * 4 + [0.7] * 4 + [1.3] * 4
    assert records[0]["model"].endswith("Watched")


def test_an_llm_and_one_that_tells_its_tokens(tmp_path: Path) -> None:
    records = plain(tmp_path / "llm", FakeListLLM(responses=["one two"]))
    assert all(r["generations"] == ["one two"] * 2 and r["tokens"] == 4 for r in records)
    usage = {"input_tokens": 3, "output_tokens": 11, "total_tokens": 14}
    message = AIMessage("Rome.", usage_metadata=usage)  # type: ignore[arg-type]
    model = GenericFakeChatModel(messages=iter([message] * 12))
    assert {r["tokens"] for r in plain(tmp_path / "chat", model)} == {22}


def test_llama_index(tmp_path: Path) -> None:
    records = plain(tmp_path, MockLLM(max_tokens=2))
    assert all(r["generations"] == ["text text"] * 2 for r in records)
    made = plain(tmp_path / "made", lambda temperature: MockLLM(max_tokens=round(10 * temperature)))
    assert [r["tokens"] for r in made] == [6, 6, 14, 14, 26, 26]


def test_prompting_works_with_any_model(tmp_path: Path) -> None:
    collect(MockLLM(), PROMPTS[:1], tmp_path, **{**SMALL, "sweep": Sweep(1)})
    records = {r["method"]: r["generations"] for r in read_records(tmp_path)}
    assert set(records) == {"in-context", "paraphrase", "system-prompt", "plain"}
    # It repeats what it is told, so what it was told can be read.
    assert "Can you give me a different answer?" in records["in-context"][1]
    assert "few others would give" in records["system-prompt"][0]
    assert records["paraphrase"][0] != records["paraphrase"][1]


def test_failures_stay_with_their_prompts(tmp_path: Path) -> None:
    class Failing(FakeListChatModel):
        def _call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
            if "number 1" in messages[-1].content:
                raise ValueError("refused")
            return super()._call(messages, *args, **kwargs)

    outcome = collect(
        Failing(responses=["a"]), PROMPTS[:2], tmp_path, **{**SMALL, "methods": ("plain",)}
    )
    assert outcome[:3] == (3, 3, 3)
    assert "ValueError: refused" in (tmp_path / "errors.jsonl").read_text()


def test_a_run_of_a_foreign_model_can_be_resumed(tmp_path: Path) -> None:
    plain(tmp_path, MockLLM(max_tokens=2))
    file = tmp_path / "generations.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:700])
    plain(tmp_path, MockLLM(max_tokens=2))
    assert file.read_bytes() == whole


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BacoError, match="a function that returns a model of LangChain or Llama"):
        ExternalModel(lambda temperature: "gpt").answer([PROMPTS[0].messages], [SamplingParams()])
    with pytest.raises(BacoError, match=r"ValueError: .*It was given the temperature 0.7"):
        ExternalModel(lambda _: int("gpt")).answer([PROMPTS[0].messages], [SamplingParams()])
    with pytest.raises(BacoError, match="one that needs no pair"):
        plain(tmp_path, chat, methods=("p-punc",))
    assert not is_external(MockLLM) and is_external(MockLLM())
