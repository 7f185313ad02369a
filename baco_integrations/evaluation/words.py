"""Methods in words, for readers who know none of their names."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.routing import ROUTERS

DEFAULT_ROUTER = "p-punc"
LABELS = {
    "base": "Base model alone",
    "aligned": "Aligned model alone",
    "plain": "Model alone",
    DEFAULT_ROUTER: "BACo (default)",
    "rand": "Random switching",
    "nudge": "Nudging",
    "ensemble": "Both models averaged",
    "min-p": "Min-p sampling",
    "in-context": "Asked for one more",
    "paraphrase": "Asked in other words",
    "system-prompt": "Told to vary",
    "judge": "BACo, a judge decides",
}
MEANINGS = {
    "base": "The pretrained model, which reads the request as plain text.",
    "aligned": "The instruction-tuned model, asked as usual.",
    "plain": "The model, asked as usual.",
    "p": "Base gives a word where no word is likely for it.",
    "h": "Base gives a word where its distribution is flat (high entropy).",
    "rand": "Chance decides who gives a word: what every rule has to beat.",
    "punc": "Punctuation, markup and line breaks come from the aligned model.",
    "fc": "Function words (the, of, and) come from the aligned model.",
    "nudge": "The reverse: the aligned model gives a word where base is unsure.",
    "judge": "A third model decides who gives a word.",
    "ensemble": "Each word is drawn from a mixture of both models' distributions.",
    "min-p": "The aligned model, without words far less likely than the likeliest.",
    "in-context": "The aligned model, asked again and again with its earlier answers in sight.",
    "paraphrase": "The aligned model, asked in a different wording each time.",
    "system-prompt": "The aligned model, under a system prompt that wants unusual answers.",
}


def in_words(name: str) -> str:
    """Return what a method is called in tables and figures."""
    root, _, change = name.partition(":")
    if change:
        return f"{'BACo' if root == DEFAULT_ROUTER else in_words(root)}, {change}"
    return LABELS.get(root) or (f"BACo by {name}" if root in ROUTERS else name)


def meanings(names: Iterable[str]) -> dict[str, str]:
    """Return what methods, and the parts that their names are joined from, do."""
    roots = {name.partition(":")[0] for name in names}
    known = roots | {part for root in roots & ROUTERS.keys() for part in root.split("-")}
    return {name: meaning for name, meaning in MEANINGS.items() if name in known}
