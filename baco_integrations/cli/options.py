"""Options that several commands share, and what is made of them.

Invariant: an option that was not given is not passed on, so that defaults live in one place; help
only repeats them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ParameterError, nearest
from ..core.routing import ROUTERS
from ..models.presets import PRESETS
from .errors import say

if TYPE_CHECKING:
    from ..core.params import SamplingParams
    from ..decoder.request import Pair as AnyPair
    from ..models.pair import ModelPair
    from ..tiny.world import Message, Request

SAMPLING, _OUTPUT = "Sampling", "Output"


def _routing(text: str, default: str, **more: Any) -> Any:
    return typer.Option(help=text, show_default=default, rich_help_panel="Routing", **more)


def _sampling(text: str, default: str | bool, *names: str) -> Any:
    return typer.Option(*names, help=text, show_default=default, rich_help_panel=SAMPLING)


def _pair(text: str, default: str | bool = False, **more: Any) -> Any:
    return typer.Option(help=text, show_default=default, rich_help_panel="Pair", **more)


def _starting(*names: str) -> Any:
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


Prompt = Annotated[str, typer.Argument(help="What to ask; '-' reads standard input.")]

Gamma = Annotated[
    float | None, _routing("Diversity: 0 is the aligned model, 1 as diverse as it gets.", "0.6")
]
Gammas = Annotated[
    list[float] | None,
    _routing("Diversity, from 0 to 1; each that is given gets a column.", "0.6"),
]
Router = Annotated[
    str | None,
    _routing(
        "Who gives the next token: a rule (p, h, rand, nudge), classes of tokens that are left to "
        "aligned (punc, fc, punc-fc), or both, as in p-punc; base and aligned decode alone.",
        "p-punc",
        autocompletion=_starting(*ROUTERS),
    ),
]
Temperature = Annotated[float | None, _sampling("0 is greedy, 1 plain sampling.", "0.7")]
TopK = Annotated[int | None, _sampling("Keep the k most probable tokens; 0 is off.", "0")]
TopP = Annotated[float | None, _sampling("Keep the smallest set of this probability.", "1.0")]
MinP = Annotated[
    float | None, _sampling("Drop tokens less probable than this share of the best.", "0.0")
]
MaxTokens = Annotated[int | None, _sampling("Longest answer, in tokens.", "256")]
Stop = Annotated[
    list[str] | None, _sampling("Text that ends an answer; may be given several times.", False)
]
Seed = Annotated[int | None, _sampling("Repeats a run exactly.", "a fresh one")]
Samples = Annotated[
    int,
    _sampling("How many answers, in each column if there are columns.", True, "--samples", "-n"),
]
System = Annotated[str | None, _sampling("What the models are told beforehand.", False)]

Pair = Annotated[
    str | None,
    _pair(
        "'tiny' (comes with the package) or a preset of `baco pairs`.",
        "tiny",
        autocompletion=_starting("tiny", *PRESETS),
    ),
]
Base = Annotated[str | None, _pair("Any base model, as an id or a folder; with --aligned.")]
Aligned = Annotated[str | None, _pair("Its aligned counterpart; with --base.")]
BasePrompt = Annotated[
    str | None,
    _pair(
        "How base is shown a conversation: 'qa', 'plain', 'urial' or 'chat_template'.",
        "the pair's",
        autocompletion=_starting("qa", "plain", "urial", "chat_template"),
    ),
]
Dtype = Annotated[str | None, _pair("Number format of the weights.", "the checkpoint's")]
Quantization = Annotated[
    str | None,
    _pair(
        "'8bit' stores linear layers in int8; '4bit' in nf4, on CUDA only.",
        "none",
        autocompletion=_starting("8bit", "4bit"),
    ),
]
Device = Annotated[str | None, _pair("'cpu', 'cuda:1', 'auto', ...", "the first GPU, or the CPU")]

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_OUTPUT)
]
Trace = Annotated[
    bool, typer.Option("--trace", help="Mark who gave each token.", rich_help_panel=_OUTPUT)
]


def sampling(*, noting: bool = True, **values: Any) -> SamplingParams:
    """Make parameters of the options that were given, and note those that have no effect."""
    from ..core.params import SamplingParams

    given = {name: value for name, value in values.items() if value not in (None, [])}
    params = SamplingParams(**given)
    if noting:
        _note_idle(params, given)
    return params


def _note_idle(params: SamplingParams, given: Mapping[str, Any]) -> None:
    if "gamma" in given and not params.spec.rule:
        say(f"--gamma has no effect with --router {params.spec.name}.", "Note")
    drawn = [f"--{name.replace('_', '-')}" for name in ("top_k", "top_p", "min_p") if name in given]
    if params.temperature == 0 and drawn:
        say(f"No effect at --temperature 0, where nothing is drawn: {', '.join(drawn)}.", "Note")
    if params.temperature == 0 and params.n > 1:
        say("Answers at --temperature 0 are all the same.", "Note")


def open_pair(
    pair: str | None = None,
    base: str | Path | None = None,
    aligned: str | Path | None = None,
    dtype: str | None = None,
    device: str | None = None,
    quantization: str | None = None,
    base_prompt: str | None = None,
) -> ModelPair:
    """Load the pair that the options name, and show that something is going on."""
    from .display import busy

    if (base is None) != (aligned is None) or (base is not None and pair is not None):
        given = {"pair": pair, "base": base, "aligned": aligned}
        came = " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)
        allowed = "given alone, or --base and --aligned together"
        raise ParameterError("pair", allowed, came, "For example --pair smollm2-135m.")
    pair = None if pair is None else pair.lower()
    if pair is not None and pair not in ("tiny", *PRESETS):
        hint = nearest(pair, ("tiny", *PRESETS))
        remedy = f"{hint}Any two models work as --base ... --aligned ...."
        raise ParameterError("pair", "tiny, or a name that `baco pairs` lists", pair, remedy)
    with busy("Starting"):  # importing takes longer than loading a small pair
        from ..models.pair import ModelPair
    wanted = {
        "dtype": dtype,
        "device_map": device,
        "quantization": quantization,
        "base_prompt": base_prompt,
    }
    loading = {name: value for name, value in wanted.items() if value is not None}
    if base is not None and aligned is not None:
        return ModelPair.from_pretrained(base, aligned, **loading)
    if pair in (None, "tiny"):
        with busy("Loading the tiny pair"):
            return ModelPair.tiny(progress=False, **loading)
    return ModelPair.from_preset(pair, **loading)


TINY_KNOWS = (
    "the tiny pair knows only requests for ideas in its own words, such as 'Name a place to "
    "visit.', 'Suggest a hobby.' or 'Tell me a short story.'; its answers to all else mean nothing."
)


def known_request(pair: AnyPair, conversation: Sequence[Message]) -> Request | None:
    """Return what the tiny pair is asked for; note where that is nothing it knows."""
    from ..tiny.world import recognised

    request = recognised(conversation) if pair.name == "tiny" else None
    if pair.name == "tiny" and request is None:
        say(TINY_KNOWS, "Note")
    return request


def messages(prompt: str, system: str | None = None) -> list[dict[str, str]]:
    """Return a conversation of one turn; the prompt ``-`` stands for standard input."""
    if prompt == "-":
        prompt = sys.stdin.read().removesuffix("\n")
    if not prompt.strip():
        raise ParameterError("prompt", "some text", prompt, "For example 'Name a place to visit.'")
    told = [{"role": "system", "content": system}] if system else []
    return [*told, {"role": "user", "content": prompt}]
