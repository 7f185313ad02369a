"""What the commands that ask many prompts share: their options, prompts, bars, and imports."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ParameterError
from . import options

if TYPE_CHECKING:
    from ..evaluation.prompts import Prompt

_MEASURE = "Measuring"


def _object(text: str, **more: Any) -> Any:
    return typer.Option(help=text, metavar="MODULE:NAME", show_default=False, **more)


Out = Annotated[Path, typer.Option(help="Folder of the run; one that exists is gone on with.")]
Prompts = Annotated[
    str,
    typer.Option(
        help="'tiny' (the embedded world), 'own' (100 of ours), or a file.", metavar="WHICH"
    ),
]
Form = Annotated[
    str,
    typer.Option(
        help="The file's form: text, prompts, noveltybench, wildchat, stories, ifeval, gsm8k."
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="So many of the prompts, evenly spread.", show_default="all"),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="A method (p-punc, ensemble, ...), a group of them (routers, baselines, prompting, "
        "ablations), or a router with a setting changed (p-punc:boundary=false); may be given "
        "several times.",
        show_default="all",
    ),
]
Points = Annotated[
    int, typer.Option(min=1, max=25, help="Knob values and temperatures of each method.")
]
Seeds = Annotated[int, typer.Option(min=1, help="Everything is done with so many seeds.")]
Samples = Annotated[int, typer.Option("--samples", "-n", min=1, help="Answers to a prompt.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
OwnMaxTokens = Annotated[
    int | None, typer.Option(min=1, help="Longest answer of a pair, in tokens.", show_default="256")
]
Sources = Annotated[bool, typer.Option("--sources", help="Keep who gave which part of the text.")]
Judge = Annotated[
    str | None,
    _object("Adds the method 'judge': a LangChain chat model, or a function of prompt and text."),
]
Rows = Annotated[
    int | None,
    typer.Option(min=1, help="Answers worked on at once.", show_default="64, or 8 calls"),
]
Model = Annotated[
    str | None,
    _object(
        "Instead of a pair: a model of LangChain or LlamaIndex, or a function that returns one "
        "for a temperature.",
        rich_help_panel="Pair",
    ),
]
Similarity = Annotated[
    str | None,
    _object(
        "Which answers are alike: an embedding model of LangChain, LlamaIndex or "
        "sentence-transformers, or a function of texts. Else the oracle on tiny prompts, TF-IDF on "
        "others.",
        rich_help_panel=_MEASURE,
    ),
]
Quality = Annotated[
    str | None,
    _object(
        "Who says how good answers are: a LangChain chat model as judge, or a function of question "
        "and answers that returns a number from 0 to 1 for each. It is tried on an invented answer "
        "first. Not needed for tiny prompts, IFEval and GSM8K.",
        rich_help_panel=_MEASURE,
    ),
]
Title = Annotated[str | None, typer.Option(help="The page's title.", rich_help_panel=_MEASURE)]
Resamples = Annotated[
    int, typer.Option(min=10, help="Resamples for intervals.", rich_help_panel=_MEASURE)
]


def find_prompts(which: str, form: str, limit: int | None) -> list[Prompt]:
    """Return the prompts that the options name."""
    from ..evaluation.loaders import load_prompts
    from ..evaluation.prompts import own_prompts, spread

    if which in ("tiny", "own") and form != "auto":
        remedy = "It says how a file is to be read."
        raise ParameterError("form", f"left out with the prompts {which!r}", form, remedy)
    if which == "tiny":
        from ..evaluation.tiny import tiny_prompts

        return tiny_prompts(limit)
    return spread(own_prompts() if which == "own" else load_prompts(which, form), limit)


def find_speaker(
    model: str | None,
    pair: str | None,
    base: str | None,
    aligned: str | None,
    dtype: str | None,
    device: str | None,
    base_prompt: str | None,
) -> Any:
    """Return the pair, or what else is to answer."""
    if model is None:
        return options.open_pair(
            pair, base, aligned, dtype=dtype, device=device, base_prompt=base_prompt
        )
    if any(each is not None for each in (pair, base, aligned, base_prompt, dtype, device)):
        remedy = "Give one or the other; a model of your own is loaded by your own module."
        raise ParameterError("model", "left out where a pair is given", model, remedy)
    return load_object("model", model)


def find_measures(
    similarity: str | None, quality: str | None, asked: Sequence[Prompt]
) -> dict[str, Any]:
    """Import what answers are measured with, and see that it works before anybody is asked."""
    from ..evaluation.scorer import find_scorer

    given = {
        "similarity": load_object("similarity", similarity),
        "quality": load_object("quality", quality),
    }
    scorer = find_scorer(asked, **given)
    if any(each is not None for each in given.values()):
        scorer.try_out(asked[0])
    return given


def load_object(option: str, path: str | None) -> Any:
    """Import what an option names as ``module:name``; modules of the working folder count.

    Raises:
        ParameterError: There is no such thing.
    """
    if path is None:
        return None
    sys.path.insert(0, os.getcwd())
    name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(name), attribute)
    except Exception as error:  # a module of somebody's own may raise anything
        allowed = "the name of something to import, as in my_models:make_model"
        raise ParameterError(option, allowed, path, f"{type(error).__name__}: {error}.") from error
    finally:
        sys.path.remove(os.getcwd())


def typed() -> str:
    """Return the command as it was typed."""
    return shlex.join(["baco", *sys.argv[1:]])


@contextmanager
def bar(what: str) -> Iterator[Callable[..., None]]:
    """Show a bar on a terminal; it takes how many are done, of how many, and perhaps of what."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from .display import console

    err = console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as shown:
        task = shown.add_task(what, total=None)

        def progress(done: int, total: int, of: str = what) -> None:
            shown.update(task, completed=done, total=total, description=of)

        yield progress
