"""What each token of a vocabulary is: its exact bytes, and the classes that routing asks about.

Invariant: the bytes of any ids, joined and decoded as UTF-8, are the text the tokenizer decodes
them to without special tokens, apart from white space at the very start. WordPiece's cosmetic
clean-up is left out, and an added token gives its literal text even where a byte-level decoder
would take its letters for bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..core.errors import PairError, ParameterError
from .characters import WITHIN_WORDS, Kind, kind_begun, kind_of

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
_PLAIN_WORD = re.compile(rb" ?[A-Za-z]+")
# The end of a character begun elsewhere, whole characters, and the beginning of a last one.
_PARTS = re.compile(
    rb"([\x80-\xbf]*)(.*?)([\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})?",
    re.DOTALL,
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
        return classify(read_token_table(tokenizer), words)

    @classmethod
    def from_bytes(
        cls,
        token_bytes: Iterable[bytes],
        control: Iterable[int] = (),
        function_words: Iterable[str] | None = None,
        markup: Iterable[int] = (),
    ) -> Vocabulary:
        """Classify tokens given by their bytes.

        Args:
            token_bytes: What each token adds to the text.
            control: Ids of control tokens.
            function_words: As for `from_tokenizer`.
            markup: Ids of tokens that are markup, be it control or text.
        """
        words = load_function_words("en" if function_words is None else function_words)
        token_bytes = tuple(token_bytes)
        rows = np.array([traits_of(data, words) for data in token_bytes], dtype=np.bool_)
        arrays = dict(zip(_TRAITS, np.ascontiguousarray(rows.T), strict=True))
        arrays["control"] = np.zeros(len(token_bytes), dtype=np.bool_)
        arrays["control"][list(control)] = True
        arrays["punctuation"] |= arrays["control"] | arrays["line_break"]
        arrays["punctuation"][list(markup)] = True
        arrays["function_word"] &= ~arrays["control"]
        arrays["starts_word"] |= arrays["control"]
        for array in arrays.values():
            array.setflags(write=False)
        return cls(size=len(token_bytes), token_bytes=token_bytes, **arrays)


def load_function_words(*sources: str | Path | Iterable[str]) -> frozenset[str]:
    """Join lists of closed-class words, case-folded.

    Args:
        sources: Each a language that comes with the package (`"en"`), the path of a file with one
            or more words per line (`#` starts a comment), or the words themselves.

    Raises:
        ParameterError: A language or a file is missing.
    """
    words: list[str] = []
    packaged = {Path(file.name).stem: file for file in _PACKAGED.iterdir()}
    for source in sources:
        if not isinstance(source, str | Path):
            words += source
            continue
        file = packaged.get(source) if isinstance(source, str) else source
        if file is None or not file.is_file():
            allowed = f"a language of {sorted(packaged)}, the Path of a readable file, or words"
            remedy = "For another language, write its words into a text file and pass its Path."
            raise ParameterError("function_words", allowed, source, remedy)
        lines = file.read_text(encoding="utf-8").splitlines()
        words += (word for line in lines for word in line.partition("#")[0].split())
    return frozenset(map(fold, words))


def fold(word: str) -> str:
    """Return a word as lists of function words hold it."""
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
    special, template = frozenset(tokenizer.all_special_ids), str(tokenizer.chat_template or "")
    state = (len(tokenizer), special, template, decoder)
    if (known := _TABLES.get(tokenizer)) is not None and known[0] == state:
        return known[1]
    vocabulary = backend.get_vocab(with_added_tokens=True)
    last = max(vocabulary.values(), default=-1)
    if not 0 <= last < _MOST_IDS:
        raise PairError(
            f"{type(tokenizer).__name__} numbers its tokens up to {last:,}, and the last must be "
            f"from 0 to {_MOST_IDS - 1:,}. Fetch tokenizer.json again, or choose another model."
        )
    pieces: list[str | None] = [None] * (last + 1)
    added = {i: token.content for i, token in backend.get_added_tokens_decoder().items()}
    for piece, token_id in [*vocabulary.items(), *((text, i) for i, text in added.items())]:
        pieces[token_id] = piece
    skipped = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    marked = {i for i, text in added.items() if _MARKER.fullmatch(text)}
    text = {i for i in marked if _TAG.fullmatch(added[i]) and added[i] not in template}
    holes = {token_id for token_id, piece in enumerate(pieces) if piece is None}
    control = frozenset(skipped | marked - text | holes | special)
    table = TokenTable(
        tuple(pieces), frozenset(added), frozenset(skipped), frozenset(marked), control, decoder
    )
    _TABLES[tokenizer] = state, table
    return table


_TABLES: WeakKeyDictionary[Any, tuple[Any, TokenTable]] = WeakKeyDictionary()


@lru_cache(maxsize=8)
def classify(table: TokenTable, function_words: frozenset[str]) -> Vocabulary:
    """Classify the tokens of a table."""
    token_bytes, to_bytes = [], piece_reader(table.decoder)
    for token_id, piece in enumerate(table.pieces):
        if piece is None or token_id in table.skipped:
            token_bytes.append(b"")
        elif token_id in table.added and to_bytes is byte_level:
            token_bytes.append(piece.encode())
        else:
            token_bytes.append(to_bytes(piece))
    return Vocabulary.from_bytes(token_bytes, table.control, function_words, table.marked)


def piece_reader(decoder: bytes) -> Callable[[str], bytes]:
    """Tell how pieces spell bytes from the steps of the tokenizer's decoder.

    Raises:
        PairError: It decodes in an unknown way.
    """
    tree = json.loads(decoder)
    steps = {step["type"]: step for step in tree.get("decoders", [tree])}
    if "ByteLevel" in steps:
        return byte_level
    if "WordPiece" in steps:
        prefix = steps["WordPiece"]["prefix"]
        return lambda piece: (
            piece.removeprefix(prefix) if piece.startswith(prefix) else f" {piece}"
        ).encode()
    if "Metaspace" in steps or steps.get("Replace", {}).get("pattern") == {"String": "▁"}:
        bytes_fall_back = "ByteFallback" in steps
        return lambda piece: (
            bytes.fromhex(piece[3:5])
            if bytes_fall_back and len(piece) == 6 and re.fullmatch("<0x[0-9A-F]{2}>", piece)
            else piece.replace("▁", " ").encode()
        )
    raise PairError(
        f"The tokenizer decodes by {sorted(steps)}, which is none of byte-level BPE, SentencePiece "
        "and WordPiece. Choose a pair whose tokenizers are of these kinds."
    )


# GPT-2's table, which prints each byte as one visible character, the other way round.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]
_BYTE_OF = {chr(byte): byte for byte in _VISIBLE} | {
    chr(256 + n): byte for n, byte in enumerate(_HIDDEN)
}


def byte_level(piece: str) -> bytes:
    """Return the bytes of a piece of byte-level BPE."""
    try:
        return bytes(map(_BYTE_OF.__getitem__, piece))
    except KeyError:
        return piece.encode()


_TRAITS = (
    *("line_break", "punctuation", "function_word", "starts_word"),
    *("unfinished", "continues_character", "spaceless"),
)


def traits_of(data: bytes, function_words: frozenset[str]) -> tuple[bool, ...]:
    """Return what a token's bytes alone say about it, in the order of `_TRAITS`."""
    if _PLAIN_WORD.fullmatch(data):  # most tokens are: this halves the time
        known = data.decode().removeprefix(" ").lower() in function_words
        return False, False, known, data[0] == ord(" "), False, False, False
    try:
        head, text, tail = b"", data.decode(), b""
    except UnicodeDecodeError:
        parts = _PARTS.fullmatch(data)
        assert parts is not None  # The middle part takes whatever the others leave.
        head, text, tail = parts[1], parts[2].decode(errors="replace"), parts[3] or b""
    begun = kind_begun(tail) if tail else Kind.MARK
    first = Kind.MARK if head else kind_of(text[0]) if text else begun
    if _ALPHANUMERIC.search(text):
        punctuation = False
    elif tail:
        punctuation = begun is Kind.SYMBOL
    elif text.isspace():
        punctuation = text != " "
    else:
        punctuation = any(kind_of(char) is Kind.SYMBOL for char in text)
    return (
        _LINE_BREAK.search(data) is not None,
        punctuation,
        not head and not tail and fold(text.removeprefix(" ")) in function_words,
        first not in WITHIN_WORDS and not _WITHIN_WORD.match(text),
        bool(tail),
        bool(head),
        first is Kind.SPACELESS,
    )
