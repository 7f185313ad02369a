"""What the commands that ask many prompts share: their options, prompts, models, and imports."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ParameterError
from .options import ALIGNED, BASE, LOADING, NAMED_PAIR, TEXT, given_settings, open_pair, option

if TYPE_CHECKING:
    from ..evaluation.prompts import Prompt


def object_option(name: str, help: str, panel: str | None = None) -> Parameter:
    """Return an option that names something to import."""
    return option(name, *TEXT, help, panel=panel, metavar="MODULE:NAME", show_default=False)


PROMPTS = (
    "'tiny' (the embedded world), 'own' (100 of ours), 'categories' ('Name one fruit.', judged by "
    "lists), or a file."
)
FORM = option(
    *("form", str, "auto"),
    "The file's form: text, prompts, noveltybench, wildchat, stories.",
)
ROWS = option(
    *("rows", int | None, None), "Answers worked on at once.", min=1, show_default="64, or 8 calls"
)
COLLECTING = (
    option("out", Path, ..., "Folder of the run; one that exists is gone on with."),
    option("prompts", str, "tiny", PROMPTS, metavar="WHICH"),
    FORM,
    option(
        *("limit", int | None, None),
        "So many of the prompts, evenly spread.",
        min=1,
        show_default="all",
    ),
    option(
        *("method", list[str] | None, None),
        "A method (p-punc, ensemble, ...), a group of them (routers, baselines, prompting, "
        "ablations), or a router with a setting changed (p-punc:boundary=false); may be given "
        "several times.",
        show_default="all",
    ),
    option("points", int, 11, "Knob values and temperatures of each method.", min=1, max=25),
    option("seeds", int, 3, "Everything is done with so many seeds.", min=1),
    object_option(
        "judge",
        "Adds the method 'judge': a LangChain chat model, or a function of prompt and text.",
    ),
    ROWS,
    "max_tokens",
    *(NAMED_PAIR, BASE, ALIGNED, *LOADING),
    option(
        *("model", *TEXT),
        "Instead of a pair: one instruct model as both sides, an id or a folder; or MODULE:NAME, a "
        "model of LangChain or LlamaIndex, or a function that returns one for a temperature.",
        panel="Pair",
    ),
)
"""Options for having prompts answered; `baco eval run` and `baco eval sweep` share them."""
MEASURES = (
    object_option(
        "similarity",
        "Which answers are alike: an embedding model of LangChain, LlamaIndex or "
        "sentence-transformers, or a function of texts. Else the oracle on tiny prompts and "
        "categories, TF-IDF on others.",
        "Measuring",
    ),
    object_option(
        "quality",
        "Who says how good answers are: a LangChain chat model as judge, or a function of question "
        "and answers that returns a number from 0 to 1 for each. It is tried on an invented answer "
        "first. Not needed for tiny prompts and categories.",
        "Measuring",
    ),
)
REPORTING = (
    *MEASURES,
    option("title", *TEXT, "The page's title.", panel="Measuring"),
    option("resamples", int, 2000, "Resamples for intervals.", panel="Measuring", min=10),
)


def find_prompts(which: str, form: str, limit: int | None) -> list[Prompt]:
    """Return the prompts that the options name."""
    from ..evaluation.categories import category_prompts
    from ..evaluation.loaders import load_prompts
    from ..evaluation.prompts import own_prompts, spread

    if which in ("tiny", "own", "categories") and form != "auto":
        remedy = "It says how a file is to be read."
        raise ParameterError("form", f"left out with the prompts {which!r}", form, remedy)
    if which == "tiny":
        from ..evaluation.tiny import tiny_prompts

        return tiny_prompts(limit)
    if which == "categories":
        return spread(category_prompts(), limit)
    return spread(own_prompts() if which == "own" else load_prompts(which, form), limit)


def imported_model(given: Mapping[str, Any]) -> str | None:
    """Return what --model names to import; None where a pair answers, also one of one model."""
    model: str | None = given["model"]
    return model if model and ":" in model else None


def answer_settings(given: Mapping[str, Any], which: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the settings of answers that were given; answers to categories are short."""
    from ..evaluation.categories import ANSWER_TOKENS

    short = {"max_tokens": ANSWER_TOKENS} if which == "categories" else {}
    return short | given_settings(given, names)


def find_speaker(given: Mapping[str, Any]) -> Any:
    """Return the pair, or what else is to answer."""
    model = imported_model(given)
    if model is None:
        return open_pair(given)
    if any(given[name] is not None for name in ("pair", "base", "aligned", *LOADING)):
        remedy = "Give one or the other; a model of your own is loaded by your own module."
        raise ParameterError("model", "left out where a pair is given", model, remedy)
    return load_object("model", model)


def load_measures(given: Mapping[str, Any], asked: Sequence[Prompt] = ()) -> dict[str, Any]:
    """Import what answers are measured with, and try it where it is known what will be asked."""
    from ..evaluation.scorer import find_scorer

    measures = {name: load_object(name, given[name]) for name in ("similarity", "quality")}
    if asked:
        scorer = find_scorer(asked, **measures)
        if any(each is not None for each in measures.values()):
            scorer.try_out(asked[0])
    return measures


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
