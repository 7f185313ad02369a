"""Two checkpoints compared tensor by tensor: never more than one matrix of each is in memory."""

from __future__ import annotations

from safetensors import safe_open
from torch import Tensor

from ...core.errors import PairError
from ...text.compatibility import compare
from ..checkpoint import Checkpoint, load_tokenizer
from ..files import read_headers
from ..hub import fetch_weights
from ..loading import reading

HARMLESS = {
    *("_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "pad_token_id"),
    *("attention_dropout", "initializer_range", "max_position_embeddings", "pretraining_tp"),
    *("tie_word_embeddings", "transformers_version", "use_cache", "vocab_size"),
}
"""Fields in which the two configurations may differ, as no forward depends on them."""


def require_comparable(one: Checkpoint, other: Checkpoint) -> None:
    """Raise a `PairError` if two models differ in more than their weights."""
    for model in (one, other):
        model.require_decodable()
    compare(*(load_tokenizer(model.files, model.options) for model in (one, other))).require()
    ours, theirs = (model.config.get_text_config().to_dict() for model in (one, other))
    names = (ours.keys() | theirs.keys()) - HARMLESS
    differing = sorted(name for name in names if ours.get(name) != theirs.get(name))
    if differing:
        raise PairError(
            f"{one.files.name} and {other.files.name} differ not only in their weights, but in "
            f"{', '.join(differing)}. Load them by ModelPair.from_pretrained(base, aligned)."
        )


class StoredTensors:
    """A model's tensors, read one at a time.

    Attributes:
        model: The model's modules, without weights.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        fetch_weights(checkpoint.files, checkpoint.options)
        checkpoint.require_stored()
        self.files = checkpoint.files
        self.stored = read_headers(checkpoint.files)
        self.model = checkpoint.empty_model()
        self.tied: dict[str, str] = dict(self.model.all_tied_weights_keys)

    def read(self, name: str) -> Tensor:
        """Read the tensor of a parameter; raise a `PairError` if there is none."""
        found = name if name in self.stored else self.tied.get(name, name)
        if found not in self.stored:
            raise PairError(
                f"{self.files.name} has no tensor {name}. Load it with transformers and save it "
                "again by save_pretrained(folder)."
            )
        file = self.stored[found].file
        with reading(self.files, "weights"), safe_open(file, "pt") as opened:
            tensor: Tensor = opened.get_tensor(found)
        return tensor
