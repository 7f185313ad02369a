"""Answers of a server as the objects that a decoder of this process gives: the way back.

What is not in the form of `api.responses` raises a KeyError, TypeError, ValueError or
AttributeError; who reads says what that means.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..core import errors
from ..core.errors import BacoError, ParameterError, Shown
from ..core.outputs import Alternative, Completion, TokenStep, Usage
from ..core.tool_calls import CallPiece, ToolCall
from .responses import Json

_OF_STATUS = {
    429: errors.QueueFullError,
    503: errors.DecoderClosedError,
    504: errors.DeadlineError,
}
"""What an error is that does not tell its class, such as one of a proxy in front of the server."""


class ServedModel(NamedTuple):
    """A pair that a server serves.

    Attributes:
        name: What requests call it.
        context: Context windows of base and aligned, in tokens; None until the server knows them.
    """

    name: str
    context: tuple[int, int] | None


def read_models(data: Json) -> list[ServedModel]:
    """Return the pairs of ``/v1/models``."""
    served = []
    for each in data["data"]:
        context = each["baco"]["context"]
        windows = None if context is None else (int(context[0]), int(context[1]))
        served.append(ServedModel(str(each["id"]), windows))
    return served


def read_step(told: Json, sample: int) -> TokenStep:
    """Return a token of the sample of that number, of which an answer tells this as ``baco``."""
    known: Json = dict.fromkeys(("p_base", "p_aligned", "p_max", "entropy"), math.nan)
    known |= {name: told[name] for name in TokenStep._fields if name in told}
    if "alternatives" in known:
        known["alternatives"] = {
            side: tuple(Alternative(**each) for each in offered)
            for side, offered in known["alternatives"].items()
        }
    known["calls"] = tuple(CallPiece(**piece) for piece in known.get("calls", ()))
    return TokenStep(**{**known, "sample": sample})


def read_calls(written: list[Json], info: Json) -> tuple[ToolCall, ...]:
    """Return the calls of an answer, those that are not valid with their errors."""
    wrong = {each["index"]: each["error"] for each in info.get("invalid_tool_calls", ())}
    return tuple(
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"], wrong.get(at))
        for at, call in enumerate(written)
    )


def read_choice(choice: Json) -> Completion:
    """Return a whole choice that was asked for with its tokens."""
    sample = SampleReader(choice["index"])
    sample.read(choice)
    return sample.completion(choice["finish_reason"], choice["baco"])


class SampleReader:
    """Puts the pieces of one choice together, of a chat or of a text that goes on.

    Args:
        index: Which of the request's samples it is.

    Attributes:
        steps: The tokens so far.
        text: The pieces of text so far.
        calls: The calls so far, in OpenAI's form.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.steps: list[TokenStep] = []
        self.text: list[str] = []
        self.calls: list[Json] = []

    def read(self, choice: Json) -> list[TokenStep]:
        """Take a piece and return its tokens."""
        logprobs = choice["logprobs"] or {"baco": ()}
        chat = "content" in logprobs
        told = [token["baco"] for token in logprobs["content"]] if chat else logprobs["baco"]
        steps = [read_step(each, self.index) for each in told]
        said = choice.get("delta") or choice.get("message") or {}
        self.steps += steps
        self.text.append(choice.get("text") or said.get("content") or "")
        for piece in said.get("tool_calls") or ():
            function, place = piece["function"], piece.get("index", len(self.calls))
            if place == len(self.calls):
                named = {"name": function["name"], "arguments": ""}
                self.calls.append({"id": piece["id"], "function": named})
            self.calls[place]["function"]["arguments"] += function["arguments"]
        return steps

    def completion(self, finish_reason: Any, info: Json) -> Completion:
        """Return the whole sample, given how it came about.

        Args:
            finish_reason: Why it ended.
            info: What the last piece tells as ``baco``.
        """
        usage = Usage(**{name: info[name] for name in Usage._fields})
        return Completion(
            text="".join(self.text),
            steps=tuple(self.steps),
            finish_reason=finish_reason,
            usage=usage,
            seed=info["seed"],
            sample=self.index,
            router=info["router"],
            gamma=info["gamma"],
            tool_calls=read_calls(self.calls, info),
            approximate=bool(info.get("approximate")),
        )


def read_error(status: int, data: Any) -> BacoError | None:
    """Return the error that an error object of a server stands for; None if it is no such object.

    Args:
        status: The HTTP status, or 500 where the error came in a stream.
        data: The JSON data.
    """
    body = data.get("error") if isinstance(data, Mapping) else None
    if not isinstance(body, Mapping) or not isinstance(body.get("message"), str):
        return None
    told: Mapping[str, Any] = defaultdict(str, body.get("baco") or {})
    named = getattr(errors, str(told["error"]), None)
    ours = isinstance(named, type) and issubclass(named, BacoError)
    kind: Any = named if ours else _OF_STATUS.get(status, errors.ServerError)
    error: BacoError
    if issubclass(kind, ParameterError):
        received = Shown(told["received"])
        error = kind(told["parameter"], told["allowed"], received, told["remedy"])
    elif issubclass(kind, errors.MissingExtraError):  # of the server, whatever is installed here
        error = errors.ServerError(body["message"])
    else:
        error = kind(body["message"])
    return error
