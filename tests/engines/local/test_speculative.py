"""Lookahead changes how often the models are asked, and nothing of what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from baco_integrations import (
    Completion,
    Decoder,
    ModelPair,
    SamplingParams,
    ScriptedPair,
    TokenStep,
)
from baco_integrations.core.errors import ParameterError
from baco_integrations.engines.base import EngineSettings
from baco_integrations.engines.local.speculative import (
    MAX_DRAFT,
    AcceptanceEstimate,
    Costs,
    is_worthwhile,
)
from baco_integrations.engines.open import open_engine
from baco_integrations.policy.routers import RouteInputs
from tests.engines.local.scripted_runner import ScriptedRunner, local_decoder

PROMPTS = ("Suggest a hobby.", "Name a place to visit.", "Tell me a short story.")
GIFT = {
    "type": "object",
    "properties": {"idea": {"type": "string"}, "sure": {"type": "boolean"}},
    "required": ["idea", "sure"],
}
TOOL = {"type": "function", "function": {"name": "find", "parameters": GIFT}}
SETTINGS: dict[str, dict[str, Any]] = {
    "mixed gammas": {},
    "h": {"router": "h-punc-fc", "gamma": 0.4},
    "rand": {"router": "rand", "gamma": 0.3},
    "base": {"router": "base"},
    "aligned": {"router": "aligned"},
    "first by aligned, no boundary": {"first": "aligned", "boundary": False, "gamma": 0.7},
    "signals of aligned": {"signal_model": "aligned", "gamma": 0.7},
    "greedy": {"temperature": 0, "gamma": 0.6},
    "own sampling": {"base": {"temperature": 1.3}, "aligned": {"top_k": 5}, "min_p": 0.05},
    "stop": {"stop": ("It is",), "gamma": 0.6},
    "short": {"max_tokens": 3, "gamma": 0.6},
    "schema": {"json_schema": GIFT, "gamma": 0.8},
    "tools": {"tools": (TOOL,), "gamma": 0.6},
    "forced tool": {"tools": (TOOL,), "tool_choice": "any", "gamma": 0.6},
    "choices": {"choices": ("chess", "sailing", "chess boxing"), "gamma": 0.8},
    "pattern": {"regex": "[a-z ]{5,30}", "gamma": 0.8},
}


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return ModelPair.tiny(dtype="float64")


@pytest.fixture(scope="module")
def decoders(pair: ModelPair) -> Iterator[dict[Any, Decoder]]:
    made = {depth: Decoder(pair, lookahead=depth) for depth in ("off", "auto", 3, MAX_DRAFT)}
    yield made
    for decoder in made.values():
        decoder.close()


def answers(decoder: Decoder, settings: dict[str, Any]) -> list[Completion]:
    mixed = [{"gamma": gamma} for gamma in (0.0, 0.5, 1.0)] if not settings else [settings] * 3
    params = [
        SamplingParams(**{"max_tokens": 40, "n": 2, "seed": seed, "alternatives": 2} | each)
        for seed, each in enumerate(mixed)
    ]
    return [c for each in decoder.generate_batch(PROMPTS, params) for c in each]


def likeliest(step: TokenStep) -> list[float]:
    return [each.probability for each in (step.alternatives or {})["sampled"]]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_output_is_that_of_lockstep(
    decoders: dict[Any, Decoder], settings: dict[str, Any]
) -> None:
    off, *ahead = (answers(decoder, settings) for decoder in decoders.values())
    for one, other in (
        (one, other) for each in ahead for one, other in zip(off, each, strict=True)
    ):
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        calls, same_calls = ([c[1:] for c in each.tool_calls] for each in (one, other))
        assert calls == same_calls  # but for the ids, which are drawn anew
        for step, same in zip(one.steps, other.steps, strict=True):
            assert (step.token_id, step.source) == (same.token_id, same.source)
            assert same.p_aligned == pytest.approx(step.p_aligned, abs=1e-9)
            assert same.p_base == pytest.approx(step.p_base, abs=1e-9)
            assert same.p_sampled == pytest.approx(step.p_sampled, abs=1e-9)
            assert likeliest(same) == pytest.approx(likeliest(step), abs=1e-9)


def test_a_mixture_is_that_of_lockstep(pair: ModelPair) -> None:
    def mean(base: Any, aligned: Any) -> Any:
        return (base + aligned) / 2

    texts = []
    for lookahead in ("off", 3):
        engine = open_engine(pair, EngineSettings(lookahead=lookahead), mix=mean)  # type: ignore[arg-type]
        with Decoder(pair, engine=engine) as decoder:
            batch = decoder.generate_batch(PROMPTS, gamma=0.6, seed=1, max_tokens=40)
            assert (decoder.metrics.accepted > 0) == (lookahead == 3)
        texts.append([each.text for (each,) in batch])
    assert texts[0] == texts[1]


def test_fewer_forwards(pair: ModelPair) -> None:
    params = SamplingParams(gamma=0.6, max_tokens=60, seed=1)
    with Decoder(pair) as decoder:
        for prompt in PROMPTS:
            decoder.generate(prompt, params)
        metrics = decoder.metrics
    assert metrics.forwards <= 1.5 * metrics.tokens
    assert metrics.accepted >= 0.8 * metrics.drafted > 0
    assert metrics.rows_per_iteration == 1


def scripted(lookahead: Any, **settings: Any) -> tuple[list[str], Decoder]:
    """Base is sure of " b c d"; aligned would say " x" behind " b c"."""
    base = {"": {" b": 1}, " b": {" c": 1}, " b c": {" d": 0.9, " x": 0.1}, " b c x": {" d": 1}}
    aligned = {"": {" b": 1}, " b": {" c": 1}, " b c": {" x": 1}, " b c x": {" y": 1}}
    pair = ScriptedPair(base, aligned, vocabulary=[" y"])
    params = {"gamma": 0, "temperature": 0, "seed": 0} | settings
    with local_decoder(pair, lookahead=lookahead) as decoder:
        (completion,) = decoder.generate("Go.", **params)
    return [step.text for step in completion.steps if step.text], decoder


def test_what_was_guessed_wrong_is_decided_again() -> None:
    words, decoder = scripted(3)
    assert "".join(words) == "b c x y"
    # " b" comes with the prompt. Guessed " c" and " d", of which " c" is right; then " d" for " y".
    assert (decoder.metrics.iterations, decoder.metrics.accepted) == (4, 1)
    # The end is not drafted, as nothing comes behind it.
    assert decoder.metrics.forwards == 9


def test_without_drafts_each_iteration_gives_a_token() -> None:
    words, decoder = scripted("off")
    assert "".join(words) == "b c x y"
    assert (decoder.metrics.iterations, decoder.metrics.drafted) == (5, 0)


@pytest.mark.parametrize("limit", [50, 10_000])
def test_nothing_is_read_ahead_beyond_a_neighbours_window(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    window, reached = 60, set()
    forward = ScriptedRunner.forward

    def noting(side: Any, rows: Any, tokens: Any, positions: Any, drafted: Any) -> Any:
        reached.add(max(positions) + len(tokens[0]) + len(drafted))
        return forward(side, rows, tokens, positions, drafted)

    monkeypatch.setattr(ScriptedRunner, "forward", noting)
    sure = {" b": 1.0}
    pair = ScriptedPair(lambda _: sure, lambda _: sure, vocabulary=[" b"], context=window)
    with local_decoder(pair, lookahead=MAX_DRAFT) as decoder:
        params = SamplingParams(max_tokens=limit)
        long, short = decoder.generate_batch(["x" * 50, "x"], params)
    texts = [pair.count_tokens("x" * 50), pair.count_tokens("x")]
    room = [window - length for length in texts]
    assert [len(each[0].steps) for each in (long, short)] == [min(limit, left) for left in room]
    assert max(reached) <= window


class Counting:
    """A router that must be asked once for each token."""

    def __init__(self) -> None:
        self.asked = 0

    def route(self, inputs: RouteInputs) -> Any:
        self.asked += len(inputs.p_max)
        return inputs.p_max < 0.5


def test_a_router_of_ones_own_is_asked_once_for_each_token() -> None:
    router = Counting()
    words, decoder = scripted(3, router=router)
    assert router.asked == decoder.metrics.tokens == len(words) + 1


def test_a_row_that_is_guessed_leaves_others_alone(pair: ModelPair) -> None:
    router = Counting()
    params = [SamplingParams(gamma=0.6, seed=1), SamplingParams(router=router, seed=1)]
    alone = []
    for lookahead in ("off", 3):
        router.asked = 0
        with Decoder(pair, lookahead=lookahead) as decoder:  # type: ignore[arg-type]
            both = decoder.generate_batch([PROMPTS[0]] * 2, params)
        assert router.asked == len(both[1][0].steps)
        alone.append([completions[0].text for completions in both])
    assert alone[0] == alone[1]


def test_a_closed_stream_frees_its_row_at_once(pair: ModelPair) -> None:
    with Decoder(pair, lookahead=3) as decoder:
        stream = decoder.stream(PROMPTS[2], gamma=0.6, seed=1)
        next(stream)
        before = decoder.metrics.iterations
        stream.close()
        assert decoder.metrics.iterations <= before + 2
        assert decoder.generate(PROMPTS[0], seed=1)[0].text


@pytest.mark.parametrize("lookahead", [-1, 1.5, True, "on", 65])
def test_bad_lookahead(pair: ModelPair, lookahead: Any) -> None:
    with pytest.raises(ParameterError, match="lookahead"):
        Decoder(pair, lookahead=lookahead)


def test_the_estimate_follows_what_was_accepted() -> None:
    acceptance = AcceptanceEstimate()
    assert acceptance.chance(0.5) == 0.5
    for _ in range(20):
        acceptance.learn(acceptance.chance(0.9), False)
    assert acceptance.chance(0.9) < 0.4
    for _ in range(100):
        acceptance.learn(acceptance.chance(0.9), True)
    assert acceptance.chance(0.9) > 0.8


@pytest.mark.parametrize(
    ("chances", "context", "row_cost", "expected"),
    [
        ([0.6], 0, 0.0, True),
        ([0.4], 0, 0.0, False),  # half an iteration for less than half a token
        ([1.0, 0.1], 0, 0.0, True),
        ([0.6] * 32, 0, 0.08, False),  # as many rows again cost nearly as much again
        ([0.9] * 32, 0, 0.08, True),
        ([0.6], 20_000, 0.0, False),  # as do as many keys
        ([0.9], 20_000, 0.0, True),
    ],
)
def test_when_a_draft_is_worthwhile(
    chances: list[float], context: int, row_cost: float, expected: bool
) -> None:
    costs = Costs(row_cost, 5e-5)
    assert is_worthwhile(chances, [context] * len(chances), costs) is expected


def test_the_more_rows_the_longer_the_pause_after_drafts_in_vain() -> None:
    one, many = AcceptanceEstimate(), AcceptanceEstimate()
    for _ in range(3):
        one.tried(False, 1)
        many.tried(False, 16)
    assert (one.pause, many.pause) == (0, 32)
    many.tried(True, 16)
    assert many.pause == 0
