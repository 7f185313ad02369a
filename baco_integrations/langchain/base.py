"""What the chat model and the plain LLM have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import patch_config
from pydantic import Field, SecretStr

from ..adapters.base import Adapter, provenance, summary
from ..core.errors import ParameterError
from ..core.messages import Messages
from ..core.outputs import Completion, TokenStep
from ..core.params import SamplingParams
from ..core.settings import Integer
from ..core.tool_calls import CallPiece
from .batches import NumberedBatches, place_of, seed_at
from .messages import conversation_of
from .tools import contradiction, tool_of


class LangChainAdapter(NumberedBatches, Adapter):
    """Batches, streaming, token counting, tracing and serialization for LangChain."""

    n: Integer | None = None
    logprobs: bool | None = None
    # What hosted models take: `api_key` stands in for `token`, and there is nothing to retry in a
    # process of one's own.
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    max_retries: Integer | None = None

    # Core hands the `stream` that its own methods were called with on to the model.
    _besides: ClassVar[tuple[str, ...]] = ("logprobs", "stream")
    _model_type: ClassVar[Literal["chat", "llm"]]

    if TYPE_CHECKING:
        custom_get_token_ids: Callable[[str], list[int]] | None = None

        def _conversation(self, prompt: Any) -> Messages:
            """Return what is to be decoded."""

        def _chunk(
            self,
            text: str,
            info: dict[str, Any],
            last: Completion | None = None,
            calls: Sequence[CallPiece] = (),
        ) -> Any:
            """Return a piece of output; the last piece comes with the completion."""

    def __init__(self, **values: Any) -> None:
        key = values.get("api_key")
        if not isinstance(key, str | SecretStr | None):  # pydantic would show it
            raise ParameterError("api_key", "a string", type(key), "It stands in for token.")
        named = values.get("pair") is None or isinstance(values.get("pair"), str)
        if named and key is not None and values.get("token") is None:
            values["token"] = key
        _check_switch(values.get("logprobs"))
        super().__init__(**values)

    # -- decoding ----------------------------------------------------------------------------

    def invoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer one input."""
        seeded = self._seeded_at(place_of(config), kwargs)
        return super().invoke(input, config, stop=stop, **seeded)  # type: ignore[misc]

    async def ainvoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer one input, without blocking the event loop."""
        seeded = self._seeded_at(place_of(config), kwargs)
        return await super().ainvoke(input, config, stop=stop, **seeded)  # type: ignore[misc]

    def _seed(self, call: Mapping[str, Any]) -> int | None:
        """Return the seed of a call, None where each request draws a fresh one."""
        seed: int | None = call.get("seed")
        return self.seed if seed is None else seed

    def _seeded_at(self, place: int, call: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's settings with the seed of its place in a batch."""
        seed = self._seed(call)
        if not place or seed is None:
            return dict(call)
        self._sampling({"seed": seed})  # complains of what is no seed before one is derived
        return {**call, "seed": seed_at(seed, place)}

    def _at_once(self, rows: list[RunnableConfig]) -> list[RunnableConfig]:
        """Let as many threads run as the decoder has rows, where the caller set no number."""
        most = self.decoder.max_rows if rows else 1
        return [
            patch_config(each, max_concurrency=each.get("max_concurrency") or most) for each in rows
        ]

    def _stream(
        self,
        prompt: Any,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        params = self._params(stop, kwargs).replace(n=1)  # a stream shows the first sample
        with self.decoder.stream(self._conversation(prompt), params) as stream:
            for step in stream:
                chunk = self._token(step, kwargs)
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        chunk = self._end(stream.completions[0])
        if run_manager:
            run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    async def _astream(
        self,
        prompt: Any,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        params = self._params(stop, kwargs).replace(n=1)
        decoder = await self._adecoder()
        async with decoder.astream(self._conversation(prompt), params) as stream:
            async for step in stream:
                chunk = self._token(step, kwargs)
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        chunk = self._end(stream.completions[0])
        if run_manager:
            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    def _params(self, stop: list[str] | None, call: Mapping[str, Any]) -> SamplingParams:
        _check_switch(call.get("logprobs"))
        return self._sampling({**call, "stop": stop})

    def _tells_tokens(self, call: Mapping[str, Any]) -> bool:
        asked = call.get("logprobs")
        return bool(self.logprobs if asked is None else asked)

    def _token(self, step: TokenStep, call: Mapping[str, Any]) -> Any:
        info = {"logprobs": [provenance(step)]} if self._tells_tokens(call) else {}
        return self._chunk(step.text, info, None, step.calls)

    def _end(self, completion: Completion) -> Any:
        spoilt = [
            CallPiece(index, None, None, contradiction(call.arguments))
            for index, call in enumerate(completion.tool_calls)
            if call.error is not None
        ]
        return self._chunk("", self._info(completion), completion, spoilt)

    def _info(self, completion: Completion) -> dict[str, Any]:
        """Tell how a completion came about."""
        return {"model_name": self.model_name, "model_provider": "baco", **summary(completion)}

    def _whole_info(self, completion: Completion, call: Mapping[str, Any]) -> dict[str, Any]:
        info = self._info(completion)
        if self._tells_tokens(call):
            info["logprobs"] = [provenance(step) for step in completion.steps]
        return info

    def _totals(self, samples: Sequence[Sequence[Completion]]) -> dict[str, Any]:
        """Sum up the tokens of requests; a prompt counts once for all of its samples."""
        prompt = sum(each[0].usage.prompt_tokens for each in samples)
        completion = sum(sample.usage.completion_tokens for each in samples for sample in each)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        return {"token_usage": usage, "model_name": self.model_name}

    def _combine_llm_outputs(self, _llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        totals = self._totals([])
        for output in _llm_outputs:
            for name, count in (output or {}).get("token_usage", {}).items():
                totals["token_usage"][name] += count
        return totals

    def _joined(self, results: Sequence[LLMResult]) -> LLMResult:
        return LLMResult(
            generations=[each for result in results for each in result.generations],
            llm_output=self._combine_llm_outputs([result.llm_output for result in results]),
            run=[info for result in results for info in result.run or []],
        )

    # -- counting ----------------------------------------------------------------------------

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, in the aligned model's vocabulary."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self.decoder.pair.encode(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return how many tokens the aligned model is fed, its chat template included."""
        if not messages:
            return 0
        offered = {"tools": [tool_of(tool) for tool in tools]} if tools else {}
        pair = self.decoder.pair
        return len(pair.render_aligned(conversation_of(messages), tokenize=True, **offered))

    # -- tracing and serialization -----------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return f"baco-{self._model_type}"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**self._identity(self._sampling({})), "logprobs": bool(self.logprobs)}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        def told(name: str) -> Any:  # core asks at every call, so not by way of `_sampling`
            known = (
                kwargs.get(name),
                getattr(self, name),
                SamplingParams.model_fields[name].default,
            )
            return next(value for value in known if value is not None)

        params = LangSmithParams(
            ls_provider="baco",
            ls_model_type=self._model_type,
            ls_model_name=kwargs.get("model") or self.model_name,
            ls_temperature=told("temperature"),
            ls_max_tokens=told("max_tokens"),
        )
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
        """The hub token, which is not written out."""
        secrets = {"token": "HF_TOKEN", "api_key": "HF_TOKEN"}
        return {n: env for n, env in secrets.items() if isinstance(getattr(self, n), SecretStr)}


def _check_switch(logprobs: object) -> None:
    if not isinstance(logprobs, bool | None):
        remedy = "With alternatives=3, each token comes with the three likeliest of either side."
        raise ParameterError("logprobs", "True or False", logprobs, remedy)
