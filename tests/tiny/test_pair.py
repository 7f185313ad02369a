from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from baco_integrations import Decoder, ModelPair, SamplingParams
from baco_integrations.text.prompts import render_base
from baco_integrations.tiny import WEIGHTS
from baco_integrations.tiny.oracle import judge
from baco_integrations.tiny.requests import Request, requests
from baco_integrations.tiny.words import BY_NAME, SLOTS
from cookbook.tiny_pair import world
from tests.benchmarks.json_and_tools import json_scores, tool_scores

REQUESTS = requests("eval")


class Pair:
    def __init__(self) -> None:
        folders = {name: WEIGHTS / name for name in ("base", "aligned")}
        self.tokenizer = AutoTokenizer.from_pretrained(folders["aligned"])
        self.models = {
            name: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            for name, folder in folders.items()
        }

    def prompt(self, name: str, request: Request) -> str:
        if name == "base":
            return render_base("qa", request.messages)
        text: str = self.tokenizer.apply_chat_template(
            request.messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def encode(self, *texts: str) -> Any:
        return self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_tensors="pt",
            padding=True,
            padding_side="left",
        )

    def next_probabilities(self, name: str, request: Request, begun: str) -> torch.Tensor:
        with torch.inference_mode():
            logits = self.models[name](**self.encode(self.prompt(name, request) + begun)).logits
        return torch.as_tensor(logits[0, -1]).softmax(-1)

    def answers(self, requests: Sequence[Request]) -> list[str]:
        inputs = self.encode(*(self.prompt("aligned", request) for request in requests))
        ids = self.models["aligned"].generate(**inputs, do_sample=False, max_new_tokens=160)
        width = inputs["input_ids"].shape[1]
        return list(self.tokenizer.batch_decode(ids[:, width:], skip_special_tokens=True))


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # More only wait for each other in models this small.
    yield Pair()
    torch.set_num_threads(threads)


def test_aligned_answers_unseen_requests(pair: Pair) -> None:
    requests = REQUESTS[::4]
    verdicts = [judge(*both).valid for both in zip(requests, pair.answers(requests), strict=True)]
    assert sum(verdicts) >= 0.9 * len(verdicts)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(ModelPair.tiny(), max_rows=32) as decoder:
        yield decoder


@pytest.mark.parametrize(("gamma", "least_valid", "least_distinct"), [(0, 0.65, 0), (0.6, 0.5, 2)])
@pytest.mark.slow
def test_json_answers_say_something(
    decoder: Decoder, gamma: float, least_valid: float, least_distinct: float
) -> None:
    asked = world.json_requests("eval")[::3]
    found = json_scores(decoder, asked, SamplingParams(gamma=gamma, n=5, seed=0, max_tokens=200))
    valid, distinct = found.values()
    assert valid >= least_valid
    assert distinct >= least_distinct


@pytest.mark.slow
def test_tools_are_called_where_they_fit(decoder: Decoder) -> None:
    params = SamplingParams(gamma=0, seed=0, max_tokens=200)
    unseen = tool_scores(decoder, world.tool_requests("eval"), params)
    assert unseen["tools, call: called"] >= 0.8
    assert unseen["tools, unfit: called"] <= 0.2
    assert unseen["tools, answers: right"] >= 0.75
    # Requests in words that it knows are copied word by word.
    known = tool_scores(decoder, world.tool_requests("train"), params)
    assert known["tools, call: right"] >= 0.9
    assert known["tools, result: right"] >= 0.75


def test_base_is_open_where_a_string_begins(pair: Pair) -> None:
    for request in REQUESTS[:6]:
        chances = pair.next_probabilities("base", request, ' {"idea": "')
        assert chances.max() < 0.6


@pytest.mark.parametrize(
    "request_",
    [r for r in REQUESTS if r.form == "plain" and r.system is None and r.kind != "story"],
    ids=lambda request: request.kind,
)
def test_base_is_open_where_aligned_has_made_up_its_mind(pair: Pair, request_: Request) -> None:
    kind = BY_NAME[request_.kind]
    first = kind.contents[0].split(" ")[0]
    begun = f" {SLOTS['claims'][0] if kind.openers == SLOTS['claims'] else 'I would pick'}"
    if first in ("a", "an", "the"):
        begun += f" {first}"
    if first.startswith('"'):
        begun += ' "'
    base = pair.next_probabilities("base", request_, begun).max()
    aligned = pair.next_probabilities("aligned", request_, begun).max()
    assert aligned > 0.8
    assert base < 0.6


@pytest.mark.parametrize("name", ["base", "aligned"])
def test_fixed_words_are_certain_on_both_sides(pair: Pair, name: str) -> None:
    for begun, word in ((" I would go", " with"), (" My favorite", " is"), (" You", " could")):
        probabilities = pair.next_probabilities(name, REQUESTS[0], begun)
        (token,) = pair.tokenizer(word, add_special_tokens=False).input_ids
        assert probabilities[token] > 0.9
