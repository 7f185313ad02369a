"""`baco serve`: an OpenAI-compatible server and the playground."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..core.errors import ParameterError
from . import options

LISTENING = (
    *("host", "port", "allow_origins", "max_body_bytes", "body_timeout", "max_prompt_tokens"),
    *("max_choices", "request_timeout", "drain_timeout", "log_prompts"),
)
ENGINE = ("max_rows", "max_waiting", "prefix_bytes", "kv_bytes")
PLACED = ("quantization", "engine", "engine_options")
DEFAULTS = ("gamma", "router", "temperature", "top_k", "top_p", "min_p", "max_tokens")


@options.takes(*LISTENING, *ENGINE, *DEFAULTS, *options.LOADING, *PLACED, max_waiting=1024)
def serve(
    pair: Annotated[
        list[str] | None,
        typer.Option(
            help="A pair to serve: 'tiny', a preset, or NAME=BASE+ALIGNED. May be given several "
            "times.",
            rich_help_panel="Pair",
            show_default="tiny",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="One instruct model as both sides, an id or a folder, or NAME=MODEL. May be given "
            "several times.",
            rich_help_panel="Pair",
            show_default=False,
        ),
    ] = None,
    load: Annotated[
        Literal["start", "first-use"],
        typer.Option(help="When pairs are loaded.", rich_help_panel="Pair"),
    ] = "start",
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with one key a line; without it, BACO_API_KEY is the key.",
            rich_help_panel="Server",
        ),
    ] = None,
    **given: Any,
) -> None:
    """Serve pairs over HTTP, as OpenAI's API, with a playground at the address it prints.

    Sampling options are the defaults of requests that say nothing else.
    Without an API key, only this machine can call.
    """
    from ..server import ServedPairs, ServerSettings
    from ..server import serve as run
    from .errors import say

    keys = read_keys(api_key_file)
    listening: Any = {**options.given_settings(given, LISTENING), "api_keys": keys}
    settings = ServerSettings(**listening)
    pairs = ServedPairs(
        named_pairs(pair or ([] if model else ["tiny"]), model or []),
        defaults=options.given_settings(given, DEFAULTS),
        loading=options.given_settings(given, (*options.LOADING, *PLACED)),
        engine=options.given_settings(given, ENGINE),
    )

    def started(port: int) -> None:
        keep_loaded()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        when = "loaded" if load == "start" else "loaded on first use"
        say(
            f"http://{host}:{port} (playground), http://{host}:{port}/v1 (API). Pairs, {when}: "
            f"{', '.join(pairs.names)}. Ctrl-C ends it.",
            "Serving:",
        )

    run(pairs, settings, load=load == "start", started=started)


def keep_loaded() -> None:
    """Let garbage collections pass over all that is loaded by now.

    Modules, tokenizers and models are some 400,000 objects, and a full collection that looks
    through them stops all threads for 100 to 500 ms. Only a process of our own may be told so: what
    another program holds at this moment is its own to free.
    """
    gc.collect()
    gc.freeze()


def named_pairs(given: Sequence[str], models: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return pairs by name: presets by their own, others as ``NAME=BASE+ALIGNED``.

    Args:
        given: These.
        models: Models that are both sides, as ``NAME=MODEL``; without a name, that of the model.

    Raises:
        ParameterError: One is neither, or a name is given twice.
    """
    pairs: dict[str, Any] = {}
    for each in given:
        name, equals, both = each.partition("=")
        base, plus, aligned = both.partition("+")
        if name in pairs or (equals and not (base and aligned)):
            allowed = "a name of `baco pairs`, or NAME=BASE+ALIGNED, each name once"
            raise ParameterError("pair", allowed, each, "For example my=org/model+org/model-it.")
        pairs[name] = (base, aligned) if plus else name
    for each in models:
        name, equals, model = each.rpartition("=")
        name = name if equals else Path(each).resolve().name if Path(each).is_dir() else each
        if name in pairs or not (name and model):
            allowed = "MODEL or NAME=MODEL, each name once"
            raise ParameterError("model", allowed, each, "For example my=org/model-instruct.")
        pairs[name] = (model, model)
    return pairs


def read_keys(file: Path | None) -> tuple[str, ...]:
    """Return the keys of a file, or else that of the environment; none if there is neither.

    Raises:
        ParameterError: The file holds none.
    """
    if file is None:
        key = os.environ.get("BACO_API_KEY", "").strip()
        return (key,) if key else ()
    keys = tuple(
        line.strip() for line in file.read_text("utf-8-sig", "replace").splitlines() if line.strip()
    )
    if not keys:
        raise ParameterError(
            "api_key_file", "a file with one key a line", str(file), "Put a key into it."
        )
    return keys
