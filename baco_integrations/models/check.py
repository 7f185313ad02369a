"""What can be said of a pair from its tokenizers and configurations, before any weight is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import VocabularyMismatchError
from ..text.compatibility import compare, end_notes, end_tokens
from .architecture import architecture_problems, context_window
from .loading import (
    ModelFiles,
    load_config,
    load_generation_config,
    load_parameters,
    load_tokenizer,
    locate,
    require_stored,
)
from .memory import Parameters
from .options import LoadOptions

_NUMBERS: dict[str, tuple[str, str | None]] = {
    "float32": ("float32", None),
    "bfloat16": ("bfloat16", None),
    "int8": ("bfloat16", "8bit"),
    "int4": ("bfloat16", "4bit"),
}
_ONE_MODEL = (
    "both sides are the same model, which is loaded once. They differ only in what they are shown, "
    "base a plain prompt and aligned the chat template, so there is less variety to gain; BACo is "
    "meant for the model before its alignment as base"
)


@dataclass(frozen=True)
class SideReport:
    """What is known of one model of a pair.

    Attributes:
        model: Its id or folder.
        revision: Its commit, or a fingerprint of the folder.
        architecture: The kind of model.
        parameters: How many numbers it holds.
        vocabulary: Number of token ids.
        end_tokens: Texts of the tokens that end its turn.
        context: Context window in tokens.
        template: Whether it has a chat template.
    """

    model: str
    revision: str
    architecture: str
    parameters: int
    vocabulary: int
    end_tokens: tuple[str, ...]
    context: int
    template: bool


@dataclass(frozen=True)
class PairReport:
    """Whether two models make a pair, and what to expect of it.

    Attributes:
        base: The base model.
        aligned: The aligned model.
        shared_vocabulary: Number of ids that mean the same text to both.
        problems: Why the two cannot be decoded together; empty if they can.
        notes: Differences that are expected and handled.
        bytes: Bytes of both models' weights together, by number format.
    """

    base: SideReport
    aligned: SideReport
    shared_vocabulary: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    bytes: dict[str, int]

    @property
    def compatible(self) -> bool:
        """Whether the two can be decoded together."""
        return not self.problems

    @property
    def one_model(self) -> bool:
        """Whether both sides are the same model."""
        return self.base == self.aligned

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON."""
        return {"compatible": self.compatible, **asdict(self)}


def check_pair(base: str | Path, aligned: str | Path, options: LoadOptions) -> PairReport:
    """Compare two models by their tokenizers and configurations; no weights are read or fetched.

    Raises:
        PairError: The files of one are missing, damaged or out of reach.
    """
    located = {
        "base": locate(base, "base", options),
        "aligned": locate(aligned, "aligned", options),
    }
    configs = {side: load_config(source, options) for side, source in located.items()}
    for side, source in located.items():
        require_stored(source, configs[side], options)
    tokenizers = {side: load_tokenizer(source, options) for side, source in located.items()}
    compatibility = compare(tokenizers["base"], tokenizers["aligned"])
    problems = [
        f"{located[side].name} {problem}."
        for side, config in configs.items()
        for problem in architecture_problems(config)
    ]
    try:
        compatibility.require()
    except VocabularyMismatchError as error:
        problems.append(str(error))
    sizes = {side: load_parameters(located[side], configs[side], options) for side in located}
    generation = {side: load_generation_config(source) for side, source in located.items()}
    ends = {side: (tokenizers[side], generation[side], configs[side]) for side in located}
    sides = {side: _side(located[side], sizes[side], *ends[side]) for side in located}
    notes = [
        *compatibility.notes,
        *(note for side in located for note in end_notes(side, *ends[side])),
    ]
    if sides["base"] == sides["aligned"]:
        notes.append(_ONE_MODEL)
    return PairReport(
        base=sides["base"],
        aligned=sides["aligned"],
        shared_vocabulary=int(compatibility.shared.sum()),
        problems=tuple(problems),
        notes=tuple(notes),
        bytes={
            name: sum(size.bytes(*number) for size in sizes.values())
            for name, number in _NUMBERS.items()
        },
    )


def _side(
    source: ModelFiles, size: Parameters, tokenizer: Any, generation: Any, config: Any
) -> SideReport:
    ends = sorted(end_tokens(tokenizer, generation, config))
    return SideReport(
        model=source.name,
        revision=source.revision,
        architecture=_architecture(config),
        parameters=size.linear + size.other,
        vocabulary=len(tokenizer),
        end_tokens=tuple(tokenizer.convert_ids_to_tokens(ends)),
        context=context_window(config, tokenizer),
        template=bool(tokenizer.chat_template),
    )


def _architecture(config: Any) -> str:
    told = config.architectures
    return str(told[0] if isinstance(told, list) and told else config.model_type)
