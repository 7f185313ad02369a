"""A pair with a vocabulary of Gemma's size, and weights of next to nothing."""

from __future__ import annotations

import copy
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from tests.families import make_model, perturb

SIZE, ADDED = 262_144, 6_384

TEMPLATE = (
    "{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)


def big_tokenizer(size: int = SIZE, added: int = ADDED) -> Tokenizer:
    """Return a SentencePiece-like BPE of so many tokens, of which some are added."""
    letters = ["▁", *ascii_lowercase, *"\n.,!?'0123456789", *ascii_lowercase.upper()]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = dict.fromkeys(["<unk>", "<s>", "</s>", *bytes_, *letters])
    words = ("".join(w) for n in (2, 3, 4) for w in product(["▁", *ascii_lowercase], repeat=n))
    room = size - added - len(vocabulary)
    chosen = [word for word in islice((w for w in words if "▁" not in w[1:]), room)]
    pieces = {piece: number for number, piece in enumerate([*vocabulary, *chosen])}
    merges = [(word[:-1], word[-1]) for word in chosen]
    backend = Tokenizer(models.BPE(pieces, merges, byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    names = ["<turn>", "<end>", *(f"<unused{number}>" for number in range(added - 2))]
    backend.add_special_tokens(["<unk>", "<s>", "</s>", "<turn>", "<end>"])
    backend.add_tokens([AddedToken(name, special=False, normalized=False) for name in names[2:]])
    return backend


def big_pair_folder(folder: Path, size: int = SIZE, added: int = ADDED) -> dict[str, str]:
    """Write base and aligned with equal tokenizer files; return where they are."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=big_tokenizer(size, added),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=TEMPLATE,
    )
    base = make_model("llama", len(tokenizer), seed=3)
    aligned = copy.deepcopy(base)
    perturb(aligned, seed=4, noise=0.15)
    for name, model in (("base", base), ("aligned", aligned)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("base", "aligned")}
