"""What each token of a vocabulary is: its exact bytes, and the classes that routing asks about.

Invariant: the bytes of any ids, joined and decoded as UTF-8, are the text the tokenizer decodes
them to without special tokens, apart from white space at the very start. WordPiece's cosmetic
clean-up is left out, and an added token gives its literal text even where a byte-level decoder
would take its letters for bytes.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from baco_integrations.core.errors import PairError, ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BoolArray = NDArray[np.bool_]

_PACKAGED = files("baco_integrations.text").joinpath("function_words")

# Additions that are not declared special but stand for structure, not prose: <|fim_prefix|>,
# <unused7>, <tool_call>, [PAD], |||EMAIL_ADDRESS|||.
_MARKER = re.compile(r"<[^\s<>]+>|\[/?[A-Z][A-Z0-9_]*\]|\|\|\|\w+\|\|\|")
# Of these, tags as in HTML, such as Gemma's <table> and </h1>, are text where no chat template has
# them; but not what is named for a place in the model.
_ROLES = "unused|reserved|(?:bos|eos|pad|unk|mask|sep|cls|image|audio|video)>"
_TAG = re.compile(rf"</?(?!{_ROLES})[a-z]+[1-9]?/?>", re.IGNORECASE)
_MOST_IDS = 2**24  # well beyond every published vocabulary
# The mandatory breaks of UAX #14: LF, VT, FF, CR, NEL, LINE and PARAGRAPH SEPARATOR.
_LINE_BREAK = re.compile(rb"[\n\v\f\r]|\xc2\x85|\xe2\x80[\xa8\xa9]")
_ALPHANUMERIC = re.compile(r"[^\W_]")
_WITHIN_WORD = re.compile(r"['’](?:[^\W\d_]|\Z)")
# The end of a character begun elsewhere, whole characters, and the beginning of a last one.
_PARTS = re.compile(
    rb"([\x80-\xbf]*)(.*?)([\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})?",
    re.DOTALL,
)
# Blocks of the scripts that UAX #14 breaks without spaces (classes SA and ID), as written today.
_SPACELESS = (
    *((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19FF), (0x1A20, 0x1AAF)),
    *((0x1B00, 0x1B7F), (0x2E80, 0x312F), (0x3190, 0x31FF), (0x3220, 0x325F), (0x3280, 0x4DBF)),
    *((0x4E00, 0xA4CF), (0xA980, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF), (0xFF00, 0xFF9F)),
    *((0x16FE0, 0x1B2FF), (0x20000, 0x3FFFF)),
)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The classes and bytes of every token; all arrays are boolean, read-only, of shape [size].

    Attributes:
        size: Number of real token ids; a model's logits beyond it are padding.
        control: Special and structural tokens, and ids without a token.
        line_break: The text holds a line break.
        punctuation: No letter or digit, but more than a single space; or a line break; or an added
            token that is markup; or control.
        function_word: A closed-class word or a contraction's piece.
        starts_word: A change of side may happen here.
        unfinished: A character begins in the token but does not end in it.
        continues_character: The first byte continues a character of the previous token.
        spaceless: The first character belongs to a script written without spaces.
        token_bytes: What each token adds to the text; nothing for those that decoding skips.
    """

    size: int
    control: BoolArray
    line_break: BoolArray
    punctuation: BoolArray
    function_word: BoolArray
    starts_word: BoolArray
    unfinished: BoolArray
    continues_character: BoolArray
    spaceless: BoolArray
    token_bytes: tuple[bytes, ...]

    @classmethod
    def from_tokenizer(
        cls, tokenizer: PreTrainedTokenizerBase, function_words: Iterable[str] | None = None
    ) -> Vocabulary:
        """Classify every token; the same content classified before gives the same object.

        Args:
            tokenizer: A tokenizer with a `tokenizers` backend.
            function_words: Closed-class words, see `load_function_words`; English by default.

        Raises:
            PairError: The tokenizer has no such backend, or decodes in an unknown way.
        """
        words = load_function_words("en" if function_words is None else function_words)
        return _classify(read_token_table(tokenizer), words)

    @classmethod
    def from_bytes(
        cls,
        token_bytes: Iterable[bytes],
        control: Iterable[int] = (),
        function_words: Iterable[str] | None = None,
    ) -> Vocabulary:
        """Classify tokens given by their bytes.

        Args:
            token_bytes: What each token adds to the text.
            control: Ids of control tokens.
            function_words: As for `from_tokenizer`.
        """
        words = load_function_words("en" if function_words is None else function_words)
        return _from_bytes(tuple(token_bytes), frozenset(control), words)


def load_function_words(*sources: str | Path | Iterable[str]) -> frozenset[str]:
    """Join lists of closed-class words, case-folded.

    Args:
        sources: Each a language that comes with the package (`"en"`), the path of a file with one
            or more words per line (`#` starts a comment), or the words themselves.

    Raises:
        ParameterError: A language or a file is missing.
    """
    return frozenset(word for source in sources for word in _words(source))


def _words(source: str | Path | Iterable[str]) -> Iterable[str]:
    if not isinstance(source, str | Path):
        return (_fold(word) for word in source)
    packaged = {Path(file.name).stem: file for file in _PACKAGED.iterdir()}
    file = packaged.get(source) if isinstance(source, str) else source
    if file is None or not file.is_file():
        allowed = f"a language of {sorted(packaged)}, the Path of a readable file, or words"
        remedy = "For another language, write its words into a text file and pass its Path."
        raise ParameterError("function_words", allowed, source, remedy)
    lines = file.read_text(encoding="utf-8").splitlines()
    return (_fold(word) for line in lines for word in line.partition("#")[0].split())


def _fold(word: str) -> str:
    return word.casefold().replace("’", "'")


class TokenTable(NamedTuple):
    """A tokenizer's content, as far as it decides what its tokens mean.

    `pieces` are indexed by id, None where an id has no token. `skipped` are the ids that decoding
    leaves out, `added` those beside the model's own pieces, `marked` those of them that are markup,
    be it control or text, `control` as in `Vocabulary`.
    """

    pieces: tuple[str | None, ...]
    added: frozenset[int]
    skipped: frozenset[int]
    marked: frozenset[int]
    control: frozenset[int]
    decoder: bytes


def read_token_table(tokenizer: PreTrainedTokenizerBase) -> TokenTable:
    """Read a tokenizer's pieces by id, and which of them are control tokens.

    A tokenizer is read once, and again when it has changed.

    Raises:
        PairError: The tokenizer has no `tokenizers` backend, or ids beyond all vocabularies.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        raise PairError(
            f"{type(tokenizer).__name__} has no decoder of the tokenizers library, so the bytes of "
            "its tokens are unknown. Load it with AutoTokenizer from a folder with tokenizer.json."
        )
    decoder: bytes = backend.decoder.__getstate__()
    template = str(tokenizer.chat_template or "")
    state = (len(tokenizer), frozenset(tokenizer.all_special_ids), template, decoder)
    if (known := _TABLES.get(tokenizer)) is None or known[0] != state:
        known = _TABLES[tokenizer] = state, _read_token_table(tokenizer, template, decoder)
    return known[1]


_TABLES: WeakKeyDictionary[Any, tuple[Any, TokenTable]] = WeakKeyDictionary()


def _read_token_table(tokenizer: Any, template: str, decoder: bytes) -> TokenTable:
    backend = tokenizer.backend_tokenizer
    vocabulary = backend.get_vocab(with_added_tokens=True)
    last = max(vocabulary.values(), default=-1)
    if not 0 <= last < _MOST_IDS:
        raise PairError(
            f"{type(tokenizer).__name__} numbers its tokens up to {last:,}, and the last must be "
            f"from 0 to {_MOST_IDS - 1:,}. Fetch tokenizer.json again, or choose another model."
        )
    pieces: list[str | None] = [None] * (last + 1)
    for piece, token_id in vocabulary.items():
        pieces[token_id] = piece
    added = backend.get_added_tokens_decoder()
    for token_id, token in added.items():
        pieces[token_id] = token.content
    skipped = {token_id for token_id, token in added.items() if token.special}
    marked = {token_id for token_id, token in added.items() if _MARKER.fullmatch(token.content)}
    text = {i for i in marked if _TAG.fullmatch(tag := added[i].content) and tag not in template}
    holes = {token_id for token_id, piece in enumerate(pieces) if piece is None}
    return TokenTable(
        pieces=tuple(pieces),
        added=frozenset(added),
        skipped=frozenset(skipped),
        marked=frozenset(marked),
        control=frozenset(skipped | marked - text | holes | set(tokenizer.all_special_ids)),
        decoder=decoder,
    )


@lru_cache(maxsize=8)
def _classify(table: TokenTable, function_words: frozenset[str]) -> Vocabulary:
    return _from_bytes(tuple(_all_bytes(table)), table.control, function_words, table.marked)


def _from_bytes(
    token_bytes: tuple[bytes, ...],
    control_ids: frozenset[int],
    function_words: frozenset[str],
    markup_ids: frozenset[int] = frozenset(),
) -> Vocabulary:
    rows = np.array([_traits(data, function_words) for data in token_bytes], dtype=np.bool_)
    arrays = dict(zip(_Traits._fields, np.ascontiguousarray(rows.T), strict=True))
    control = np.zeros(len(token_bytes), dtype=np.bool_)
    control[list(control_ids)] = True
    arrays["control"] = control
    arrays["punctuation"] |= control | arrays["line_break"]
    arrays["punctuation"][list(markup_ids)] = True
    arrays["function_word"] &= ~control
    arrays["starts_word"] |= control
    for array in arrays.values():
        array.setflags(write=False)
    return Vocabulary(size=len(token_bytes), token_bytes=token_bytes, **arrays)


def _all_bytes(table: TokenTable) -> Iterable[bytes]:
    to_bytes = _piece_reader(table.decoder)
    for token_id, piece in enumerate(table.pieces):
        if piece is None or token_id in table.skipped:
            yield b""
        elif token_id in table.added and to_bytes is _byte_level:
            yield piece.encode()
        else:
            yield to_bytes(piece)


def _piece_reader(decoder: bytes) -> Callable[[str], bytes]:
    """Tell how pieces spell bytes from the steps of the tokenizer's decoder."""
    tree = json.loads(decoder)
    steps = {step["type"]: step for step in tree.get("decoders", [tree])}
    if "ByteLevel" in steps:
        return _byte_level
    if "WordPiece" in steps:
        return partial(_word_piece, prefix=steps["WordPiece"]["prefix"])
    if "Metaspace" in steps or steps.get("Replace", {}).get("pattern") == {"String": "▁"}:
        return partial(_sentence_piece, byte_fallback="ByteFallback" in steps)
    raise PairError(
        f"The tokenizer decodes by {sorted(steps)}, which is none of byte-level BPE, SentencePiece "
        "and WordPiece. Choose a pair whose tokenizers are of these kinds."
    )


def _byte_alphabet() -> dict[str, int]:
    """Invert GPT-2's table, which prints each byte as one visible character."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    shown = {chr(byte): byte for byte in visible}
    return shown | {chr(256 + n): byte for n, byte in enumerate(hidden)}


_BYTE_OF = _byte_alphabet()


def _byte_level(piece: str) -> bytes:
    try:
        return bytes(map(_BYTE_OF.__getitem__, piece))
    except KeyError:
        return piece.encode()


def _sentence_piece(piece: str, byte_fallback: bool) -> bytes:
    if byte_fallback and len(piece) == 6 and re.fullmatch("<0x[0-9A-F]{2}>", piece):
        return bytes.fromhex(piece[3:5])
    return piece.replace("▁", " ").encode()


def _word_piece(piece: str, prefix: str) -> bytes:
    return (piece.removeprefix(prefix) if piece.startswith(prefix) else f" {piece}").encode()


class _Traits(NamedTuple):
    """What a token's bytes alone say about it, in the terms of `Vocabulary`."""

    line_break: bool
    punctuation: bool
    function_word: bool
    starts_word: bool
    unfinished: bool
    continues_character: bool
    spaceless: bool


class _Kind(Enum):
    """How a character relates to words."""

    LETTER = "a letter or digit of a script with spaces"
    MARK = "part of the character before it: accents, joiners, variation selectors"
    SPACELESS = "a letter or digit of a script without spaces"
    SYMBOL = "anything else that is visible"
    SPACE = "white space"


_CONTINUES = {_Kind.LETTER, _Kind.MARK}


def _traits(data: bytes, function_words: frozenset[str]) -> _Traits:
    head, text, tail = _parts(data)
    first = _first_kind(head, text, tail)
    return _Traits(
        line_break=_LINE_BREAK.search(data) is not None,
        punctuation=_is_punctuation(text, tail),
        function_word=not head and not tail and _fold(text.removeprefix(" ")) in function_words,
        starts_word=first not in _CONTINUES and not _WITHIN_WORD.match(text),
        unfinished=bool(tail),
        continues_character=bool(head),
        spaceless=first is _Kind.SPACELESS,
    )


def _parts(data: bytes) -> tuple[bytes, str, bytes]:
    """Split into the end of a character, whole characters, the beginning of a character."""
    try:
        return b"", data.decode(), b""
    except UnicodeDecodeError:
        parts = _PARTS.fullmatch(data)
        assert parts is not None  # The middle part takes whatever the others leave.
        return parts[1], parts[2].decode(errors="replace"), parts[3] or b""


def _first_kind(head: bytes, text: str, tail: bytes) -> _Kind:
    if text and not head:
        return _kind(text[0])
    return _kind_begun(tail) if tail and not head else _Kind.MARK


def _is_punctuation(text: str, tail: bytes) -> bool:
    if _ALPHANUMERIC.search(text):
        return False
    if tail:
        return _kind_begun(tail) is _Kind.SYMBOL
    if text.isspace():
        return text != " "
    return any(_kind(char) is _Kind.SYMBOL for char in text)


@cache
def _kind(char: str) -> _Kind:
    if char.isspace():
        return _Kind.SPACE
    if char.isalnum():
        code = ord(char)
        spaceless = any(low <= code <= high for low, high in _SPACELESS)
        return _Kind.SPACELESS if spaceless else _Kind.LETTER
    # The zero width space is a format character whose one purpose is to part words; emoji skin
    # tones count as symbols in Unicode though they only modify.
    joins = unicodedata.category(char) in {"Mn", "Mc", "Me", "Cf"} and char != "\u200b"
    return _Kind.MARK if joins or "\U0001f3fb" <= char <= "\U0001f3ff" else _Kind.SYMBOL


@cache
def _kind_begun(lead: bytes) -> _Kind:
    """Guess the kind of a character from its first bytes: what most it may become are.

    A strict rule would not do: the first two bytes of nearly all emoji can also begin a few
    rare digits. Large ranges are sampled; blocks are long compared to the step.
    """
    low, high = _reach(lead)  # empty for bytes that begin no character, such as E0 90
    chars = map(chr, range(low, high + 1, max(1, 1 + (high - low) // 1024)))
    counts = Counter(
        _kind(char) for char in chars if unicodedata.category(char) not in {"Cn", "Co", "Cs"}
    )
    if 2 * sum(counts[kind] for kind in _CONTINUES) > counts.total():
        return _Kind.LETTER
    return _Kind.SPACELESS if 2 * counts[_Kind.SPACELESS] > counts.total() else _Kind.SYMBOL


def _reach(lead: bytes) -> tuple[int, int]:
    """Return the first and the last code point whose UTF-8 form begins with these bytes."""
    length = 2 if lead[0] < 0xE0 else 3 if lead[0] < 0xF0 else 4
    code = lead[0] & (0x7F >> length)
    for byte in lead[1:]:
        code = code << 6 | byte & 0x3F
    shift = 6 * (length - len(lead))
    shortest = {2: 0x80, 3: 0x800, 4: 0x10000}[length]
    return max(code << shift, shortest), min((code + 1 << shift) - 1, 0x10FFFF)
