"""Answers in notebooks: what base gave is underlined and tinted, in light and in dark.

Invariant: all text is escaped, nothing is loaded or run, and the colours stand on a ground of their
own, so that they can be read under any theme. Where styles are stripped, underlines remain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = (
    "<style>.baco{color-scheme:light dark;background:light-dark(#fff,#1f1e1b);"
    "color:light-dark(#22211f,#ebe8e1);border:1px solid light-dark(#dedad2,#3a3833);"
    "border-radius:8px;padding:8px 14px;margin:4px 0;max-width:75ch;"
    "font:15px/1.6 system-ui,sans-serif}"
    ".baco div{white-space:pre-wrap;overflow-wrap:anywhere}"
    ".baco u{background:light-dark(#fbe6d3,#4a2f19);text-decoration:underline 1px "
    "light-dark(#a8480b,#f0a264);text-underline-offset:3px;border-radius:2px}"
    ".baco small{color:light-dark(#65625c,#a8a399)}"
    "[data-jp-theme-light=true] .baco{color-scheme:light}"
    "[data-jp-theme-light=false] .baco,.vscode-dark .baco{color-scheme:dark}</style>"
)
"""JupyterLab and VS Code say which theme they have; elsewhere the browser's preference counts."""


def answer_html(pieces: Iterable[Sequence[str]], *about: str | None) -> str:
    """Return an answer as a piece of HTML.

    Args:
        pieces: The text as ``(source, text)``; what is not from ``base`` stays unmarked.
        *about: What stands below it in small type; None and empty texts are left out.
    """
    marked = []
    for source, piece in pieces:
        words = piece.strip()
        before, _, after = piece.partition(words) if words else (piece, "", "")
        text = f"<u>{escape(words)}</u>" if words and source == "base" else escape(words)
        marked.append(f"{before}{text}{after}")
    below = escape(" · ".join(filter(None, about)))
    text = "".join(marked).rstrip()
    return f'{STYLE}<div class="baco"><div>{text}</div><small>{below}</small></div>'


def how_decoded(
    router: str | None, gamma: float | None, share: float | None, seed: int | None
) -> Iterable[str]:
    """Yield how an answer was decoded, as far as it is known."""
    if router is not None:
        yield router if gamma is None else f"{router}, gamma {gamma:g}"
    if share is not None:
        yield f"{share:.0%} of the tokens from base (underlined)"
    if seed is not None:
        yield f"seed {seed}"
