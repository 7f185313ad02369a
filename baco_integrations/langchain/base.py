"""What the chat model and the plain LLM have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ClassVar, Literal

from langchain_core.language_models import LangSmithParams
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_executor_for_config, patch_config
from pydantic import Field, SecretStr

from ..adapters.base import Adapter
from ..api.data import provenance, summary, text_sources, token_usage
from ..core.errors import ParameterError
from ..core.outputs import Completion, TokenStep
from ..core.params import SamplingParams
from ..core.settings import Integer
from ..core.tool_calls import CallPiece
from .batches import NumberedBatches, place_of, seed_at
from .messages import conversation_of
from .tools import contradiction, tool_of

Stop = list[str] | None
"""Strings at which a call's text ends; None for those of the model."""


class LangChainAdapter(NumberedBatches, Adapter):
    """Batches, streaming, token counting, tracing and serialization for LangChain."""

    n: Integer | None = Field(None, description="Number of samples of each call; 1 by default.")
    logprobs: bool | None = Field(
        None, description="Whether answers say where each token came from, in their metadata."
    )

    # Core hands the `stream` that its own methods were called with on to the model.
    only_in_calls: ClassVar[tuple[str, ...]] = ("logprobs", "stream")
    model_type: ClassVar[Literal["chat", "llm"]]

    def __init__(self, **values: Any) -> None:
        check_logprobs(values.get("logprobs"))
        super().__init__(**values)

    def request_params(self, call: Mapping[str, Any]) -> SamplingParams:
        """Return the settings of one call, over the model's own."""
        check_logprobs(call.get("logprobs"))
        return super().request_params(call)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Answer one input, without blocking the event loop."""
        own = self.seeded(place_of(config), kwargs)
        return await super().ainvoke(input, config, **own)  # type: ignore[misc]

    def seeded(self, place: int, call: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's settings with the seed of its place in a batch, if there is a seed."""
        seed = self.seed if call.get("seed") is None else call["seed"]
        if not place or seed is None:
            return dict(call)
        self.request_params({"seed": seed})  # refuses what is no seed before one is derived
        return {**call, "seed": seed_at(seed, place)}

    def in_threads(self, rows: list[RunnableConfig]) -> list[RunnableConfig]:
        """Let as many threads run as the decoder has rows, where the caller set no number."""
        most = self.decoder.max_rows if rows else 1
        return [
            patch_config(each, max_concurrency=each.get("max_concurrency") or most) for each in rows
        ]

    def has_seed(self, call: Mapping[str, Any]) -> bool:
        """Tell whether a call repeats a result, rather than draw a fresh one."""
        return self.seed is not None or call.get("seed") is not None

    def rows_of(
        self, inputs: Sequence[Any], call: Mapping[str, Any]
    ) -> list[tuple[list[Any], dict[str, Any]]]:
        """Split a call of several inputs into calls of one, with the seeds of their places."""
        run_id = call.get("run_id")
        ids = zip_longest(inputs, run_id if isinstance(run_id, list) else [run_id])
        return [
            ([each], {**self.seeded(place, call), "run_id": its_id})
            for place, (each, its_id) in enumerate(ids)
        ]

    def generate_rows(
        self, generate: Callable[..., LLMResult], rows: Iterable[tuple[list[Any], dict[str, Any]]]
    ) -> LLMResult:
        """Call a function with each of `rows_of`, in threads, and join the results."""
        with get_executor_for_config(*self.in_threads([{}])) as executor:
            return self.joined(list(executor.map(lambda row: generate(row[0], **row[1]), rows)))

    def joined(self, results: Sequence[LLMResult]) -> LLMResult:
        """Join the results of several inputs into one."""
        return LLMResult(
            generations=[each for result in results for each in result.generations],
            llm_output=self._combine_llm_outputs([result.llm_output for result in results]),
            run=[info for result in results for info in result.run or []],
        )

    def _stream(
        self, prompt: Any, stop: Stop = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[Any]:
        params = self.request_params({**kwargs, "stop": stop}).replace(n=1)
        with self.decoder.stream(conversation_of(prompt), params) as stream:
            for step in stream:
                chunk = self.token_chunk(step, kwargs)
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        chunk = self.last_chunk(stream.completions[0])
        if run_manager:
            run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    async def _astream(
        self, prompt: Any, stop: Stop = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        params = self.request_params({**kwargs, "stop": stop}).replace(n=1)
        decoder = await self.adecoder()
        async with decoder.astream(conversation_of(prompt), params) as stream:
            async for step in stream:
                chunk = self.token_chunk(step, kwargs)
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        chunk = self.last_chunk(stream.completions[0])
        if run_manager:
            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    def token_chunk(self, step: TokenStep, call: Mapping[str, Any]) -> Any:
        """Return the piece of a stream that a token releases."""
        info = {"logprobs": [provenance(step)]} if self.has_logprobs(call) else {}
        return self.chunk(step.text, info, step.calls)

    def last_chunk(self, completion: Completion) -> Any:
        """Return the last piece of a stream, with a `contradiction` for each invalid call."""
        spoilt = [
            CallPiece(index, None, None, contradiction(call.arguments))
            for index, call in enumerate(completion.tool_calls)
            if call.error is not None
        ]
        return self.chunk("", self.info(completion), spoilt, completion)

    def has_logprobs(self, call: Mapping[str, Any]) -> bool:
        """Tell whether an answer says where its tokens came from."""
        asked = call.get("logprobs")
        return bool(self.logprobs if asked is None else asked)

    def info(self, completion: Completion, call: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return how a completion came about; with its tokens, if there is a call that asks."""
        info = {"model_name": self.model_name, "model_provider": "baco", **summary(completion)}
        info["sources"] = text_sources(completion)
        if call is not None and self.has_logprobs(call):
            info["logprobs"] = [provenance(step) for step in completion.steps]
        return info

    def llm_output(self, samples: Sequence[Completion]) -> dict[str, Any]:
        """Return a request's numbers of tokens, as in `token_usage`, and the model's name."""
        return {"token_usage": token_usage(samples), "model_name": self.model_name}

    def _combine_llm_outputs(self, _llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        total = Counter(token_usage([]))
        for output in _llm_outputs:
            total.update((output or {}).get("token_usage", {}))
        return {"token_usage": dict(total), "model_name": self.model_name}

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, in the aligned model's vocabulary."""
        count: Callable[[str], list[int]] = self.custom_get_token_ids or self.decoder.pair.encode
        return count(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return how many tokens the aligned model is fed, its chat template included."""
        if not messages:
            return 0
        offered = {"tools": [tool_of(tool) for tool in tools]} if tools else {}
        pair = self.decoder.pair
        return len(pair.render_aligned(conversation_of(messages), tokenize=True, **offered))

    @property
    def _llm_type(self) -> str:
        return f"baco-{self.model_type}"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**self.identity(self.request_params({})), "logprobs": bool(self.logprobs)}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider="baco",
            ls_model_type=self.model_type,
            ls_model_name=kwargs.get("model") or self.model_name,
        )
        for name in ("temperature", "max_tokens"):  # not checked: core asks before the model does
            default = SamplingParams.model_fields[name].default
            given = (kwargs.get(name), getattr(self, name), default)
            params[f"ls_{name}"] = next(each for each in given if each is not None)  # type: ignore[literal-required]
        if stops := stop or self.stop:
            params["ls_stop"] = [stops] if isinstance(stops, str) else list(stops)
        return params

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True: an adapter holds settings only."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Return where the class is imported from."""
        return ["baco_integrations", "langchain"]

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The keys of hub and server, which are not written out."""
        key = "HF_TOKEN" if self.base_url is None else "BACO_API_KEY"
        secrets = {"token": "HF_TOKEN", "api_key": key}
        return {n: env for n, env in secrets.items() if isinstance(getattr(self, n), SecretStr)}


def check_logprobs(logprobs: object) -> None:
    """Refuse a value of ``logprobs`` that is no truth value, such as a number of tokens."""
    if not isinstance(logprobs, bool | None):
        remedy = "With alternatives=3, each token comes with the three likeliest of either side."
        raise ParameterError("logprobs", "True or False", logprobs, remedy)
