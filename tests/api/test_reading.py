"""What is written for the wire is read again as what it was."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from baco_integrations.api.errors import ApiError, error_answer, status_of
from baco_integrations.api.reading import SampleReader, read_choice, read_error, read_models
from baco_integrations.api.responses import (
    chat_choice,
    chat_delta,
    chat_end,
    text_choice,
    text_logprobs,
    token_of,
)
from baco_integrations.core import errors
from baco_integrations.core.errors import BacoError, ParameterError, ServerError
from baco_integrations.core.outputs import Alternative, Completion, TokenStep, Usage
from baco_integrations.core.tool_calls import CallPiece, ToolCall

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BacoError)
]


def step(text: str, *calls: CallPiece, **more: Any) -> TokenStep:
    numbers = {"p_base": 1 / 3, "p_aligned": 1e-300, "p_sampled": 0.1, "p_max": 0.7, "entropy": 2.5}
    return TokenStep(
        **{"token_id": 7, "text": text, "source": "base", "switched": True, "sample": 1},
        **numbers,
        calls=calls,
        **more,
    )


OFFERED = {
    "base": (Alternative(1, "a", 0.5), Alternative(2, "\ufffd", 0.25)),
    "aligned": (),
    "sampled": (Alternative(7, "b", 1.0),),
}
STEPS = (
    step("It\u2028", alternatives=OFFERED),
    step("", CallPiece(0, "id0", "pick", '{"a')),
    step("", CallPiece(0, None, None, '": 1}'), CallPiece(1, "id1", "", "{")),
    step(""),
)
CALLS = (ToolCall("id0", "pick", '{"a": 1}', None), ToolCall("id1", "", "{", "The text ends."))
WHOLE = Completion("It\u2028", STEPS, "tool_calls", Usage(5, 4, 4), 2**63, 1, "h", 0.3, CALLS)
PLAIN = Completion("It\u2028", STEPS[::3], "length", Usage(5, 4, 2), 0, 1, "punc", None)


def sent(data: Any) -> Any:
    return json.loads(json.dumps(data))


def tokens(steps: tuple[TokenStep, ...]) -> Any:
    return [token_of(each, lambda token: b"b", 2) for each in steps]


@pytest.mark.parametrize("completion", [WHOLE, PLAIN], ids=["calls", "plain"])
def test_whole_answers_and_streams(completion: Completion) -> None:
    assert read_choice(sent(chat_choice(completion, tokens(completion.steps)))) == completion
    reader = SampleReader(1)
    for each in completion.steps:
        assert reader.read(sent(chat_delta(1, each, tokens((each,))))) == [each]
    end = sent(chat_end(1, completion))
    assert reader.read(end) == []
    assert reader.completion(end["finish_reason"], end["baco"]) == completion


def test_texts_that_go_on() -> None:
    assert read_choice(sent(text_choice(1, "", PLAIN, tokens(PLAIN.steps)))) == PLAIN
    reader = SampleReader(1)
    for each in PLAIN.steps:
        piece = {"index": 1, "text": each.text, "finish_reason": None}
        assert reader.read(sent({**piece, "logprobs": text_logprobs(tokens((each,)))})) == [each]
    assert reader.completion("length", sent(chat_end(1, PLAIN))["baco"]) == PLAIN


def test_of_tokens_with_one_text_the_most_probable_is_told() -> None:
    offered = tuple(Alternative(token, "\ufffd", 1 / (token + 2)) for token in range(2))
    listed = text_logprobs(tokens((step("", alternatives={"sampled": offered}),)))["top_logprobs"]
    assert listed == [{"b": pytest.approx(math.log(0.5))}]


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_errors(kind: type[BacoError]) -> None:
    if issubclass(kind, ParameterError):
        error: BacoError = kind("gamma", "a number", ["x" * 100], "Give one.")
    elif kind is errors.MissingExtraError:
        error = kind("It", "eval")
    else:
        error = kind("Something went wrong. Do something.")
    again = read_error(status_of(error), sent(error_answer(error)))
    assert str(again) == str(error)
    # What the server lacks cannot be installed here.
    assert type(again) is (ServerError if kind is errors.MissingExtraError else kind)
    if isinstance(error, ParameterError) and isinstance(again, ParameterError):
        assert (again.parameter, again.allowed, again.remedy) == ("gamma", "a number", "Give one.")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, errors.QueueFullError),
        (503, errors.DecoderClosedError),
        (504, errors.DeadlineError),
        (500, ServerError),
        (413, ServerError),
    ],
)
def test_errors_of_the_protocol(status: int, kind: type[BacoError]) -> None:
    error = ApiError(status, "code", "No.")
    again = read_error(status, sent(error_answer(error)))
    assert type(again) is kind and str(again) == "No."
    told = {"error": {"message": "No.", "baco": {"error": "annotations"}}}
    assert type(read_error(status, told)) is kind  # a name that is no error's


@pytest.mark.parametrize("data", [None, [], {}, {"error": "no"}, {"error": {"message": 1}}])
def test_what_is_no_error(data: Any) -> None:
    assert read_error(500, data) is None


def test_models() -> None:
    told = [
        {"id": "a", "baco": {"context": None, "more": 1}},
        {"id": "b", "baco": {"context": [8, 9]}},
    ]
    assert read_models({"data": told}) == [("a", None), ("b", (8, 9))]
    with pytest.raises(KeyError):
        read_models({"data": [{"id": "gpt"}]})
