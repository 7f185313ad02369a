"""A base model and its aligned counterpart as one thing.

Invariants: both sides number text tokens alike; a prompt's text becomes token ids only here; equal
load parameters give one object per process, whose memory is freed with its last user.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import PairError, ParameterError
from ..core.messages import Messages, conversation
from ..core.plain import plain as plain_json
from ..core.plain import require_whole
from ..core.registry import Registry
from ..core.tool_calls import CallFormat
from ..text.compatibility import Compatibility, compare, end_notes, end_tokens
from ..text.encoding import Encoder
from ..text.prompts import BasePrompt, call_format, render_aligned, render_base, stop_strings
from ..text.vocabulary import Vocabulary, read_token_table
from .architecture import context_window, require_decodable
from .check import PairReport, check_pair
from .loading import (
    ModelFiles,
    fetch_weights,
    load_bytes,
    load_config,
    load_model,
    load_tokenizer,
    locate,
    progress_bars,
)
from .memory import measure_bytes, readable, require_memory, target_devices
from .options import SIDES, LoadOptions, plain
from .presets import PRESETS, preset
from .quantization import quantizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..engines.local.cuda_graphs import Mode
    from ..engines.local.runner import ModelRunner
    from .lora.pair import AdapterPair

_TINY = Path(__file__).parents[1] / "tiny" / "weights"
_TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"
_MODELS: Registry[Any] = Registry()
_PAIRS: Registry[ModelPair] = Registry()


class ModelPair:
    """Two loaded models, their tokenizers and their prompts.

    Args:
        base: The base model. Both models are put in evaluation mode, and their gradients off.
        aligned: Its instruction-tuned counterpart.
        base_tokenizer: The base model's tokenizer; it needs no chat template.
        aligned_tokenizer: The aligned model's. Without a chat template it is shown the base prompt.
        name: What to call the pair.
        base_prompt: How the base model is shown a conversation: ``qa``, ``plain``, ``urial``,
            ``chat_template`` or a function of the messages.
        template_kwargs: Variables for the aligned model's chat template.
        identity: What tells this pair from others, as plain data.

    Attributes:
        base: The base model.
        aligned: The aligned model.
        base_tokenizer: The base model's tokenizer.
        aligned_tokenizer: The aligned model's tokenizer.
        name: What the pair is called.
        base_prompt: How the base model is shown a conversation.
        compatibility: What comparing the tokenizers found.
        vocabulary: Classes of every id; control is what is not text on both sides.
        size: Number of ids of the shared id space.
        shared: Ids that are the same text on both sides, of shape ``(size,)``.
        base_size: Ids below it are real tokens of the base model.
        aligned_size: Ids below it are real tokens of the aligned model.
        base_eos: Ids that end the base model's text.
        aligned_eos: Ids that end the aligned model's turn.
        base_stop: Strings with which the base model would open another turn.
        context: Context windows of base and aligned, in tokens.
        call_format: How the aligned model writes tool calls.
        call_markers: Bytes of the control tokens that frame its calls.
        identity: What tells this pair from others, as plain data: for caches' keys.
        notes: Differences between the two that are expected and handled, as sentences.

    Raises:
        PairError: The two cannot be decoded together.
        ParameterError: The base prompt is unknown.

    Example:
        ```python
        pair = ModelPair.tiny()
        pair = ModelPair.from_preset("qwen2.5-0.5b")
        pair = ModelPair.from_pretrained("org/model", "org/model-instruct", dtype="bfloat16")
        ```
    """

    def __init__(
        self,
        base: PreTrainedModel,
        aligned: PreTrainedModel,
        base_tokenizer: PreTrainedTokenizerBase,
        aligned_tokenizer: PreTrainedTokenizerBase,
        *,
        name: str | None = None,
        base_prompt: BasePrompt = "qa",
        template_kwargs: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        variables: Any = {} if template_kwargs is None else template_kwargs
        if isinstance(variables, Mapping):
            variables = dict(variables)
        own = LoadOptions(base_prompt=base_prompt, template_kwargs=variables)
        self.base_prompt = own.base_prompt
        _require_parts(_sides(base, aligned), _sides(base_tokenizer, aligned_tokenizer))
        if not isinstance(name, str | None):
            raise ParameterError("name", "a string", name, "Leave it out for the models' names.")
        models: list[tuple[str, Any]] = _sides(base, aligned)
        names = [str(model.config.name_or_path or side) for side, model in models]
        for called, (_, model) in zip(names, models, strict=True):
            require_decodable(called, model.config)
            model.eval().requires_grad_(False)
        self.base, self.aligned = base, aligned
        self.base_tokenizer, self.aligned_tokenizer = base_tokenizer, aligned_tokenizer
        for tokenizer in (base_tokenizer, aligned_tokenizer):
            # A prompt that is too long gets an error of ours: the tokenizer need not warn.
            tokenizer.deprecation_warnings[_TOO_LONG] = True
        self.name = name or "|".join(names)
        self._template_kwargs = plain_json(own.template_kwargs, "template_kwargs", ParameterError)

        self.compatibility = compare(base_tokenizer, aligned_tokenizer)
        self.compatibility.require()
        self.size, self.shared = self.compatibility.size, self.compatibility.shared
        self.vocabulary = _joint_vocabulary(base_tokenizer, aligned_tokenizer, self.compatibility)
        self.base_size = min(self.compatibility.base_size, _rows(base))
        self.aligned_size = min(self.compatibility.aligned_size, _rows(aligned))
        ends = (
            (base_tokenizer, base.generation_config, base.config),
            (aligned_tokenizer, aligned.generation_config, aligned.config),
        )
        self.base_eos, self.aligned_eos = (end_tokens(*each) for each in ends)
        self.base_stop = stop_strings(self.base_prompt)
        base_window, aligned_window = (context_window(each[2], each[0]) for each in ends)
        self.context = (base_window, aligned_window)
        template = _chat_template(aligned_tokenizer)
        self.call_format = call_format(template)
        self.call_markers = _call_markers(aligned_tokenizer, self.call_format)
        self.notes = (
            *self.compatibility.notes,
            *(
                note
                for side, each in zip(SIDES, ends, strict=True)
                for note in end_notes(side, *each)
            ),
            *self._template_note(),
        )
        by_name = {"base": names[0], "aligned": names[1]}
        self.identity = _plain_identity(by_name if identity is None else identity)
        self.identity |= {"base_prompt": _prompt_name(self.base_prompt)}
        self.identity |= {"template_kwargs": self._template_kwargs}
        self._encoders = _encoders(base_tokenizer, aligned_tokenizer)

    @classmethod
    def from_pretrained(cls, base: str | Path, aligned: str | Path, **options: Any) -> ModelPair:
        """Load a pair from folders or the Hugging Face hub; ask twice, get the same object.

        Only safetensors are read. Tokenizers, architectures and memory are checked before weights
        are fetched.

        Args:
            base: The base model's folder or id.
            aligned: The aligned model's folder or id.
            options: Settings of `LoadOptions`, such as ``dtype`` or ``device_map``.

        Raises:
            ParameterError: A setting is not allowed.
            ModelNotFoundError: A model's files are missing or out of reach.
            UnsafeWeightsError: A model has only pickled weights, or code of its own.
            VocabularyMismatchError: The two text vocabularies differ.
            NotEnoughMemoryError: The pair does not fit.
            MissingExtraError: A quantisation's library is not installed.
            PairError: Anything else that keeps the two from being a pair.
        """
        checked = LoadOptions(**options)
        for side in SIDES:
            target_devices(checked.of(side).placement)
        sources = (
            locate(base, "base", checked),
            locate(aligned, "aligned", checked),
        )
        key = (cls, *((source.folder, source.revision) for source in sources), checked.pair_key())
        return _PAIRS.get(key, lambda: cls._load(sources, checked))

    @staticmethod
    def from_adapter(
        model: str | Path,
        adapter: str | Path,
        *,
        exact: Literal["base", "aligned"] | None = None,
        **options: Any,
    ) -> AdapterPair:
        """Load one model and a LoRA adapter as a pair: half the memory, one forward for both.

        The side with the adapter on has the tokenizer, chat template and generation settings of
        the adapter's folder; what is not there, it has from the model.

        Args:
            model: The folder or id of the side that is exact.
            adapter: The folder or id of a PEFT LoRA adapter.
            exact: Which side `model` is. Of ``base``, the model with the adapter on is aligned: an
                ordinary fine-tune. Of ``aligned``, the model with the adapter on stands for base,
                as `baco extract` writes it. Left out, what an extracted adapter says of itself,
                else ``base``.
            options: Settings of `LoadOptions`. ``base_revision`` and ``aligned_revision`` are
                those of the folders that the two sides come from.

        Raises:
            PairError: As in `from_pretrained`; or the adapter is not of this model, or of a kind
                that cannot be switched by row.
            ParameterError: A setting is not allowed, or `exact` is not what the adapter says.
            MissingExtraError: PEFT is not installed.
        """
        from .lora.pair import AdapterPair

        return AdapterPair.load(model, adapter, exact, LoadOptions(**options))

    @classmethod
    def from_preset(cls, name: str, **options: Any) -> ModelPair:
        """Load a pair by its short name, such as ``qwen2.5-7b``; see `PRESETS` for all.

        Args:
            name: The preset.
            options: Settings of `LoadOptions`, which come before the preset's own.

        Raises:
            ParameterError: There is no such preset.
            PairError: As in `from_pretrained`.
        """
        found = preset(name)
        own = {"base_prompt": found.base_prompt, "template_kwargs": found.template_kwargs}
        return cls.from_pretrained(found.base, found.aligned, **(own | options))

    @classmethod
    def tiny(cls, **options: Any) -> ModelPair:
        """Load the small pair that comes with the package: no network, a second, one CPU core."""
        return cls.from_pretrained(
            _TINY / "base", _TINY / "aligned", **({"dtype": "float32"} | options)
        )

    @staticmethod
    def check(base: str | Path, aligned: str | Path, **options: Any) -> PairReport:
        """Tell whether two models make a pair, from tokenizers and configurations alone.

        Raises:
            PairError: The files of one are missing, damaged or out of reach.
        """
        return check_pair(base, aligned, LoadOptions(**options))

    @classmethod
    def _load(cls, sources: tuple[ModelFiles, ModelFiles], options: LoadOptions) -> ModelPair:
        configs = [load_config(source, options) for source in sources]
        for source, config in zip(sources, configs, strict=True):
            require_decodable(source.name, config)
        tokenizers = [load_tokenizer(source, options) for source in sources]
        compare(*tokenizers).require()
        own = [options.of(side) for side in SIDES]
        each = list(zip(sources, configs, own, strict=True))
        quantizers = [quantizer(*one) for one in each]
        keys = [(source.folder, source.revision, o.weights_key()) for source, _, o in each]
        name = _pair_name(sources)
        if options.check_memory:
            needed: Counter[frozenset[str]] = Counter()
            for key, one in dict(zip(keys, each, strict=True)).items():
                devices = target_devices(one[2].placement)
                needed[devices] += 0 if key in _MODELS else load_bytes(*one)
            for devices, size in needed.items():
                require_memory(size, devices, name)
        for source in sources:
            fetch_weights(source, options)
        models = []
        with progress_bars(options) as bar:
            for key, one, quantized in zip(keys, each, quantizers, strict=True):
                load = partial(load_model, *one, quantized, bar(f"Loading {one[0].name}"))
                models.append(_MODELS.get(key, load))
        identity = {
            "base": sources[0].label,
            "aligned": sources[1].label,
            "base_revision": sources[0].revision,
            "aligned_revision": sources[1].revision,
            "dtype": options.dtype,
            "base_quantization": plain(own[0].quantization),
            "aligned_quantization": plain(own[1].quantization),
        }
        return cls(
            *models,
            *tokenizers,
            name=name,
            base_prompt=options.base_prompt,
            template_kwargs=options.template_kwargs,
            identity=identity,
        )

    def render_base(self, messages: Messages, *, tokenize: bool = False) -> str | list[int]:
        """Return what the base model is fed for a conversation, as text or as token ids.

        Raises:
            PromptError: The conversation is malformed.
            ParameterError: `tokenize` is not a bool.
        """
        _require_flag(tokenize)
        if self.base_prompt == "chat_template":
            template = {"chat_template": self._aligned_template()}
            return self._by_template("base", messages, tokenize, template)
        return self._as_text("base", messages, tokenize)

    def render_aligned(
        self,
        messages: Messages,
        *,
        tokenize: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str | list[int]:
        """Return what the aligned model is fed for a conversation, as text or as token ids.

        Args:
            messages: A string, or role/content dicts.
            tokenize: Whether to return token ids.
            tools: Tools to offer, as OpenAI-style dicts.

        Raises:
            PromptError: The conversation is malformed, or the chat template refuses it.
            ParameterError: `tokenize` is not a bool, or `tools` not a list of dicts.
        """
        _require_flag(tokenize)
        if self.aligned_tokenizer.chat_template:
            return self._by_template("aligned", messages, tokenize, {}, _plain_tools(tools))
        return self._as_text("aligned", messages, tokenize)

    def count_tokens(self, messages: Messages) -> int:
        """Return how many tokens the aligned model is fed for a conversation.

        Raises:
            PromptError: As for `render_aligned`.
        """
        return len(self.render_aligned(messages, tokenize=True))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text as the aligned model reads it, without special tokens.

        Raises:
            ParameterError: It is no text, or holds half a character.
        """
        if not isinstance(text, str):
            raise ParameterError("text", "a string", text, "Render conversations instead.")
        return self._encoders["aligned"].meant_ids(require_whole(text, "text", ParameterError))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of decoded tokens, control tokens left out."""
        data = b"".join(self.vocabulary.token_bytes[token_id] for token_id in ids)
        return data.decode(errors="replace")

    def memory_bytes(self) -> int:
        """Return the bytes that the weights take."""
        models: dict[int, Any] = {id(model): model for model in (self.base, self.aligned)}
        return sum(map(measure_bytes, models.values()))

    def open_sides(self, max_rows: int, graphs: Mode = "off") -> tuple[ModelRunner, ModelRunner]:
        """Return base and aligned, ready to decode so many rows at once.

        Args:
            max_rows: Most rows that will run at once.
            graphs: Whether forwards are replayed as CUDA graphs; see `Decoder`.
        """
        from ..engines.local.runner import ModelRunner

        base, aligned = (
            ModelRunner(
                model, self.aligned.device, max_rows=max_rows, max_length=window, graphs=graphs
            )
            for model, window in zip((self.base, self.aligned), self.context, strict=True)
        )
        return base, aligned

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelPair:
        return self  # weights are shared, whoever is copied

    def __repr__(self) -> str:
        where = " and ".join(dict.fromkeys(str(m.device) for m in (self.base, self.aligned)))
        size = f"{readable(self.memory_bytes())} on {where}"
        return f"ModelPair({self.name!r}, base_prompt={_prompt_name(self.base_prompt)!r}, {size})"

    def _by_template(
        self,
        side: str,
        messages: Messages,
        tokenize: bool,
        template: Mapping[str, Any],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str | list[int]:
        rendered: str | list[int] = render_aligned(
            self._encoders[side],
            conversation(messages),
            tokenize=tokenize,
            tools=tools,
            template_kwargs={**self._template_kwargs, **template},
        )
        return rendered

    def _aligned_template(self) -> str:
        """Return the aligned chat template with the aligned special tokens' names written in."""
        names = self.aligned_tokenizer.special_tokens_map.items()
        constants = (f"{{% set {name} = {json.dumps(text)} %}}" for name, text in names)
        return "".join(constants) + self.aligned_tokenizer.get_chat_template()

    def _as_text(self, side: str, messages: Messages, tokenize: bool) -> str | list[int]:
        text = render_base(self.base_prompt, conversation(messages))
        if not tokenize:
            return text
        return self._encoders[side].text_ids(text)

    def _template_note(self) -> list[str]:
        if self.aligned_tokenizer.chat_template:
            return []
        if self.base_prompt == "chat_template":
            raise ParameterError(
                "base_prompt",
                "'qa', 'plain', 'urial' or a function, as the aligned model has no chat template",
                self.base_prompt,
                "The default is 'qa'.",
            )
        return ["The aligned tokenizer has no chat template, so both sides get the base prompt."]


def _sides(base: Any, aligned: Any) -> list[tuple[str, Any]]:
    return [("base", base), ("aligned", aligned)]


def _require_parts(models: list[tuple[str, Any]], tokenizers: list[tuple[str, Any]]) -> None:
    """Refuse what is no model or no tokenizer of transformers, such as a path."""
    from transformers import PreTrainedTokenizerBase

    remedy = "For a folder or an id there is ModelPair.from_pretrained(base, aligned)."
    for side, model in models:
        if not hasattr(getattr(model, "config", None), "get_text_config"):
            allowed = "a model that transformers has loaded"
            raise ParameterError(side, allowed, type(model), remedy)
    for side, tokenizer in tokenizers:
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            allowed = "a tokenizer that transformers has loaded"
            raise ParameterError(f"{side}_tokenizer", allowed, type(tokenizer), remedy)


def _require_flag(tokenize: object) -> None:
    if not isinstance(tokenize, bool):
        raise ParameterError("tokenize", "True or False", tokenize, "True asks for token ids.")


def _plain_tools(tools: object) -> list[dict[str, Any]]:
    listed = isinstance(tools, list | tuple) and all(isinstance(tool, Mapping) for tool in tools)
    if not (listed or tools is None):
        raise ParameterError("tools", "a list of OpenAI-style dicts", tools, "None offers none.")
    found: list[dict[str, Any]] = plain_json(tools or [], "tools", ParameterError)
    return found


def _joint_vocabulary(base: Any, aligned: Any, compatibility: Compatibility) -> Vocabulary:
    """Classify the longer of the two vocabularies; what is not text on both sides is control."""
    longer = aligned if compatibility.aligned_size >= compatibility.base_size else base
    vocabulary = Vocabulary.from_tokenizer(longer)
    control = ~compatibility.shared
    return replace(
        vocabulary,
        control=control,
        punctuation=vocabulary.punctuation | control,
        function_word=vocabulary.function_word & ~control,
        starts_word=vocabulary.starts_word | control,
    )


def _chat_template(tokenizer: Any) -> str | None:
    """Return the text of a chat template, where there are several that for tools."""
    if not tokenizer.chat_template:
        return None
    try:
        template: str = tokenizer.get_chat_template(tools=[{}])
        template.encode()
    except Exception as error:  # It may be anything that JSON can hold.
        raise PairError(
            f"The aligned tokenizer's chat_template is no text ({error}). Set it in "
            "tokenizer_config.json, or put chat_template.jinja beside that."
        ) from error
    return template


def _rows(model: Any) -> int:
    return int(model.config.get_text_config().vocab_size)


def _encoders(*tokenizers: Any) -> dict[str, Encoder]:
    """Return an encoder for each side; what is a control token to one is spelled out by both."""
    tables = [read_token_table(tokenizer) for tokenizer in tokenizers]
    control = frozenset(p for t in tables for i in t.control & t.added if (p := t.pieces[i]))
    return {
        side: Encoder(tokenizer, control) for side, tokenizer in zip(SIDES, tokenizers, strict=True)
    }


def _call_markers(tokenizer: Any, form: CallFormat) -> dict[int, bytes]:
    """Return the control tokens that are part of how calls are written, with what they spell."""
    frame = form.begin + form.before + form.divider + form.after + form.end
    table = read_token_table(tokenizer)
    pieces = {token_id: table.pieces[token_id] for token_id in table.control & table.added}
    return {i: piece.encode() for i, piece in pieces.items() if piece and piece in frame}


def _plain_identity(identity: Any) -> dict[str, Any]:
    try:
        told = dict(identity)
        json.dumps(told)
    except Exception as error:  # of what is no mapping, no JSON, or holds itself
        remedy = "For example {'base': 'org/model', 'aligned': 'org/model-instruct'}."
        raise ParameterError("identity", "a dict of plain data", identity, remedy) from error
    return told


def _pair_name(sources: tuple[ModelFiles, ModelFiles]) -> str:
    base, aligned = sources
    if base.folder == _TINY / "base" and aligned.folder == _TINY / "aligned":
        return "tiny"
    for known in PRESETS.values():
        if (known.base, known.aligned) == (base.name, aligned.name):
            return known.name
    return f"{base.name}|{aligned.name}"


def _prompt_name(prompt: BasePrompt) -> str:
    return prompt if isinstance(prompt, str) else f"{prompt.__module__}.{prompt.__qualname__}"
