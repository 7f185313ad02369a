"""Checkpoints read tensor by tensor: never more than one matrix of a model is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import PairError
from ...text.compatibility import compare
from ..architecture import require_decodable
from ..loading import (
    ModelFiles,
    fetch_weights,
    load_config,
    load_modules,
    load_tokenizer,
    locate,
    reading,
    require_stored,
)
from ..options import LoadOptions
from ..weights import weight_files

if TYPE_CHECKING:
    from torch import Tensor

# What may differ between two models whose weights are compared: no forward depends on it.
_HARMLESS = {
    *("_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "pad_token_id"),
    *("attention_dropout", "initializer_range", "max_position_embeddings", "pretraining_tp"),
    *("tie_word_embeddings", "transformers_version", "use_cache", "vocab_size"),
}


class Checkpoint:
    """A model's configuration, tokenizer and, once it is opened, tensors.

    Args:
        source: Where it is.
        options: How to load.
    """

    def __init__(self, source: ModelFiles, options: LoadOptions) -> None:
        self.source, self._options = source, options
        self.config = load_config(source, options)
        require_decodable(source.name, self.config)
        self.tokenizer = load_tokenizer(source, options)
        self._files: dict[str, Path] = {}
        self._tied: dict[str, str] = {}

    def open(self) -> Any:
        """Fetch the weights; return the model's modules, without weights."""
        fetch_weights(self.source, self._options)
        require_stored(self.source, self.config, self._options)
        for file in weight_files(self.source):
            with self._reading(file) as opened:
                self._files |= dict.fromkeys(opened.keys(), file)
        model = load_modules(self.source, self.config, self._options)
        self._tied = dict(model.all_tied_weights_keys)
        return model

    def tensor(self, name: str) -> Tensor:
        """Read a tensor by its parameter's name.

        Raises:
            PairError: There is none, or the file is damaged.
        """
        found = name if name in self._files else self._tied.get(name, name)
        if found not in self._files:
            raise PairError(
                f"{self.source.name} has no tensor {name}. Load it with transformers and save it "
                "again by save_pretrained(folder)."
            )
        with self._reading(self._files[found]) as opened:
            tensor: Tensor = opened.get_tensor(found)
        return tensor

    @contextmanager
    def _reading(self, file: Path) -> Iterator[Any]:
        from safetensors import safe_open

        with reading(self.source, "weights"), safe_open(file, "pt") as opened:
            yield opened


def checkpoints(
    base: str | Path, aligned: str | Path, options: LoadOptions
) -> tuple[Checkpoint, Checkpoint]:
    """Find two models that differ in nothing but their weights.

    Raises:
        PairError: They differ in more, or their files are missing or damaged.
    """
    one = Checkpoint(locate(base, "base", options), options)
    other = Checkpoint(locate(aligned, "aligned", options), options)
    compare(one.tokenizer, other.tokenizer).require()
    ours, theirs = (model.config.get_text_config().to_dict() for model in (one, other))
    names = (ours.keys() | theirs.keys()) - _HARMLESS
    differing = sorted(name for name in names if ours.get(name) != theirs.get(name))
    if differing:
        raise PairError(
            f"{one.source.name} and {other.source.name} differ not only in their weights, but in "
            f"{', '.join(differing)}. Load them by ModelPair.from_pretrained(base, aligned)."
        )
    return one, other
