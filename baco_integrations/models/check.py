"""What can be said of a pair from its tokenizers and configurations, before any weight is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import VocabularyMismatchError
from ..text.compatibility import compare, end_notes, end_tokens
from .architecture import architecture_problems, context_window
from .checkpoint import Checkpoint, load_generation_config, load_tokenizer
from .hub import locate
from .memory import Parameters, count_parameters
from .options import ONE_MODEL_PROMPT, SIDES, LoadOptions, PairKind
from .prompts import one_model_note

FORMATS: dict[str, tuple[str, str | None]] = {
    "float32": ("float32", None),
    "bfloat16": ("bfloat16", None),
    "int8": ("bfloat16", "8bit"),
    "int4": ("bfloat16", "4bit"),
}
"""Arguments of `Parameters.bytes` by the name of a number format."""


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
        bytes: Bytes of both models' weights together, by number format; those of one model that is
            both sides count once.
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
    def kind(self) -> PairKind:
        """What the sides are, as for `ModelPair`."""
        return "one-model" if self.base == self.aligned else "two-models"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON."""
        return {"compatible": self.compatible, "kind": self.kind, **asdict(self)}


def check_pair(base: str | Path, aligned: str | Path, options: LoadOptions) -> PairReport:
    """Compare two models by their tokenizers and configurations; no weights are read or fetched.

    Raises:
        PairError: The files of one are missing, damaged or out of reach.
    """
    files = [locate(base, "base", options), locate(aligned, "aligned", options)]
    checkpoints = [Checkpoint(each, options) for each in files]
    for checkpoint in checkpoints:
        checkpoint.require_stored()
    tokenizers = [load_tokenizer(each, options) for each in files]
    compatibility = compare(*tokenizers)
    problems = [
        f"{checkpoint.files.name} {problem}."
        for checkpoint in checkpoints
        for problem in architecture_problems(checkpoint.config)
    ]
    try:
        compatibility.require()
    except VocabularyMismatchError as error:
        problems.append(str(error))
    sizes = [count_parameters(checkpoint.empty_model()) for checkpoint in checkpoints]
    generation = [load_generation_config(each) for each in files]
    reports = [*map(report_side, checkpoints, tokenizers, generation, sizes)]
    notes = [*compatibility.notes]
    for place, side in enumerate(SIDES):
        notes += end_notes(side, tokenizers[place], generation[place], checkpoints[place].config)
    notes += dict.fromkeys(note for each in checkpoints for note in each.notes())
    if reports[0] == reports[1]:
        notes.append(one_model_note(ONE_MODEL_PROMPT, reports[1].template))
        sizes = sizes[:1]
    return PairReport(
        base=reports[0],
        aligned=reports[1],
        shared_vocabulary=int(compatibility.shared.sum()),
        problems=tuple(problems),
        notes=tuple(notes),
        bytes={name: sum(size.bytes(*of) for size in sizes) for name, of in FORMATS.items()},
    )


def report_side(
    checkpoint: Checkpoint, tokenizer: Any, generation: Any, size: Parameters
) -> SideReport:
    """Summarise one model, given its tokenizer, generation settings and parameters."""
    config = checkpoint.config
    kinds = config.architectures
    ends = sorted(end_tokens(tokenizer, generation, config))
    return SideReport(
        model=checkpoint.files.name,
        revision=checkpoint.files.revision,
        architecture=str(kinds[0] if isinstance(kinds, list) and kinds else config.model_type),
        parameters=size.linear + size.other,
        vocabulary=len(tokenizer),
        end_tokens=tuple(tokenizer.convert_ids_to_tokens(ends)),
        context=context_window(config, tokenizer),
        template=bool(tokenizer.chat_template),
    )
