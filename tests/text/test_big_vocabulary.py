"""What must not grow with the vocabulary: nothing is read per request that was read before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from baco_integrations import ModelPair
from baco_integrations.policy.token_classes import RESERVED, holding
from baco_integrations.text import vocabulary
from tests.big_vocabulary import big_pair_folder, big_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return big_pair_folder(tmp_path_factory.mktemp("big"), size=1500, added=200)


def test_equal_tokenizers_are_one_object(folders: dict[str, str]) -> None:
    pair = ModelPair.from_pretrained(folders["base"], folders["aligned"])
    assert pair.base_tokenizer is pair.aligned_tokenizer
    assert len(pair.aligned_tokenizer) == 1500


def test_tokenizers_of_other_files_are_others(folders: dict[str, str]) -> None:
    config = Path(folders["base"], "tokenizer_config.json")
    told = config.read_text()
    try:
        config.write_text(told.replace('"</s>"', '"<end>"'))
        pair = ModelPair.from_pretrained(folders["base"], folders["aligned"])
    finally:
        config.write_text(told)
    assert [pair.base_tokenizer.eos_token, pair.aligned_tokenizer.eos_token] == ["<end>", "</s>"]


def test_a_request_reads_no_added_tokens(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ModelPair.from_pretrained(folders["base"], folders["aligned"])

    def ask() -> Any:
        return [pair.render_base("Hi", tokenize=True), pair.render_aligned("Hi", tokenize=True)]

    before, read = ask(), []
    for name in ("added_tokens_decoder", "added_tokens_encoder"):
        monkeypatch.setattr(PreTrainedTokenizerFast, name, property(lambda self: read.append(1)))
    monkeypatch.setattr(PreTrainedTokenizerFast, "get_added_vocab", lambda self: read.append(1))
    assert ask() == before and not read
    pair.aligned_tokenizer.get_added_vocab()
    assert read


def test_plain_words_are_classified_as_all_tokens_are(monkeypatch: pytest.MonkeyPatch) -> None:
    words = vocabulary.load_function_words("en")
    tokens = [piece.replace("▁", " ").encode() for piece in big_tokenizer(1500, 200).get_vocab()]
    tokens += [b" The", b"THE", b" it", b"  it", b" ", b"it's", b" the\n", b"\xc3\xa9t"]
    found = [vocabulary.traits_of(token, words) for token in tokens]
    monkeypatch.setattr(vocabulary, "_PLAIN_WORD", vocabulary.re.compile(rb"\Z.\A"))
    assert found == [vocabulary.traits_of(token, words) for token in tokens]
    assert len(set(found)) > 4


def test_reserved_characters_are_found_in_tokens() -> None:
    tokens = [b"", b'a"', b"", b"<{", "é".encode(), b"["]
    found = holding(tokens, RESERVED)
    assert found.tolist() == [
        [bool(c) and c.encode() in token for token in tokens] for c in RESERVED
    ]
