"""Exact classes of hand-made tokens, and what must hold for any text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from baco_integrations.core.errors import PairError, ParameterError
from baco_integrations.text.vocabulary import Vocabulary, load_function_words, read_token_table
from tests.families import KINDS, TEXT, make_tokenizer

FLAGS = {
    "c": "control",
    "l": "line_break",
    "p": "punctuation",
    "f": "function_word",
    "s": "starts_word",
    "u": "unfinished",
    "k": "continues_character",
    "w": "spaceless",
}
SENTENCEPIECE = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
)
TOKENIZERS = {kind: make_tokenizer(kind) for kind in KINDS}


def tokenizer_of(decoder, pieces, added=()):
    """Make a tokenizer of exactly these pieces, in this order."""
    vocab = pieces if isinstance(pieces, dict) else {piece: n for n, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token=next(iter(vocab))))
    backend.decoder = decoder
    backend.add_tokens([AddedToken(text, special=special) for text, special in added])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def classes(decoder, pieces, added=()):
    vocabulary = Vocabulary.from_tokenizer(tokenizer_of(decoder, pieces, added))
    return [
        (data, "".join(key for key, name in FLAGS.items() if getattr(vocabulary, name)[token_id]))
        for token_id, data in enumerate(vocabulary.token_bytes)
    ]


BYTE_LEVEL_CASES = {
    # Words, numbers and code
    b" the": "fs",
    b"The": "f",
    b"the": "f",
    b" sea": "s",
    b"sea": "",
    b"12": "",
    b" 12": "s",
    b"  ": "ps",
    b" ": "s",
    b"\t": "ps",
    b"    ": "ps",
    b"\n": "lps",
    b" \r\n": "lps",
    b".\n\n": "lps",
    b"x\n": "lp",
    b"\xe2\x80\xa8": "lps",  # LINE SEPARATOR
    b"_name": "s",
    b"();": "ps",
    b".": "ps",
    b" (": "ps",
    b"-": "ps",
    b"</": "ps",
    # Apostrophes within words and quotes around them
    b"'": "p",
    b"'s": "f",
    b"n't": "f",
    b"'LL": "f",
    b"\xe2\x80\x99s": "f",
    b"\xe2\x80\x99": "p",
    b" '": "ps",
    b"''": "ps",
    b"'.": "ps",
    b"'90": "s",
    b" don't": "fs",
    # Accents and joiners stay with their character
    b"\xcc\x81": "",
    b"\xe2\x80\x8d": "",  # ZERO WIDTH JOINER
    b"\xef\xb8\x8f": "",  # VARIATION SELECTOR-16
    "é".encode(): "",
    # Emoji, whole and in pieces
    "😀".encode(): "ps",
    "❤️".encode(): "ps",
    " 🎉".encode(): "ps",
    "🏽".encode(): "",
    b"\xf0\x9f": "psu",
    b" \xf0\x9f": "psu",
    b"\xf0\x9f\x98": "psu",
    b"\x80": "k",
    b"\x98\x80": "k",
    b"\x80!": "pk",
    b"\x80a": "k",
    # Scripts without spaces
    "今".encode(): "sw",
    "今天".encode(): "sw",
    "か".encode(): "sw",
    "。".encode(): "ps",
    "，".encode(): "ps",
    "ส".encode(): "sw",
    "\u0e34".encode(): "",  # THAI CHARACTER SARA I, a mark above its consonant
    "ခ".encode(): "sw",
    "ក".encode(): "sw",
    b"\xe4": "suw",
    b"\xe4\xbb": "suw",
    b"\xe3\x81": "suw",
    b"\xe0\xb8": "suw",
    " 今".encode(): "s",
    # Scripts with spaces
    "하".encode(): "",
    " 하".encode(): "s",
    "م".encode(): "",
    "،".encode(): "ps",
    "да".encode(): "",
    "न".encode(): "",
    "ि".encode(): "",
    b"\xd0": "u",
    b"\xed\x95": "u",
    b"\xe0\xa4": "u",
    b" \xd0": "su",
    b"\xe2\x80": "psu",
    # Bytes that UTF-8 never uses
    b"\xff": "ps",
}


def test_byte_level_classes():
    shown = bytes_to_unicode()
    pieces = ["".join(shown[byte] for byte in data) for data in BYTE_LEVEL_CASES]
    assert dict(classes(decoders.ByteLevel(), pieces)) == BYTE_LEVEL_CASES


def test_sentencepiece_classes():
    pieces = ["▁the", "the", "▁", "▁▁", "<0x0A>", "<0xF0>", "<0x9F>", "▁(", "今", "<0xE4>", "'s"]
    assert classes(SENTENCEPIECE, pieces) == [
        (b" the", "fs"),
        (b"the", "f"),
        (b" ", "s"),
        (b"  ", "ps"),
        (b"\n", "lps"),
        (b"\xf0", "suw"),
        (b"\x9f", "k"),
        (b" (", "ps"),
        ("今".encode(), "sw"),
        (b"\xe4", "suw"),
        (b"'s", "f"),
    ]


def test_without_byte_fallback_such_a_piece_is_text():
    assert classes(decoders.Metaspace(), ["<0x0A>", "▁a"]) == [(b"<0x0A>", "s"), (b" a", "fs")]


def test_wordpiece_classes():
    pieces = ["sea", "##side", "the", ".", "'", "今", "##今", "##."]
    assert classes(decoders.WordPiece(prefix="##"), pieces) == [
        (b" sea", "s"),
        (b"side", ""),
        (b" the", "fs"),
        (b" .", "ps"),
        (b" '", "ps"),
        (" 今".encode(), "s"),
        ("今".encode(), "sw"),
        (b".", "ps"),
    ]


def test_additions():
    added = [
        ("<|end|>", True),
        ("<|fim_prefix|>", False),
        ("<tool_call>", False),
        ("<unused7>", False),
        ("[PAD]", False),
        ("  ", False),
        ("été", False),
        ("New York", False),
    ]
    assert classes(decoders.ByteLevel(), ["a"], added)[1:] == [
        (b"", "cps"),
        (b"<|fim_prefix|>", "cps"),
        (b"<tool_call>", "cps"),
        (b"<unused7>", "cps"),
        (b"[PAD]", "cps"),
        (b"  ", "ps"),
        ("été".encode(), ""),
        (b"New York", ""),
    ]


@pytest.mark.parametrize("tag", ["<table>", "</h1>", "<br/>", "<strong>", "<think>"])
def test_tags_of_prose_are_text_unless_the_chat_template_has_them(tag):
    tokenizer = tokenizer_of(decoders.ByteLevel(), ["a"], [(tag, False), ("<unused9>", False)])
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    assert vocabulary.control.tolist() == [False, False, True]
    assert vocabulary.punctuation[1]  # markup is the aligned side's all the same
    assert vocabulary.token_bytes[1] == tag.encode()
    tokenizer.chat_template = f"{{{{ '{tag}' }}}}"
    assert Vocabulary.from_tokenizer(tokenizer).control.tolist() == [False, True, True]


def test_a_tag_that_is_declared_special_is_control():
    tokenizer = tokenizer_of(decoders.ByteLevel(), ["a"], [("<s>", True), ("<mask>", False)])
    assert Vocabulary.from_tokenizer(tokenizer).control.tolist() == [False, True, True]


def test_ids_beyond_all_vocabularies():
    tokenizer = tokenizer_of(decoders.ByteLevel(), {"a": 0, "b": 2**24})
    with pytest.raises(PairError, match="numbers its tokens up to 16,777,216"):
        Vocabulary.from_tokenizer(tokenizer)


def test_text_like_a_marker_is_control_only_if_added():
    assert classes(decoders.ByteLevel(), ["<b>"]) == [(b"<b>", "s")]


def test_ids_without_a_token_are_control():
    vocabulary = Vocabulary.from_tokenizer(tokenizer_of(decoders.ByteLevel(), {"a": 0, "b": 3}))
    assert vocabulary.size == 4
    assert vocabulary.control.tolist() == [False, True, True, False]
    assert vocabulary.token_bytes == (b"a", b"", b"", b"b")


def test_same_content_gives_the_same_read_only_object():
    first, second = (Vocabulary.from_tokenizer(make_tokenizer("byte-level")) for _ in range(2))
    assert first is second
    with pytest.raises(ValueError, match="read-only"):
        first.control[0] = True


def test_a_tokenizer_is_read_once_and_again_when_it_has_changed():
    tokenizer = make_tokenizer("byte-level")
    table = read_token_table(tokenizer)
    assert read_token_table(tokenizer) is table
    tokenizer.add_tokens(["<table>"])
    grown = read_token_table(tokenizer)
    assert grown.pieces == (*table.pieces, "<table>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<table>"]})
    assert read_token_table(tokenizer).control == grown.control | {len(table.pieces)}


def test_own_function_words():
    tokenizer = tokenizer_of(decoders.Metaspace(), ["▁der", "▁the"])
    assert Vocabulary.from_tokenizer(tokenizer, ["Der"]).function_word.tolist() == [True, False]


@pytest.mark.parametrize("decoder", [decoders.CTC(), None])
def test_unknown_decoders_are_refused(decoder):
    tokenizer = tokenizer_of(decoders.ByteLevel(), ["a"])
    tokenizer.backend_tokenizer.decoder = decoder
    with pytest.raises(PairError):
        Vocabulary.from_tokenizer(tokenizer)


def test_function_words_join_languages_files_and_words(tmp_path):
    german = tmp_path / "de.txt"
    german.write_text("# Artikel\nder die das  # bestimmt\nEIN\n", encoding="utf-8")
    words = load_function_words("en", german, ["l’", "et"])
    assert {"the", "n't", "der", "das", "ein", "l'", "et"} <= words
    assert not {"#", "artikel", "bestimmt"} & words


@pytest.mark.parametrize("source", ["xx", "../en"])
def test_missing_function_words(source, tmp_path):
    for missing in (source, tmp_path / source):
        with pytest.raises(ParameterError, match="pass its Path"):
            load_function_words(missing)


scripts = st.one_of(
    st.text(max_size=20),
    st.lists(st.sampled_from([*TEXT.split(), " ", "\n", "  "]), max_size=12).map("".join),
)


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
@settings(deadline=None)
@given(text=scripts)
def test_joined_bytes_are_the_decoded_text(kind, text):
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer(text)["input_ids"]
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    joined = b"".join(vocabulary.token_bytes[token_id] for token_id in ids)
    assert joined.decode() == tokenizer.decode(ids, skip_special_tokens=True) == text


@settings(deadline=None)
@given(text=scripts)
def test_joined_wordpieces_are_the_decoded_text(text):
    tokenizer = TOKENIZERS["wordpiece"]
    ids = tokenizer(text)["input_ids"]
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    joined = b"".join(vocabulary.token_bytes[token_id] for token_id in ids)
    assert joined.decode().lstrip() == tokenizer.decode(ids, skip_special_tokens=True).lstrip()


@settings(deadline=None)
@given(pieces=st.lists(st.binary(min_size=1, max_size=6), min_size=1, unique=True))
@example(pieces=[b"\xe0\x90", b"\xed\xa0", b"\xf0\x80", b"\xf4\x90", b"\xc2"])
def test_no_word_starts_inside_a_character(pieces):
    shown = bytes_to_unicode()
    spelled = ["".join(shown[byte] for byte in data) for data in pieces]
    for data, flags in classes(decoders.ByteLevel(), spelled):
        inside = 0x80 <= data[0] < 0xC0
        assert ("k" in flags) == inside
        assert not (inside and "s" in flags)


@settings(deadline=None)
@given(text=st.text(min_size=1, max_size=8), data=st.data())
def test_a_cut_character_is_unfinished_then_continued(text, data):
    encoded = text.encode()
    cut = data.draw(st.integers(1, len(encoded)))
    shown = bytes_to_unicode()
    left = "".join(shown[byte] for byte in encoded[:cut])
    right = "".join(shown[byte] for byte in encoded[cut:])
    found = classes(decoders.ByteLevel(), [left, right + "."])
    within = cut < len(encoded) and 0x80 <= encoded[cut] < 0xC0
    assert ("u" in found[0][1]) == within
    assert ("k" in found[-1][1]) == within


def test_classes_of_bytes_alone():
    vocabulary = Vocabulary.from_bytes([b" the", b"", b"sea"], control=[1])
    assert vocabulary.control.tolist() == [False, True, False]
    assert vocabulary.function_word.tolist() == [True, False, False]
    assert vocabulary.starts_word.tolist() == [True, True, False]
