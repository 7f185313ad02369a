"""A base model and its aligned counterpart as one object: `ModelPair`.

Invariants: both sides number text tokens alike; equal load parameters give one object per process,
whose memory is freed with its last user.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..core.errors import ParameterError
from ..core.registry import Registry
from ..text.compatibility import end_notes, end_tokens
from ..text.prompts import BasePrompt
from ..text.token_space import SharedVocabulary
from ..tiny import WEIGHTS as TINY
from .options import ONE_MODEL_PROMPT, SIDES, LoadOptions, PairKind, Side
from .presets import preset
from .prompts import PairPrompts, one_model_note

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .check import PairReport
    from .lora.modules import SwitchableLora, SwitchedModel
    from .sides import Sides

TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"
PAIRS: Registry[ModelPair] = Registry()


class ModelPair(PairPrompts):
    """Two loaded models, their tokenizers and their prompts.

    Args:
        base: The base model. Both models are put in evaluation mode, and their gradients off.
        aligned: Its instruction-tuned counterpart.
        base_tokenizer: The base model's tokenizer; it needs no chat template.
        aligned_tokenizer: The aligned model's. Without a chat template it is shown the base prompt.
        name: What to call the pair.
        base_prompt: How the base model is shown a conversation: ``qa``, ``plain``, ``urial``,
            ``chat_template`` or a function of the messages; ``qa`` if left out.
        template_kwargs: Variables for the aligned model's chat template.
        identity: What tells this pair from others, as plain data.

    Attributes, besides the arguments:
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
        notes: Differences between the two that are expected and handled, as sentences.
        lora: Of a pair from `from_adapter`, the model whose weights both sides share; else None.
        exact: Of such a pair, the side that is the plain model; else None.
        error: Of an adapter from `baco extract`, the norm of what it leaves out of the difference
            of the two models, relative to all of it; else None.
        engine: What decodes it.
        options: How it was loaded, if by its files.
        folders: Of a pair whose engine loads the weights, where each side's are; else empty.

    Raises:
        PairError: The two cannot be decoded together.
        ParameterError: An argument is of another type, or the base prompt is unknown.

    Example:
        ```python
        pair = ModelPair.tiny()
        pair = ModelPair.from_preset("qwen2.5-0.5b")
        pair = ModelPair.from_pretrained("org/model", "org/model-instruct", dtype="bfloat16")
        pair = ModelPair.from_model("org/model-instruct")
        ```
    """

    engine = "local"
    options: LoadOptions | None = None
    folders: Mapping[Side, Path] = MappingProxyType({})
    lora: SwitchableLora | None = None
    exact: Side | None = None
    error: float | None = None

    def __init__(
        self,
        base: PreTrainedModel | SwitchedModel,
        aligned: PreTrainedModel | SwitchedModel,
        base_tokenizer: PreTrainedTokenizerBase,
        aligned_tokenizer: PreTrainedTokenizerBase,
        *,
        name: str | None = None,
        base_prompt: BasePrompt | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        from .architecture import context_window

        variables: Any = {} if template_kwargs is None else template_kwargs
        if isinstance(variables, Mapping):
            variables = dict(variables)
        if base_prompt is None:
            base_prompt = ONE_MODEL_PROMPT if base is aligned else "qa"
        own = LoadOptions(base_prompt=base_prompt, template_kwargs=variables)
        models, tokenizers = (base, aligned), (base_tokenizer, aligned_tokenizer)
        of_sides = {"base_tokenizer": base_tokenizer, "aligned_tokenizer": aligned_tokenizer}
        require_parts({"base": base, "aligned": aligned}, of_sides)
        if not isinstance(name, str | None):
            raise ParameterError("name", "a string", name, "Leave it out for the models' names.")
        names = [
            str(model.config.name_or_path or side)
            for side, model in zip(SIDES, models, strict=True)
        ]
        for called, model, tokenizer in zip(names, models, tokenizers, strict=True):
            prepare(called, model, tokenizer)
        super().__init__(*tokenizers, own.base_prompt, own.template_kwargs)
        self.base, self.aligned = models
        self.name = name or "|".join(names[:1] if base is aligned else names)
        base_rows, aligned_rows = (m.config.get_text_config().vocab_size for m in models)
        self.base_size = min(self.compatibility.base_size, base_rows)
        self.aligned_size = min(self.compatibility.aligned_size, aligned_rows)
        base_window, aligned_window = (
            context_window(m.config, t) for m, t in zip(models, tokenizers, strict=True)
        )
        self.context = (base_window, aligned_window)
        base_ends = (base_tokenizer, base.generation_config, base.config)
        aligned_ends = (aligned_tokenizer, aligned.generation_config, aligned.config)
        self.base_eos, self.aligned_eos = end_tokens(*base_ends), end_tokens(*aligned_ends)
        self.notes += (*end_notes("base", *base_ends), *end_notes("aligned", *aligned_ends))
        if self.kind == "one-model":
            told = bool(aligned_tokenizer.chat_template)
            self.notes += (one_model_note(self.base_prompt_name, told),)
        by_name = dict(zip(SIDES, names, strict=True))
        prompts = {"base_prompt": self.base_prompt_name, "template_kwargs": self.template_kwargs}
        self.identity = plain_identity(by_name if identity is None else identity) | prompts

    @classmethod
    def from_pretrained(cls, base: str | Path, aligned: str | Path, **options: Any) -> ModelPair:
        """Load a pair from folders or the Hugging Face hub; ask twice, get the same object.

        Only safetensors are read, and GGUF files. Tokenizers, architectures and memory are checked
        before weights are fetched.

        Args:
            base: The base model's folder or id; or a GGUF file, as a path that ends in ``.gguf`` or
                as ``org/model:file.gguf`` on the hub. Tokenizer, chat template and end tokens are
                then those of the file (extra ``gguf``), and its weights are dequantised when they
                are loaded, to float32 unless ``dtype`` says otherwise. `baco dequantize` saves
                them once.
            aligned: The aligned model's.
            options: Settings of `LoadOptions`, such as ``dtype`` or ``device_map``.

        Raises:
            ParameterError: A setting is not allowed.
            ModelNotFoundError: A model's files are missing or out of reach.
            UnsafeWeightsError: A model has only pickled weights, or code of its own.
            VocabularyMismatchError: The two text vocabularies differ.
            NotEnoughMemoryError: The pair does not fit.
            MissingExtraError: A quantisation's library, or what GGUF files are read with, is not
                installed.
            PairError: Anything else that keeps the two from being a pair.
        """
        from .sides import load_sides, locate_sides

        checked = LoadOptions(**options)
        files = locate_sides(base, aligned, checked)
        if files[0].key == files[1].key and "base_prompt" not in options:
            checked = checked.replace(base_prompt=ONE_MODEL_PROMPT)
        key = (cls, *(each.key for each in files), checked.pair_key())
        return PAIRS.get(key, lambda: cls.from_sides(load_sides(*files, checked), checked))

    @classmethod
    def from_model(
        cls,
        model: str | Path | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **options: Any,
    ) -> ModelPair:
        """Make a pair of one model: base is shown a plain prompt, aligned the chat template.

        The weights are in memory once, and one forward serves both sides. How much an instruct
        model gains by it differs, so measure it: `baco eval`.

        Args:
            model: An instruct model's folder or id, as `from_pretrained` takes it; or a model that
                is loaded already.
            tokenizer: The tokenizer of a model that is loaded already.
            options: Settings of `LoadOptions`; for a model that is loaded already, arguments of
                `ModelPair`.

        Raises:
            ParameterError: A setting is not allowed, or the model and its tokenizer are not what
                they should be.
            PairError: As in `from_pretrained`.
        """
        if not isinstance(model, str | Path):
            require_parts({"model": model}, {"tokenizer": tokenizer})
            return cls(model, model, tokenizer, tokenizer, **options)  # type: ignore[arg-type]
        if tokenizer is not None:
            remedy = "A folder or an id on the hub brings its own."
            raise ParameterError("tokenizer", "left out", type(tokenizer), remedy)
        return cls.from_pretrained(model, model, **options)

    @classmethod
    def from_adapter(
        cls,
        model: str | Path,
        adapter: str | Path,
        *,
        exact: Side | None = None,
        **options: Any,
    ) -> ModelPair:
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
        from .lora.load import load_adapter_sides, locate_adapter

        checked = LoadOptions(**options)
        if checked.engine != "local":
            remedy = "Adapters are switched by row in models that transformers loads."
            raise ParameterError("engine", "'local' for an adapter", checked.engine, remedy)
        found = locate_adapter(model, adapter, exact, checked)
        key = (cls, found.model.key, found.adapter.key, found.exact, checked.pair_key())
        return PAIRS.get(key, lambda: cls.from_sides(load_adapter_sides(found, checked), checked))

    @classmethod
    def from_sides(cls, sides: Sides, options: LoadOptions) -> ModelPair:
        """Make a pair of what was loaded for it."""
        pair = cls(
            *(sides.models[side] for side in SIDES),
            *(sides.tokenizers[side] for side in SIDES),
            name=sides.name,
            base_prompt=options.base_prompt,
            template_kwargs=options.template_kwargs,
            identity=sides.identity,
        )
        pair.lora, pair.exact, pair.error = sides.lora, sides.exact, sides.error
        pair.notes += sides.notes
        pair.engine, pair.options, pair.folders = options.engine, options, sides.folders
        if sides.folders:  # such an engine has one window for both
            asked = options.engine_options.get("max_model_len") or pair.context[0]
            window = min(*pair.context, asked)
            pair.context = (window, window)
        return pair

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
            TINY / "base", TINY / "aligned", **({"dtype": "float32"} | options)
        )

    @staticmethod
    def check(base: str | Path, aligned: str | Path, **options: Any) -> PairReport:
        """Tell whether two models make a pair, from tokenizers and configurations alone.

        Raises:
            PairError: The files of one are missing, damaged or out of reach.
        """
        from .check import check_pair

        return check_pair(base, aligned, LoadOptions(**options))

    @property
    def kind(self) -> PairKind:
        """``two-models``; ``adapter``: one model, with and without; or ``one-model``: one as it is.

        The two sides of the latter differ only in what they are shown.
        """
        if self.lora is not None:
            return "adapter"
        return "one-model" if self.base is self.aligned else "two-models"

    @property
    def approximate(self) -> bool:
        """Whether one side only stands for a model, as an adapter from `baco extract` does."""
        return self.error is not None or self.exact == "aligned"

    def memory_bytes(self) -> int:
        """Return the bytes that the weights take; those of shared weights count once."""
        from .memory import measure_bytes

        if self.folders:  # they are loaded elsewhere
            files = (f for each in self.folders.values() for f in each.glob("*.safetensors"))
            return sum(file.stat().st_size for file in files)
        models: list[Any] = [self.lora.model] if self.lora else [self.base, self.aligned]
        return sum(map(measure_bytes, {id(model): model for model in models}.values()))

    @cached_property
    def token_space(self) -> SharedVocabulary:
        """The ids that both sides share, as each side reads them and as text."""
        ends = self.base_eos | self.aligned_eos
        sizes = (self.base_size, self.aligned_size)
        return SharedVocabulary.of(self.vocabulary, self.shared, ends, sizes)

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelPair:
        return self  # weights are shared, whoever is copied

    def __repr__(self) -> str:
        from .memory import readable

        where = " and ".join(dict.fromkeys(str(m.device) for m in (self.base, self.aligned)))
        size = f"{readable(self.memory_bytes())} on {where}"
        return f"ModelPair({self.name!r}, base_prompt={self.base_prompt_name!r}, {size})"


def require_parts(models: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> None:
    """Require models and tokenizers of transformers, by parameter: a path, say, is refused."""
    from transformers import PreTrainedTokenizerBase

    remedy = "Folders and ids are for ModelPair.from_pretrained(base, aligned) and from_model."
    for name, model in models.items():
        if not hasattr(getattr(model, "config", None), "get_text_config"):
            allowed = "a model that transformers has loaded"
            raise ParameterError(name, allowed, type(model), remedy)
    for name, tokenizer in tokenizers.items():
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            allowed = "a tokenizer that transformers has loaded"
            raise ParameterError(name, allowed, type(tokenizer), remedy)


def plain_identity(identity: Any) -> dict[str, Any]:
    """Copy an identity, which must be a dict of plain data."""
    try:
        copied = dict(identity)
        json.dumps(copied)
    except Exception as error:  # of what is no mapping, no JSON, or holds itself
        remedy = "For example {'base': 'org/model', 'aligned': 'org/model-instruct'}."
        raise ParameterError("identity", "a dict of plain data", identity, remedy) from error
    return copied


def prepare(name: str, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a model can be decoded, and make it and its tokenizer ready for that."""
    from .architecture import require_decodable

    require_decodable(name, model.config)
    model.eval()
    model.requires_grad_(False)
    # Prompts that are too long get an error of ours, so transformers need not warn.
    tokenizer.deprecation_warnings[TOO_LONG] = True
