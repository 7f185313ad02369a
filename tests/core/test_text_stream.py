from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from baco_integrations.core.text_stream import TextStream

pieces = st.lists(st.text(alphabet="ab \n☃é", max_size=4), max_size=12)
stops = st.lists(st.text(alphabet="ab \n☃é", min_size=1, max_size=4), max_size=3)


def plain(text: str, stops: list[str], keep_space: bool) -> tuple[str, bool]:
    """The whole text at once: no white space in front, ended where the first stop is complete."""
    text = text if keep_space else text.lstrip()
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return (text[: min(found)[1]], True) if found else (text, False)


@given(pieces, stops, st.integers(1, 3), st.booleans())
def test_bytes_in_any_cut_give_the_whole_text(
    texts: list[str], stop_strings: list[str], width: int, keep_space: bool
) -> None:
    data = "".join(texts).encode()
    stream = TextStream(stop_strings, keep_space=keep_space)
    whole = plain("".join(texts), stop_strings, keep_space)
    shown = ""
    for start in range(0, len(data), width):
        shown += stream.push(data[start : start + width])
        # What is shown is never taken back.
        assert whole[0].startswith(shown)
    shown += stream.push(b"", last=True)
    assert (shown, stream.stopped) == whole


def test_broken_bytes_become_replacement_characters() -> None:
    stream = TextStream()
    assert stream.push(b"a\xe2\x98") == "a"
    assert stream.push(b"b") == "\ufffdb"
    assert stream.push(b"\xe2", last=True) == "\ufffd"


def test_nothing_comes_after_a_stop_string() -> None:
    stream = TextStream(["."])
    assert stream.push(b"one. two") == "one"
    assert stream.push(b"three", last=True) == ""
