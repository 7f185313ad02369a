"""Tiny random pairs of every preset family: real tokenizers, real folders, milliseconds each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    logging,
)

logging.disable_progress_bar()

FAMILIES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "olmo2": "olmo2",
    "olmo3": "olmo3",
    "smollm3": "smollm3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "mistral": "mistral",
}
KINDS = ("byte-level", "sentencepiece", "wordpiece")

TEXT = """\
The old lighthouse keeper climbed the stairs, counting every step as he went.
She said that it wasn't far, but they didn't believe her; we'll see what's there.
Name a city, then tell me why you'd like to visit it. I'd go to the sea, and you?
There are 12 months, 365 days and 24 hours: 2024 was a leap year, 1900 was not.
A story about the sea is a story about the weather, and the weather never ends.
The quick brown fox; pack my box with five dozen jugs. I know! Who knows?
abcdefghijklmnopqrstuvwxyz ZYXWVUTSRQPONMLKJIHGFEDCBA aABCDEFGHIJKLMNOPQRSTUVWXYZ 9876543210
def add(first, second):\n    return first + second\n\nprint(add(1, 2))  # 3
for (int i = 0; i < 10; i++) {\n\tsum += values[i];\n}
Emoji 😀 🎉 👍🏽 ❤️ 👩‍💻 and “quotes” — dashes… naïve café, Straße, señor.
今天天气很好。我们去海边看书。日本語の文章です。カタカナも、ひらがなも。
สวัสดีครับ วันนี้อากาศดีมาก ไปทะเลกันเถอะ
مرحبا بالعالم، كيف حالك اليوم؟ السماء زرقاء والبحر هادئ
Привет, мир! Сегодня хорошая погода. 안녕하세요, 오늘은 날씨가 좋습니다. नमस्ते दुनिया
"""

# Per kind: begin of text, end of text, padding, unknown, begin of turn, end of turn.
SPECIALS = {
    "byte-level": (
        *("<|begin_of_text|>", "<|endoftext|>", "<|pad|>", None),
        *("<|im_start|>", "<|im_end|>"),
    ),
    "sentencepiece": ("<s>", "</s>", "<pad>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    "wordpiece": ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[TURN]", "[END]"),
}


def make_tokenizer(
    kind: str, *, chat_template: bool = False, extra_specials: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """Make a tokenizer of about 500 tokens; with a chat template its EOS is the end of a turn."""
    bos, eos, pad, unk, turn, turn_end = SPECIALS[kind]
    backend = Tokenizer.from_str(_backend(kind))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=turn_end if chat_template else eos,
        pad_token=pad,
        unk_token=unk,
        additional_special_tokens=[eos, turn, turn_end, *extra_specials],
    )
    if chat_template:
        tokenizer.chat_template = (
            "{{ bos_token }}{% for message in messages %}"
            f"{turn}{{{{ message['role'] }}}}\n"
            f"{{{{ message['content'] }}}}{turn_end}\n"
            "{% endfor %}"
            f"{{% if add_generation_prompt %}}{turn}assistant\n{{% endif %}}"
        )
    return tokenizer


@cache
def _backend(kind: str) -> str:
    """Train one tokenizer per kind and process, kept in its serialised form."""
    train = {"byte-level": _byte_level, "sentencepiece": _sentencepiece, "wordpiece": _wordpiece}
    return train[kind](TEXT.splitlines(keepends=True)).to_str()


def _byte_level(lines: list[str]) -> Tokenizer:
    """As in Llama 3 and Qwen: control tokens come after the text vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens([name for name in SPECIALS["byte-level"] if name])
    return tokenizer


def _sentencepiece(lines: list[str]) -> Tokenizer:
    """As in Mistral and Gemma: control tokens, bytes, then text; encoding adds `<s>`."""
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="never")
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = metaspace
    alphabet = [char for char, _ in _most_common("".join(lines).replace(" ", "▁"), 150)]
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, limit_alphabet=150, show_progress=False
    )
    trained.train_from_iterator(lines, trainer)
    model = json.loads(trained.to_str())["model"]
    specials = list(SPECIALS["sentencepiece"])
    pieces = specials + [f"<0x{byte:02X}>" for byte in range(256)] + list(model["vocab"])
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: token_id for token_id, piece in enumerate(pieces)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", specials.index("<s>"))]
    )
    return tokenizer


def _wordpiece(lines: list[str]) -> Tokenizer:
    """As in BERT: whole words, and pieces of words behind ``##``."""
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = [word for line in lines for word, _ in pre_tokenizer.pre_tokenize_str(line)]
    alphabet = sorted({char for word in words for char in word})
    inside = [word[at : at + 2] for word in words for at in range(1, len(word))]
    pieces = [
        *SPECIALS["wordpiece"],
        *alphabet,
        *(f"##{piece}" for piece in (*alphabet, *(piece for piece, _ in _most_common(inside, 50)))),
        *(word for word, _ in _most_common(filter(lambda word: len(word) > 1, words), 100)),
    ]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.add_special_tokens(list(SPECIALS["wordpiece"]))
    return tokenizer


def _most_common(of: Iterable[str], count: int) -> list[tuple[str, int]]:
    """Count, and break ties by the text: trainers break them differently in each process."""
    return sorted(Counter(of).items(), key=lambda item: (-item[1], item[0]))[:count]


def make_config(family: str, vocab_size: int, **overrides: Any) -> PreTrainedConfig:
    """Make the configuration of a tiny model: grouped heads, and windows of 8 where there are any.

    Layers with a sliding window alternate with full ones, full last, so that a token out of the
    window still matters and a lost window shows.
    """
    windowed = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    of_family: dict[str, dict[str, Any]] = {
        "olmo3": windowed,
        "smollm3": {"num_hidden_layers": 4},  # Every fourth layer has no rotary positions.
        "gemma2": windowed | {"query_pre_attn_scalar": 16},
        "gemma3": windowed | {"query_pre_attn_scalar": 16},
        "mistral": {"sliding_window": None},  # As in v0.3.
    }
    settings = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16 if family in ("qwen3", "gemma2", "gemma3") else 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,  # Wide, so that the context decides and not the last token.
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return AutoConfig.for_model(
        FAMILIES[family], **(settings | of_family.get(family, {}) | overrides)
    )


def make_model(
    family: str,
    vocab_size: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    padded: int = 0,
    **overrides: Any,
) -> PreTrainedModel:
    """Make a random model whose top-1 probability varies widely, with `padded` spare rows."""
    config = make_config(family, vocab_size + padded, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        model.get_output_embeddings().weight *= 2.0  # Sharp contexts beside flat ones.
    return model.eval()


def make_pair_folder(
    folder: Path,
    family: str,
    kind: str = "byte-level",
    *,
    seed: int = 0,
    noise: float = 0.03,
    dtype: torch.dtype = torch.float64,
    padded: int = 0,
    extra_specials: tuple[str, ...] = (),
    **overrides: Any,
) -> tuple[Path, Path]:
    """Save a base model and its aligned counterpart as two Hugging Face folders.

    The aligned weights are the base's plus noise of the given share of each tensor's spread, so
    the two agree often. Only the aligned side has a chat template and `extra_specials`; both have
    embedding rows for all tokens of both, and `padded` more.
    """
    if family == "qwen2" and kind != "byte-level":
        raise ValueError("transformers reads every tokenizer beside a qwen2 model as byte-level")
    base_tokenizer = make_tokenizer(kind)
    aligned_tokenizer = make_tokenizer(kind, chat_template=True, extra_specials=extra_specials)
    vocab_size = len(aligned_tokenizer)
    ids = {name: getattr(base_tokenizer, name) for name in _SPECIAL_IDS}
    base = make_model(family, vocab_size, seed, dtype, padded, **(ids | overrides))
    _save(base, base_tokenizer, base_tokenizer.eos_token_id, folder / "base")
    perturb(base, seed + 1, noise)
    ends = [aligned_tokenizer.eos_token_id, base_tokenizer.eos_token_id]
    _save(base, aligned_tokenizer, ends, folder / "aligned")
    return folder / "base", folder / "aligned"


_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def perturb(model: PreTrainedModel, seed: int, noise: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                draw = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
                weight += noise * weight.std() * draw


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, eos: int | list[int], folder: Path
) -> None:
    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model.generation_config = GenerationConfig(eos_token_id=eos, **ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of a saved model's configuration."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
