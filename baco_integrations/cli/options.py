"""Options that several commands share, and what is made of them.

Invariant: an option for a setting gets its type, help and default from the setting's field, and one
that was not given is not passed on. The fields are looked at only when a command is called, as they
need pydantic; the help that lists all commands comes at once.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from inspect import Parameter, Signature
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

import typer

from ..core.errors import ParameterError, nearest
from ..models.presets import PRESETS
from .errors import say

if TYPE_CHECKING:
    from ..core.params import SamplingParams
    from ..models.base import Pair
    from ..models.pair import ModelPair
    from ..tiny.requests import Message, Request

Function = TypeVar("Function", bound=Callable[..., Any])

Prompt = Annotated[str, typer.Argument(help="What to ask; '-' reads standard input.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel="Output")
]
Trace = Annotated[
    bool, typer.Option("--trace", help="Mark who gave each token.", rich_help_panel="Output")
]


# -- declaring ---------------------------------------------------------------------------------


def option(
    name: str, kind: Any, default: Any, help: str, *flags: str, panel: Any = None, **more: Any
) -> Parameter:
    """Return an option of typer as a parameter; the default ``...`` makes it required.

    `flags` are the option's names if they are not made from `name`, and `panel` is its section of
    the help.
    """
    kind = Annotated[kind, typer.Option(*flags, help=help, rich_help_panel=panel, **more)]
    default = Parameter.empty if default is ... else default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def starting(names: Collection[str]) -> Callable[[str], list[str]] | None:
    """Return a function that completes the beginning of a name; None if there are no names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete if names else None


TEXT = (str | None, None)
"""Type and default of a text that need not be given."""
SYSTEM = option("system", *TEXT, "What the models are told beforehand.", panel="Sampling")
BASE = option("base", *TEXT, "A base model: id, folder or GGUF file; with --aligned.", panel="Pair")
ALIGNED = option("aligned", *TEXT, "Its aligned counterpart; with --base.", panel="Pair")
MODEL = option(
    *("model", *TEXT), "Instead of a pair, one instruct model as both sides, an id or a folder."
)
NAMED_PAIR = option(
    *("pair", *TEXT),
    "'tiny' (comes with the package) or a preset of `baco pairs`.",
    panel="Pair",
    show_default="tiny",
    autocompletion=starting(("tiny", *PRESETS)),
)
MODELS = (NAMED_PAIR, MODEL, BASE, ALIGNED)
LOADING = ("base_prompt", "dtype", "device_map")
PAIR = (*MODELS, *LOADING, "quantization")
SAMPLING = ("gamma", "router", "temperature", "top_k", "top_p", "min_p", "max_tokens", "seed")
FLAGS = {"n": ("--samples", "-n"), "device_map": ("--device",)}
"""Settings that are typed in another way than their names say."""

SIGNATURES: dict[Any, Callable[[], Signature]] = {}
"""Gives the whole signature of each command that takes settings."""


def takes(*options: Parameter | str, **defaults: Any) -> Callable[[Function], Function]:
    """Let a command take options besides its own, which it gets as keyword arguments.

    Each is an option, or the name of a setting of `SamplingParams` or `LoadOptions`. `defaults` are
    the command's own for settings; one with a list as its default may be given several times.
    """

    def decorate(function: Function) -> Function:
        *own, _ = inspect.signature(function, eval_str=True).parameters.values()

        def signature() -> Signature:
            made = [
                setting_option(each, defaults.get(each)) if isinstance(each, str) else each
                for each in dict.fromkeys((*options, *defaults))
            ]
            return Signature([p.replace(kind=Parameter.KEYWORD_ONLY) for p in (*made, *own)])

        SIGNATURES[function] = signature
        command: Any = function
        command.__signature__ = Signature()
        return function

    return decorate


def setting_option(name: str, default: Any = None) -> Parameter:
    """Make an option of a setting's field; without a default, one that is not given is None."""
    from ..core.params import SamplingParams
    from ..core.settings import Checked, stated
    from ..engines.base import EngineSettings
    from ..models.options import LoadOptions
    from ..server.settings import ServerSettings

    homes: dict[str, type[Checked]] = {
        "Pair": LoadOptions,
        "Sampling": SamplingParams,
        "Engine": EngineSettings,
        "Server": ServerSettings,
    }
    panel = next(panel for panel, home in homes.items() if name in home.model_fields)
    field = homes[panel].model_fields[name]
    kind = option_type(field.annotation)
    kind = list[kind] if isinstance(default, list) else kind  # type: ignore[valid-type]
    several = " May be given several times." if get_origin(kind) is list else ""
    usual = stated(field, "unset") or ("" if field.default == () else str(field.default))
    return option(
        *(name, kind | None, default),
        stated(field, "help") + several,
        *FLAGS.get(name, ()),
        panel="Routing" if name in ("gamma", "router") else panel,
        show_default=usual or False if default in (None, []) else True,
        autocompletion=starting(stated(field, "names")),
    )


def option_type(annotation: Any) -> Any:
    """Return what typer reads for a field's type: without limits, None, and other than text."""
    inner = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) is Annotated or get_origin(annotation) in (Union, UnionType):
        return option_type(inner[0])
    if get_origin(annotation) is tuple:
        return list[option_type(inner[0])]  # type: ignore[misc]
    return str if annotation is Any or get_origin(annotation) is dict else annotation


# -- using -------------------------------------------------------------------------------------


def given_settings(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return those of some settings that were given."""
    return {name: values[name] for name in names if values.get(name) not in (None, [])}


def sampling(given: Mapping[str, Any], *, noting: bool = True) -> SamplingParams:
    """Make parameters of the options that were given, and note those that have no effect."""
    from ..core.params import SamplingParams

    sides = ("base", "aligned")  # models here
    settings = given_settings(given, (n for n in SamplingParams.model_fields if n not in sides))
    params = SamplingParams(**settings)
    if noting:
        if "gamma" in settings and not params.spec.rule:
            say(f"--gamma has no effect with --router {params.spec.name}.", "Note:")
        drawn = [n for n in ("top_k", "top_p", "min_p") if n in settings]
        if params.temperature == 0 and drawn:
            listed = ", ".join(f"--{name.replace('_', '-')}" for name in drawn)
            say(f"No effect at --temperature 0, where nothing is drawn: {listed}.", "Note:")
        if params.temperature == 0 and params.n > 1:
            say("Answers at --temperature 0 are all the same.", "Note:")
    return params


def open_pair(given: Mapping[str, Any]) -> ModelPair:
    """Load the pair that the options name, and show that something is going on."""
    from .display import busy

    models = named_models(given)
    pair = (given.get("pair") or "tiny").lower()
    if pair not in ("tiny", *PRESETS):
        hint = nearest(pair, ("tiny", *PRESETS))
        remedy = f"{hint}Any two models work as --base ... --aligned ..., one as --model ...."
        raise ParameterError("pair", "tiny, or a name that `baco pairs` lists", pair, remedy)
    with busy("Starting"):  # importing takes longer than loading a small pair
        from ..models.options import LoadOptions
        from ..models.pair import ModelPair
    loading = given_settings(given, LoadOptions.model_fields)
    if models:
        return ModelPair.from_pretrained(*models, **loading)
    if pair == "tiny":
        with busy("Loading the tiny pair"):
            return ModelPair.tiny(progress=False, **loading)
    return ModelPair.from_preset(pair, **loading)


def named_models(given: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return base and aligned as the options name them, both the same of --model; None of a pair.

    Raises:
        ParameterError: The options name several pairs, or half of one.
    """
    names = ("pair", "model", "base", "aligned")
    chosen = {name: value for name in names if (value := given.get(name)) is not None}
    if chosen.keys() == {"model"}:
        return chosen["model"], chosen["model"]
    if chosen.keys() == {"base", "aligned"}:
        return chosen["base"], chosen["aligned"]
    if chosen.keys() - {"pair"}:
        came = " ".join(f"--{name} {value}" for name, value in chosen.items())
        allowed = "given alone, or --model alone, or --base and --aligned together"
        raise ParameterError("pair", allowed, came, "For example --pair smollm2-135m.")
    return None


TINY_KNOWS = (
    "the tiny pair knows only requests for ideas in its own words, such as 'Name a place to "
    "visit.', 'Suggest a hobby.' or 'Tell me a short story.'; its answers to all else mean nothing."
)


def known_request(pair: Pair, conversation: Sequence[Message]) -> Request | None:
    """Return what the tiny pair is asked for; note where that is nothing it knows."""
    from ..tiny.requests import recognised

    request = recognised(conversation) if pair.name == "tiny" else None
    if pair.name == "tiny" and request is None:
        say(TINY_KNOWS, "Note:")
    return request


def messages(prompt: str, system: str | None = None) -> list[dict[str, str]]:
    """Return a conversation of one turn; the prompt ``-`` stands for standard input."""
    if prompt == "-":
        prompt = sys.stdin.read().removesuffix("\n")
    if not prompt.strip():
        raise ParameterError("prompt", "some text", prompt, "For example 'Name a place to visit.'")
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": prompt}]
