"""What a request to vLLM asks of BACo, checked where vLLM admits it.

Settings of the step come as extra arguments (over HTTP: ``vllm_xargs``) under the names that they
have in `SamplingParams`; temperature, top-k, top-p, min-p and seed also as vLLM's own. The tokens
are drawn in the fused model, so vLLM's sampler is told to take the most probable one. What would
change logits behind the model is refused.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

from ...core.errors import ParameterError, nearest
from ...core.params import SamplingParams
from ...policy.params import ALIGNED, BASE
from . import ARCHITECTURE

SAMPLING = ("temperature", "top_k", "top_p", "min_p")
SETTINGS = (
    *("gamma", "threshold", "router", "signal_model", "first", "boundary", "line_breaks"),
    *(*SAMPLING, "base", "aligned", "seed"),
)
"""The settings of `SamplingParams` that the step knows here."""
INDEX, BASE_PROMPT = "index", "base_prompt_ids"
"""More extra arguments: which of a request's samples this is; base's prompt, if it has its own."""
REFUSED = {
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_tokens": 0,
    "logit_bias": None,
    "allowed_token_ids": None,
    "bad_words": None,
    "structured_outputs": None,
    "prompt_logprobs": None,
    "logprob_token_ids": None,
    "thinking_token_budget": None,
    "trace_decode_token_ids": None,
}
"""What vLLM would do to the logits behind the step, or ask of the model beside it; and the values
with which it does not."""
KEY = "baco"
"""Where an admitted request's extra arguments hold its `Row`."""


class Row(NamedTuple):
    """What a worker has to know of a request, as plain data.

    Attributes:
        settings: Settings of `SamplingParams`, checked.
        sample: Which of the samples under its seed it is.
        side: The side that has a prompt of its own, which is no longer than the scheduled one.
        prompt: That prompt.
        scheduled: Number of tokens of the prompt that vLLM schedules.
    """

    settings: dict[str, Any]
    sample: int = 0
    side: int | None = None
    prompt: tuple[int, ...] = ()
    scheduled: int = 0

    @property
    def offset(self) -> int:
        """How many positions that side is behind the other."""
        return 0 if self.side is None else self.scheduled - len(self.prompt)


def install() -> None:
    """Let vLLM's admission pass on requests to fused models, in this process."""
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.input_processor import InputProcessor

    admit_plain = InputProcessor.process_inputs
    if getattr(admit_plain, "admits_baco", False):
        return

    def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = admit_plain(self, *args, **kwargs)
        if ARCHITECTURE in self.model_config.architectures:
            try:
                admit(request, self.model_config.max_model_len)
            except ParameterError as error:
                raise VLLMValidationError(str(error), parameter=error.parameter) from error
        return request

    process_inputs.admits_baco = True  # type: ignore[attr-defined]
    InputProcessor.process_inputs = process_inputs


def admit(request: Any, window: int) -> None:
    """Make a request of vLLM's one to the fused model.

    Args:
        request: An ``EngineCoreRequest``, whose parameters are its own. They are changed.
        window: The longest sequence that vLLM takes.

    Raises:
        ParameterError: It asks for what cannot be done here.
    """
    params = request.sampling_params
    refuse_changed_logits(request)
    given = dict(params.extra_args or {})
    index, base_prompt = given.pop(INDEX, 0), given.pop(BASE_PROMPT, None)
    own = {name: getattr(params, name) for name in SAMPLING}
    own |= {"top_k": max(params.top_k, 0), "seed": params.seed}
    settings = checked_settings(own | given)
    scheduled = tuple(request.prompt_token_ids)
    row = Row(settings, index, scheduled=len(scheduled))
    if base_prompt is not None and tuple(base_prompt) != scheduled:
        prompts = own_prompt(base_prompt, window), scheduled
        side = BASE if len(prompts[BASE]) <= len(scheduled) else ALIGNED
        longer = prompts[1 - side]
        row = Row(settings, index, side, prompts[side], len(longer))
        request.prompt_token_ids = list(longer)
        # The other side's keys lie at other places than the tokens say: nobody may share them.
        request.cache_salt = uuid4().hex
    # vLLM counts the seed up for each of several samples.
    params.seed = settings.get("seed")
    if params.seed is None:
        params.seed = secrets.randbits(53)
    params.temperature, params.top_p, params.top_k, params.min_p = 0.0, 1.0, 0, 0.0
    params.extra_args = {KEY: list(row)}


def refuse_changed_logits(request: Any) -> None:
    """Refuse what would change logits behind the step.

    Raises:
        ParameterError: The request asks for it.
    """
    if request.sampling_params is None or request.prompt_token_ids is None:
        remedy = "Only texts can be decoded with a pair."
        raise ParameterError("prompt", "text or token ids, to be continued", "another", remedy)
    for name, neutral in REFUSED.items():
        value = getattr(request.sampling_params, name)
        if value != neutral and value not in ([], {}):
            raise ParameterError(
                name,
                f"{neutral} with this model, whose tokens are drawn from two models",
                value,
                "Leave it out, or decode with the pair loaded by transformers.",
            )


def checked_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as plain data, once they are known to be right.

    Raises:
        ParameterError: A setting is unknown, not to be had here, or has a wrong value.
    """
    settings = {name: value for name, value in given.items() if value is not None}
    for name, value in settings.items():
        if name not in SETTINGS:
            raise ParameterError(
                name,
                f"one of {', '.join((*SETTINGS, INDEX, BASE_PROMPT))}",
                value,
                f"{nearest(name, SETTINGS)}Other settings are vLLM's own fields.",
            )
        if name in ("base", "aligned") and isinstance(value, str):
            settings[name] = parsed(name, value)
        elif name == "boundary" and value in (0, 1):  # vLLM's extra arguments know no truth values
            settings[name] = bool(value)
    return SamplingParams(**settings).model_dump(include=set(settings), exclude_none=True)


def parsed(name: str, text: str) -> Any:
    """Read the sampling settings of one side, which HTTP brings as JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        remedy = """For example '{"temperature": 0.7}'."""
        raise ParameterError(name, "a dict of settings, or one as JSON", text, remedy) from error


def own_prompt(ids: Any, window: int) -> tuple[int, ...]:
    """Return base's own prompt, checked.

    Raises:
        ParameterError: It is no list of token ids, or does not fit into the window.
    """
    whole = isinstance(ids, list | tuple) and all(isinstance(each, int | float) for each in ids)
    prompt = tuple(int(each) for each in ids) if whole else ()
    if not prompt or len(prompt) >= window:
        allowed = f"a list of token ids, shorter than the window of {window}"
        remedy = "Leave it out where both sides read the same prompt."
        raise ParameterError(BASE_PROMPT, allowed, f"{len(prompt)} tokens", remedy)
    return prompt


def row_of(params: Any) -> Row | None:
    """Return what an admitted request's parameters say; None of other requests."""
    found = (params.extra_args or {}).get(KEY)
    return None if found is None else Row(*found)
